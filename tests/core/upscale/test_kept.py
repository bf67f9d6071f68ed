"""What goes in comes out: the whole engine without its model, stream by stream.

Strength 0 at scale 1 is the identity, so whatever differs is the file layer's doing.
"""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from oasis_core.upscale import VideoUpscaler, upscale_file
from oasis_core.video import CODECS, VideoReader, available_codecs, probe
from oasis_core.video.hdr import HdrMetadata

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
PHONE = [0, 1502, 3010, 4498, 6003, 6020, 9010, 10500, 12040, 13500, 18000, 19502]
HDR10 = "master-display=G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,50)"
HAS_CHAPTERS = hasattr(av.container.OutputContainer, "set_chapters")

SOURCES = {
    "23.976": {"rate": FILM, "pts": 12, "num_sounds": 1},
    "29.97": {"rate": NTSC, "pts": 12},
    "phone, variable rate": {"pts": PHONE, "time_base": Fraction(1, 90000), "num_sounds": 1},
    "late start": {"pts": range(5, 15), "options": {"bf": "2"}},
    "sound shorter": {"pts": 15, "num_sounds": 1, "sound_s": 0.2},
    "sound longer": {"pts": 8, "num_sounds": 1, "sound_s": 1.2},
    "rotated": {"pts": 6, "turn": (0, 1, -1, 0)},
    "pixels 16:15": {"pts": 6, "aspect": Fraction(16, 15)},
    "10 bits": {"pts": 6, "pixel_format": "yuv420p10le"},
    "HDR10": {
        "pts": 4,
        "codec": "libx265",
        "pixel_format": "yuv420p10le",
        "tags": (9, 16, 9, 1),
        "options": {"x265-params": f"log-level=none:hdr10=1:max-cll=1000,400:{HDR10}"},
    },
    "HLG": {"pts": 4, "pixel_format": "yuv420p10le", "tags": (9, 18, 9, 1)},
    "full range": {"pts": 6, "pixel_format": "yuvj420p", "tags": (1, 1, 1, 2)},
    "601": {"pts": 6, "tags": (6, 6, 6, 1)},
    "709 untagged range": {"pts": 6, "tags": (1, 1, 1, 0)},
    "one frame": {"pts": 1},
}


