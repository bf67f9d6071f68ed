"""The final file against its source, stream by stream."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.subtitles.codeccontext import SubtitleCodecContext

from oasis_core.video import (
    EncodeSpec,
    VideoError,
    VideoReader,
    check_destination,
    mux,
)

VFR = [0, 512, 1024, 3000, 3001, 5000, 9000, 9512, 20000, 20512, 26000]
NTSC = Fraction(24000, 1001)
HAS_CHAPTERS = hasattr(av.container.OutputContainer, "set_chapters")
HAS_MOV_TEXT = hasattr(SubtitleCodecContext, "subtitle_header")
HAS_ATTACHMENTS = hasattr(av.container.OutputContainer, "add_attachment")


def read(path):
    with VideoReader(path) as reader:
        return reader.info, list(reader)


@pytest.fixture
def rebuild(clips, tmp_path):
    """Return a function that reads a clip and writes it again: (source, output, report)."""

    def run(path, name, **options):
        info, frames = read(path)
        report = clips.upscale_identity(frames, info, tmp_path / name, **options)
        assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]
        return (info, frames), read(tmp_path / name), report

    return run


def seconds(info, frames):
    return [f.pts * info.time_base for f in frames]


def sound(clips, path):
    """Return codec, language, times and bytes of every sound track."""
    with av.open(str(path)) as container:
        tracks = [(s.index, s.codec_context.name, s.language) for s in container.streams.audio]
    return [
        (codec, language, [(p.pts * p.time_base, bytes(p)) for p in clips.packets_of(path, index)])
        for index, codec, language in tracks
    ]


CLIPS = {
    "plain": {"pts": 13},
    "one frame": {"pts": 1},
    "ntsc": {"pts": 13, "rate": NTSC},
    "29.97": {"pts": 13, "rate": Fraction(30000, 1001)},
    "vfr": {"pts": VFR, "time_base": Fraction(1, 12800), "options": {"bf": "3"}},
    "late start": {"pts": range(7, 15)},
    "601": {"pts": 5, "tags": (6, 6, 6, 1)},
    "709": {"pts": 5, "tags": (1, 1, 1, 1)},
    "full range": {"pts": 5, "tags": (1, 1, 1, 2), "pixel_format": "yuvj420p"},
    "hdr": {"pts": 5, "tags": (9, 16, 9, 1), "pixel_format": "yuv420p10le"},
    "anamorphic": {"pts": 5, "aspect": Fraction(16, 15)},
    "odd size": {"pts": 5, "size": (63, 47), "pixel_format": "yuv444p"},
    "short sound": {"pts": 20, "num_sounds": 1, "sound_s": 0.2},
    "long sound": {"pts": 5, "num_sounds": 2, "sound_s": 1.5},
}


OUTPUTS = [(what, name, "h264") for what in CLIPS for name in ("out.mp4", "out.mkv")]
OUTPUTS += [(what, "out.mov", "h265") for what in ("vfr", "hdr", "601", "long sound")]


@pytest.mark.parametrize(("what", "name", "codec"), OUTPUTS)
def test_everything_is_kept(make_clip, rebuild, clips, tmp_path, what, name, codec):
    path = make_clip(**CLIPS[what])
    (info, frames), (new_info, new_frames), report = rebuild(path, name, codec=codec, preset="fast")
    assert report.dropped == ()
    assert len(new_frames) == len(frames)
    times, new_times = seconds(info, frames), seconds(new_info, new_frames)
    moved = Fraction(0)
    if name.endswith("mkv"):
        # Matroska counts whole milliseconds and has none below zero, where AAC starts.
        moved = Fraction(23, 1000) if "sound" in what else Fraction(0)
        assert len(report.kept) == len(info.audio_streams) + bool(moved)
        assert all(
            abs(b - a - moved) <= Fraction(1, 1000) for a, b in zip(times, new_times, strict=True)
        )
    else:
        assert new_info.time_base == info.time_base
        assert [f.pts for f in new_frames] == [f.pts for f in frames]
        # With B-frames at a varying rate, MP4 has no place for how long the last picture stays.
        end = -1 if what == "vfr" else None
        assert [f.duration for f in new_frames[:end]] == [f.duration for f in frames[:end]]
    # An H.265 file that says nothing about its range is decoded as "limited", which it then is.
    said = info.color.range or int(codec == "h265")
    assert new_info.color == dataclasses.replace(info.color, range=said)
    assert new_info.sample_aspect_ratio == info.sample_aspect_ratio
    assert new_info.bit_depth == info.bit_depth
    assert (new_info.width, new_info.height) == (info.width, info.height)
    if what != "vfr" and len(frames) > 9:  # Matroska's reader estimates it from the times
        assert abs(new_info.frame_rate / info.frame_rate - 1) < 0.01
    old_sound, new_sound = sound(clips, path), sound(clips, tmp_path / name)
    for (codec_a, lang_a, a), (codec_b, lang_b, b) in zip(old_sound, new_sound, strict=True):
        assert (codec_a, lang_a) == (codec_b, lang_b)
        assert [data for _, data in a] == [data for _, data in b]
        shifts = [t_b - t_a - moved for (t_a, _), (t_b, _) in zip(a, b, strict=True)]
        assert max(map(abs, shifts)) <= (Fraction(1, 900) if moved else 0)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("segment", [1, 2, 3, 100])
def test_dts_are_valid_over_all_borders(clips, make_clip, rebuild, tmp_path, num_frames, segment):
    pts = VFR[:num_frames]
    path = make_clip(pts=pts, time_base=Fraction(1, 12800))
    source, output, _ = rebuild(path, "out.mp4", segment=segment, preset="medium")
    assert [f.pts for f in output[1]] == [f.pts for f in source[1]]
    packets = clips.packets_of(tmp_path / "out.mp4", 0)
    assert all(a.dts < b.dts for a, b in itertools.pairwise(packets))
    assert all(p.dts <= p.pts for p in packets)
    assert sum(p.is_keyframe for p in packets) >= -(-num_frames // segment)


@pytest.mark.parametrize("depth", [8, 10])
def test_ffv1_returns_every_pixel_of_the_reader(make_clip, rebuild, depth):
    pixel_format = "yuv420p" if depth == 8 else "yuv420p10le"
    path = make_clip("a.mkv", pts=7, pixel_format=pixel_format, num_sounds=1)
    source, output, report = rebuild(path, "out.mkv", codec="ffv1")
    assert seconds(*source) == seconds(*output)
    assert report.dropped == ()
    for a, b in zip(source[1], output[1], strict=True):
        unit = 65535 / 1023 if depth == 10 else 1
        error = np.abs(a.pixels.astype(int) - b.pixels)
        assert error.max() <= (unit / 2 + 1 if depth == 10 else 0)


def test_rotated_source_becomes_upright(make_clip, rebuild, clips, tmp_path):
    path = make_clip(pts=3, aspect=Fraction(16, 15), num_sounds=1)
    clips.turn(path, (0, 1, -1, 0))
    source, output, _ = rebuild(path, "out.mp4", crf=4)
    assert (output[0].width, output[0].height, output[0].rotation_deg) == (48, 64, 0)
    assert output[0].sample_aspect_ratio == Fraction(15, 16)
    assert np.abs(source[1][1].pixels.astype(int) - output[1][1].pixels).mean() < 4


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_subtitles_chapters_attachments_and_metadata(make_clip, rebuild, clips, tmp_path, name):
    lines = clips.subtitles(tmp_path)

    def add(container):
        if HAS_ATTACHMENTS:
            container.add_attachment("font.ttf", "font/ttf", b"FONT" * 20)
        if HAS_CHAPTERS:
            millis = Fraction(1, 1000)
            container.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": millis, "metadata": {"title": t}}
                    for i, a, b, t in ((1, 0, 200, "one"), (2, 200, 400, "two"))
                ]
            )
        return lines.add(container)

    path = make_clip(
        "a.mkv", pts=10, num_sounds=2, before_header=add, after=lines.write,
        metadata={"title": "Film", "custom": "value"},
    )  # fmt: skip
    _, (info, _), report = rebuild(path, name)
    assert info.audio_streams == ("audio #1 (aac, eng)", "audio #2 (aac, fra)")
    is_mkv = name.endswith("mkv")
    if is_mkv:
        old, new = clips.packets_of(path, 3), clips.packets_of(tmp_path / name, 3)
        assert [(p.pts, p.duration, bytes(p)) for p in old] == [
            (p.pts, p.duration, bytes(p)) for p in new
        ]
        assert report.dropped == ()
    else:
        dropped = " ".join(report.dropped)
        if HAS_MOV_TEXT:
            assert "subtitle #3 (srt, deu), as mov_text" in report.kept
            lines = [bytes(p) for p in clips.packets_of(tmp_path / name, 3)]
            assert [line[2:] for line in lines if len(line) > 2] == [b"Guten Tag", b"Ende"]
        else:
            assert "subtitle #3 (srt, deu): MP4 cannot hold it; write to .mkv to keep it" in dropped
        assert ("font.ttf" in dropped) == HAS_ATTACHMENTS
    with av.open(str(tmp_path / name)) as container:
        assert container.metadata["title"] == "Film"
        assert container.metadata["CUSTOM"] == "value"
        if HAS_ATTACHMENTS and is_mkv:
            assert container.streams[4].data == b"FONT" * 20
        if HAS_CHAPTERS:
            chapters = container.chapters()
            assert [c["metadata"]["title"] for c in chapters] == ["one", "two"]
            assert chapters[1]["start"] * chapters[1]["time_base"] == Fraction(1, 5)
            assert "2 chapters" in report.kept


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_cover_picture(make_clip, rebuild, clips, tmp_path, name):
    cover = clips.cover(tmp_path)
    path = make_clip(before_header=cover.add, after=cover.write, pts=4, num_sounds=1)
    _, (info, _), report = rebuild(path, name)
    if name.endswith("mkv") and not HAS_ATTACHMENTS:
        assert "cannot write attachments" in report.dropped[0]
        return
    assert report.dropped == ()
    assert info.other_streams == ("cover picture #2 (png)",)
    old, new = clips.packets_of(path, 2), clips.packets_of(tmp_path / name, 2)
    assert [bytes(p) for p in old] == [bytes(p) for p in new]


def test_mov_with_pcm_to_mp4_and_disposition(make_clip, rebuild, clips, tmp_path):
    path = make_clip("a.mov", pts=5, num_sounds=1, sound_codec="pcm_s16le")
    rebuild(path, "out.mp4")
    (_, _, old), (codec, _, new) = *sound(clips, path), *sound(clips, tmp_path / "out.mp4")
    assert codec == "pcm_s16le"
    assert b"".join(d for _, d in old) == b"".join(d for _, d in new)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [s.disposition.value & 1 for s in container.streams] == [1, 1]


def test_second_video_track_is_left_out_with_a_word(make_clip, rebuild, clips, tmp_path):
    other = clips.cover(tmp_path)
    other._disposition = 0
    path = make_clip(before_header=other.add, after=other.write, pts=3)
    _, (info, _), report = rebuild(path, "out.mp4")
    assert info.other_streams == ()
    assert "only the first video track" in report.dropped[0]


def test_transport_stream_starts_at_zero_in_sync(make_clip, rebuild, clips, tmp_path):
    path = make_clip("a.ts", pts=10, num_sounds=1)
    (info, frames), (new_info, new_frames), report = rebuild(path, "out.mp4")
    old_start, new_start = seconds(info, frames)[0], seconds(new_info, new_frames)[0]
    shift = new_start - old_start
    assert shift < 0
    assert f"moved by {float(shift):.3f} s" in " ".join(report.kept)
    (_, _, old), (_, _, new) = *sound(clips, path), *sound(clips, tmp_path / "out.mp4")
    assert abs(new[0][0] - old[0][0] - shift) < Fraction(1, 10_000)
    assert min(new_start, new[0][0]) < Fraction(1, 1000)


def test_same_input_gives_the_same_bytes(make_clip, rebuild, tmp_path):
    path = make_clip(pts=9, num_sounds=1)
    for name in ("a.mp4", "b.mp4", "a.mkv", "b.mkv"):
        rebuild(path, name)
    for suffix in ("mp4", "mkv"):
        first, second = (tmp_path / f"{n}.{suffix}" for n in "ab")
        if suffix == "mp4":
            data = first.read_bytes()
            assert data.index(b"moov") < data.index(b"mdat")  # faststart
        assert first.read_bytes() == second.read_bytes()


def test_h265_in_mp4_is_tagged_for_apple(make_clip, rebuild, tmp_path):
    rebuild(make_clip(pts=2), "out.mp4", codec="h265")
    assert b"hvc1" in (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_comfyui_workflow_stays_in_the_file(make_clip, rebuild, tmp_path, suffix):
    metadata = {"workflow": '{"nodes": []}', "prompt": "{}", "title": "Film"}
    options = {"movflags": "+use_metadata_tags"}
    path = make_clip(pts=2, metadata=metadata, container_options=options)
    _, _, report = rebuild(path, f"out.{suffix}")
    assert report.dropped == ()
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        kept = {key.lower(): value for key, value in container.metadata.items()}
    assert metadata.items() <= kept.items()


def test_extra_metadata_and_no_source(make_clip, clips, tmp_path):
    info, frames = read(make_clip(pts=2))
    clips.upscale_identity(frames, info, tmp_path / "out.mp4")
    spec = EncodeSpec.from_source(info, codec="h264", width=64, height=48)
    report = mux(
        [tmp_path / "out.mp4-0.mkv"], None, tmp_path / "b.mp4", spec, metadata={"comment": "made"}
    )
    assert report.kept == report.dropped == ()
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.metadata["comment"] == "made"
        assert len(container.streams) == 1


@pytest.mark.parametrize(
    ("name", "codec", "match"),
    [
        ("out.avi", "h264", r"must end in one of .mp4, .m4v, .mov, .mkv, .webm, got '.avi'"),
        ("out", "h264", "got 'no ending'"),
        ("out.mp4", "ffv1", "cannot hold ffv1, which needs Matroska; name the output 'out.mkv'"),
        ("no/out.mp4", "h264", "does not exist; create it first"),
        ("folder.mp4", "h264", "is a folder"),
    ],
)
def test_destination_is_checked_before_any_work(tmp_path, name, codec, match):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match=match):
        check_destination(tmp_path / name, codec)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]


def test_the_input_is_never_replaced(make_clip, clips, tmp_path):
    path = make_clip(pts=2)
    before = path.read_bytes()
    info, frames = read(path)
    with pytest.raises(VideoError, match="is the input itself"):
        clips.upscale_identity(frames, info, path)
    assert path.read_bytes() == before


def test_a_failed_mux_leaves_the_old_output(make_clip, clips, tmp_path):
    path = make_clip(pts=8, num_sounds=1)
    info, frames = read(path)
    target = tmp_path / "out.mp4"
    clips.upscale_identity(frames, info, target)
    before = target.read_bytes()
    spec = EncodeSpec.from_source(info, codec="h264", width=64, height=48)
    with pytest.raises(VideoError, match=r"gone.mkv' cannot be read"):
        mux([tmp_path / "out.mp4-0.mkv", tmp_path / "gone.mkv"], path, target, spec)
    assert target.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_sound_only_source_is_refused(make_clip, clips, tmp_path):
    info, frames = read(make_clip(pts=2))
    sound_file = clips.write_sound(tmp_path / "sound.mp4")
    with pytest.raises(VideoError, match="no video stream"):
        clips.upscale_identity(frames, info, tmp_path / "out.mp4", source=sound_file)
    assert not (tmp_path / "out.mp4").exists()


def test_sound_that_goes_back_in_time_does_not_stop_the_join(make_clip, rebuild, clips, tmp_path):
    for name in ("one.ts", "two.ts"):
        make_clip(name, pts=8, num_sounds=1)
    both = tmp_path / "both.ts"  # as recordings are joined by `cat`
    both.write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("one.ts", "two.ts")))
    ((_, _, old),) = sound(clips, both)
    assert any(a > b for (a, _), (b, _) in itertools.pairwise(old))
    for name in ("out.mp4", "out.mov", "out.mkv"):
        (_, frames), (_, new_frames), report = rebuild(both, name)
        assert len(new_frames) == len(frames) == 16
        assert "whose time went back" in " ".join(report.kept)
        assert report.dropped == ()
        ((_, _, new),) = sound(clips, tmp_path / name)
        assert len(new) == len(old)
        times = [time for time, _ in new]
        assert times == sorted(times)


def test_sound_without_times_follows_the_sound_before_it(make_clip, rebuild, clips, tmp_path):
    path = make_clip("a.wtv", pts=12, codec="mpeg4", num_sounds=1)
    old = clips.packets_of(path, 1)
    assert old[0].pts is not None
    assert old[1].pts is None
    _, _, report = rebuild(path, "out.mkv")
    assert report.dropped == ()
    assert [bytes(p) for p in clips.packets_of(tmp_path / "out.mkv", 1)] == [bytes(p) for p in old]


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_damaged_sound_does_not_stop_the_join(make_clip, rebuild, tmp_path, name):
    path = make_clip("a.ts", pts=40, num_sounds=1)
    data = bytearray(path.read_bytes())
    headers = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xf1"]  # of AAC
    for at in headers[len(headers) // 2 :]:
        data[at + 1] = 0
    path.write_bytes(data)
    (_, frames), (info, new_frames), report = rebuild(path, name)
    assert len(new_frames) == len(frames) == 40
    assert len(info.audio_streams) == 1
    assert "packets of sound or subtitles that are damaged" in report.dropped[0]


@pytest.mark.parametrize(("name", "codec"), [("a.nut", "eac3"), ("a.ts", "pcm_s16le")])
def test_what_mp4_refuses_does_not_stop_the_join(make_clip, rebuild, name, codec):
    # NUT calls E-AC-3 AC-3; a transport stream makes data of PCM.
    path = make_clip(name, pts=6, codec="mpeg4", num_sounds=1, sound_codec=codec)
    (_, frames), (info, new_frames), report = rebuild(path, "out.mp4")
    assert len(new_frames) == len(frames) == 6
    assert bool(info.audio_streams) != bool(report.dropped)