@pytest.fixture(scope="session")
def clips():
    """Return the functions that make clips for the tests of the file layer."""
    import importlib.util

    path = Path(__file__).parents[1] / "video" / "conftest.py"
    spec = importlib.util.spec_from_file_location("video_clips", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(**vars(module))


@pytest.fixture
def identity(point_model):
    upscaler = VideoUpscaler(point_model, device="cpu", dtype="float32")

    def run(source, destination, **options):
        return upscale_file(source, destination, upscaler=upscaler, scale=1, strength=0, **options)

    return run


def make(clips, folder, what):
    options = dict(SOURCES[what])
    turn = options.pop("turn", None)
    # Above 64, the least that SVT-AV1 before version 3 takes, when turned, too.
    path = clips.write_clip(folder / "in.mp4", size=(96, 80), **options)
    if turn:
        clips.turn(path, turn)
    return path


def frames_of(path):
    with VideoReader(path) as reader:
        return reader.info, list(reader)


def other_streams(path):
    with av.open(str(path)) as container:
        return [
            (s.type, s.codec_context.name, s.language, s.disposition.value)
            for s in container.streams
            if s.type not in ("video", "data")
        ]


def sound_times(path):
    with av.open(str(path)) as container:
        return [
            [(p.pts * p.time_base, bytes(p)) for p in container.demux(s) if p.size]
            for s in container.streams.audio[:1]
        ]


@pytest.mark.parametrize("what", list(SOURCES))
def test_streams_times_and_tags(clips, identity, tmp_path, what):
    source = make(clips, tmp_path, what)
    report = identity(source, tmp_path / "out.mp4", codec="h264", preset="ultrafast", crf=1)
    info, frames = frames_of(source)
    new, new_frames = frames_of(tmp_path / "out.mp4")
    assert report.dropped == ()
    assert report.frames == len(new_frames) == len(frames)
    assert new.time_base == info.time_base
    assert [f.pts for f in new_frames] == [f.pts for f in frames]
    ends = [(f[-1].pts + f[-1].duration) * info.time_base for f in (frames, new_frames)]
    assert abs(ends[1] - ends[0]) <= 1 / info.frame_rate
    assert other_streams(tmp_path / "out.mp4") == other_streams(source)
    assert sound_times(tmp_path / "out.mp4") == sound_times(source)
    assert (new.width, new.height, new.rotation_deg) == (info.width, info.height, 0)
    assert new.sample_aspect_ratio == info.sample_aspect_ratio
    assert new.bit_depth == info.bit_depth
    assert new.hdr == info.hdr
    assert (new.hdr != HdrMetadata()) == (what == "HDR10")
    assert (new.color.primaries, new.color.transfer, new.color.matrix) == (
        info.color.primaries,
        info.color.transfer,
        info.color.matrix,
    )
    assert new.color.range == info.color.range
    assert abs(float(new.frame_rate / info.frame_rate) - 1) < 0.01 or what == "one frame"


@pytest.mark.parametrize("what", ["23.976", "10 bits", "full range", "601", "rotated", "HDR10"])
def test_identity_changes_no_pixel(clips, identity, tmp_path, what):
    source = make(clips, tmp_path, what)
    identity(source, tmp_path / "out.mkv", codec="ffv1")
    (info, before), (_, after) = frames_of(source), frames_of(tmp_path / "out.mkv")
    most = 65535 / 1023 if info.bit_depth == 10 else 1
    for a, b in zip(before, after, strict=True):
        assert a.pixels.dtype == b.pixels.dtype
        assert np.abs(a.pixels.astype(int) - b.pixels).max() <= most


@pytest.mark.parametrize("what", ["601", "full range", "10 bits"])
def test_identity_of_codes_through_yuv(clips, identity, tmp_path, what):
    """Luma codes come back as they were when the encoder is lossless; chroma is resampled."""
    source = make(clips, tmp_path, what)
    pixel_format = probe(source).pixel_format.replace("yuvj", "yuv")
    identity(source, tmp_path / "out.mkv", codec="ffv1", pix_fmt=pixel_format)

    def luma(path):
        with av.open(str(path)) as container:
            dtype = np.uint16 if pixel_format.endswith("le") else np.uint8
            for frame in container.decode(video=0):
                plane = frame.planes[0]
                rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
                yield rows[:, : plane.width].astype(int)

    for a, b in zip(luma(source), luma(tmp_path / "out.mkv"), strict=True):
        inside = (a > 40) & (a < 200) if pixel_format == "yuv420p" else slice(None)
        assert np.abs(a - b)[inside].mean() < 0.5


ON_CPU = [name for name in CODECS if not CODECS[name].needs]


@pytest.mark.parametrize("codec", ON_CPU)
def test_every_codec_holds_the_film(clips, identity, tmp_path, codec):
    if codec not in available_codecs():
        pytest.skip(f"this PyAV has no encoder for {codec}")
    source = clips.write_clip(
        tmp_path / "in.mp4", pts=10, rate=FILM, size=(96, 80), num_sounds=1, tags=(1, 1, 1, 1)
    )
    suffix = {"prores": ".mov", "ffv1": ".mkv"}.get(codec, ".mp4")
    report = identity(source, tmp_path / f"out{suffix}", codec=codec, segment_frames=4)
    (info, before), (new, after) = frames_of(source), frames_of(tmp_path / f"out{suffix}")
    assert report.dropped == ()
    assert report.num_segments >= 2
    names = {"h265": "hevc"}
    assert new.codec.replace("libdav1d", "av1") == names.get(codec, codec)
    tick = Fraction(1, 1000) if suffix == ".mkv" else 0
    moved = after[0].pts * new.time_base - before[0].pts * info.time_base
    for a, b in zip(before, after, strict=True):
        assert abs(b.pts * new.time_base - a.pts * info.time_base - moved) <= tick
        top = np.iinfo(b.pixels.dtype).max
        error = np.abs(a.pixels / 255 - b.pixels / top)
        assert error.mean() < 0.02, codec
    assert new.color.primaries == 1
    assert len(new.audio_streams) == 1


ROW_9 = (
    "23.976", "29.97", "phone, variable rate", "sound shorter", "sound longer", "rotated",
    "pixels 16:15", "10 bits", "HDR10", "full range", "601",
)  # fmt: skip
QUICK = {"h265": "ultrafast", "av1": "13", "vp9": "8"}
DEPTHS = {
    "h265": (8, 10, 12),
    "av1": (8, 10),
    "prores": (10,),
    "ffv1": (8, 10, 12, 16),
    "vp9": (8,),
}


@pytest.mark.parametrize("codec", [name for name in ON_CPU if name != "h264"])
@pytest.mark.parametrize("what", ROW_9)
def test_every_input_through_every_codec(clips, identity, tmp_path, what, codec):
    """The table: what the source has, whatever it is encoded as. H.264 is above, in full."""
    if codec not in available_codecs():
        pytest.skip(f"this PyAV has no encoder for {codec}")
    source = make(clips, tmp_path, what)
    result = tmp_path / ("out" + {"prores": ".mov", "ffv1": ".mkv"}.get(codec, ".mp4"))
    report = identity(source, result, codec=codec, preset=QUICK.get(codec))
    (info, frames), (new, new_frames) = frames_of(source), frames_of(result)
    keeps_hdr = codec in ("h265", "av1")
    expected = {"HDR10": not keeps_hdr, "full range": codec == "prores"}
    assert len(report.dropped) == expected.get(what, 0) + (info.bit_depth > max(DEPTHS[codec]))
    assert new.hdr == info.hdr or not keeps_hdr

    # Matroska counts milliseconds, and moves all times where AAC begins before 0.
    tick = Fraction(3, 2000) if result.suffix == ".mkv" else 0
    moved = new_frames[0].pts * new.time_base - frames[0].pts * info.time_base
    assert moved == 0 or (tick and any("moved by" in line for line in report.kept))
    assert len(new_frames) == len(frames) == report.frames
    for a, b in zip(frames, new_frames, strict=True):
        assert abs(b.pts * new.time_base - a.pts * info.time_base - moved) <= tick
    ends = [
        (f[-1].pts + f[-1].duration) * i.time_base for i, f in ((info, frames), (new, new_frames))
    ]
    assert abs(ends[1] - ends[0] - moved) <= 1 / info.frame_rate + tick

    assert other_streams(result) == other_streams(source)
    for before, after in zip(sound_times(source), sound_times(result), strict=True):
        assert [data for _, data in after] == [data for _, data in before]
        assert all(abs(b[0] - a[0] - moved) <= tick for a, b in zip(before, after, strict=True))

    assert (new.width, new.height, new.rotation_deg) == (info.width, info.height, 0)
    assert new.sample_aspect_ratio == info.sample_aspect_ratio
    assert new.bit_depth == min(
        (d for d in DEPTHS[codec] if d >= info.bit_depth), default=max(DEPTHS[codec])
    )
    assert new.color.transfer == info.color.transfer
    assert new.color.primaries == info.color.primaries
    if codec != "ffv1":  # which is RGB here
        assert new.color.matrix == info.color.matrix
    full = [np.iinfo(f[0].pixels.dtype).max for f in (frames, new_frames)]
    error = max(
        np.abs(a.pixels / full[0] - b.pixels / full[1]).mean()
        for a, b in zip(frames, new_frames, strict=True)
    )
    assert error < (1 / 255 if codec == "ffv1" else 0.02)


@pytest.mark.parametrize("codec", ["h264", "av1", "prores", "ffv1"])
@pytest.mark.parametrize("aspect", [Fraction(16, 15), Fraction(8, 9), Fraction(4320, 2997)])
def test_matroska_says_what_shape_a_pixel_has(clips, identity, tmp_path, codec, aspect):
    if codec not in available_codecs():
        pytest.skip(f"this PyAV has no encoder for {codec}")
    source = clips.write_clip(
        tmp_path / "in.mp4", pts=3, size=(72, 66), aspect=aspect, num_sounds=1, tags=(1, 1, 1, 1)
    )
    result = tmp_path / "out.mkv"
    identity(source, result, codec=codec, preset=QUICK.get(codec))
    with av.open(str(result)) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == aspect
        assert "title" not in stream.metadata
        assert sum(1 for _ in container.decode(video=0)) == 3
    assert probe(result).color.primaries == 1


@pytest.mark.parametrize("codec", [c for c in ON_CPU if CODECS[c].alpha_formats])
def test_transparency_through_every_codec_that_has_it(clips, identity, tmp_path, codec):
    source = clips.write_clip(
        tmp_path / "in.mkv", codec="ffv1", pixel_format="bgra", pts=3,
        frames=[av.VideoFrame.from_ndarray(_veil(index), "bgra") for index in range(3)],
    )  # fmt: skip
    result = tmp_path / ("out" + (".mov" if codec == "prores" else ".mkv"))
    report = identity(source, result, codec=codec)
    assert report.dropped == ()
    (_, before), (info, after) = frames_of(source), frames_of(result)
    assert info.has_alpha
    for a, b in zip(before, after, strict=True):
        top = np.iinfo(b.alpha.dtype).max
        assert np.abs(a.alpha / 255 - b.alpha / top).max() < 0.01
        seen = a.alpha > 0
        error = np.abs(a.pixels / 255 - b.pixels / top)[seen]
        assert error.mean() < 0.02


def _veil(index):
    y, x = np.mgrid[0:48, 0:64]
    alpha = np.clip((x - 10 - index) * 8, 0, 255)
    return np.stack([x * 3, y * 4, x + y, alpha], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("sound", ["pcm_s16le", "flac", "alac", "ac3", "libopus", "libmp3lame"])
def test_odd_sounds_go_into_every_container(clips, identity, tmp_path, sound, suffix):
    if sound not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder for {sound}")
    source = tmp_path / "in.mkv"  # which does not say which speakers PCM is for
    with av.open(str(source), "w") as container:
        film = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(sound, rate=48000)
        track.layout = "stereo"
        kind, size = track.codec_context.format.name, track.codec_context.frame_size or 1024
        fit = av.AudioResampler(format=kind, layout="stereo", rate=48000, frame_size=size)
        for index in range(8):
            pixels = clips.picture(index, 64, 48)
            container.mux(film.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            tone = (9000 * np.sin(np.arange(3840) / 9 + index)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, "s16", "stereo")
            frame.sample_rate, frame.pts = 48000, 1920 * index
            frame.time_base = Fraction(1, 48000)
            for piece in fit.resample(frame):
                container.mux(track.encode(piece))
        container.mux(film.encode(None))
        container.mux(track.encode(None))
    result = tmp_path / f"out.{suffix}"
    report = identity(source, result, codec="h264", preset="ultrafast")
    before, after = sound_times(source), sound_times(result)
    if report.dropped:
        assert report.dropped[0].endswith("write to .mkv or .mp4 to keep it")
        assert suffix == "mov"
        assert after == []
        return
    assert b"".join(data for _, data in after[0]) == b"".join(data for _, data in before[0])


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_two_sounds_a_subtitle_and_chapters(clips, identity, tmp_path, suffix):
    lines = clips.subtitles(tmp_path)

    def add(container):
        if HAS_CHAPTERS:
            chapter = {"time_base": Fraction(1, 1000), "start": 0, "end": 300}
            container.set_chapters([{**chapter, "id": 1, "metadata": {"title": "one"}}])
        return lines.add(container)

    source = clips.write_clip(
        tmp_path / "in.mkv", pts=12, num_sounds=2, before_header=add, after=lines.write,
        metadata={"title": "Film"},
    )  # fmt: skip
    report = identity(source, tmp_path / f"out.{suffix}", codec="h264", preset="ultrafast")
    before, after = other_streams(source), other_streams(tmp_path / f"out.{suffix}")
    said = " ".join((*report.kept, *report.dropped))
    assert all(f"#{index} " in said for index in (1, 2, 3))
    assert [s[:3] for s in after if s[0] == "audio"] == [s[:3] for s in before if s[0] == "audio"]
    assert len(after) == 3 or "subtitle #3" in " ".join(report.dropped)
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        assert container.metadata["title"] == "Film"
        if HAS_CHAPTERS:
            assert container.chapters()[0]["metadata"]["title"] == "one"
