"""One track that FFmpeg refuses costs that track, and nothing else."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from oasis_core.video import VideoReader, passthrough
from oasis_core.video.errors import is_refusal, write_error

SOUNDS = {
    "a.mkv": ("aac", "flac", "libopus", "pcm_s24le", "mp2", "ac3", "libvorbis"),
    "a.nut": ("aac", "pcm_u8", "mp3", "adpcm_ima_wav"),
    "a.ts": ("aac", "mp2", "ac3"),
    "a.avi": ("mp3", "pcm_s16le", "ac3"),
}


SOUND_NAMES = (
    "opus", "vorbis", "dts", "truehd", "mlp", "eac3", "mp1", "mp2", "alac", "flac", "tta",
    "wavpack", "cook", "ra_144", "wmav2", "wmapro", "atrac3", "qdm2", "amr_nb", "pcm_s16be",
    "pcm_f32le", "adpcm_ms", "ac3", "mp3",
)  # fmt: skip
SUBTITLE_NAMES = ("ass", "subrip", "webvtt", "dvb_subtitle", "dvb_teletext", "mov_text", "eia_608")


def film_with(make_clip, name, codecs, *, has_data=False):
    """A film with AAC or MP3 first and further tracks of sound, and of data."""

    def add(container):
        tracks = []
        for codec in codecs:
            track = container.add_stream(codec, rate=48000)
            track.layout = "stereo"
            tracks.append(track)
        return tracks

    def write(container, tracks):
        for track in tracks:
            size = track.codec_context.frame_size or 1024
            for start in range(0, 24_000, size):
                format_name = track.codec_context.format.name
                frame = av.AudioFrame(format=format_name, layout="stereo", samples=size)
                for plane in frame.planes:
                    plane.update(bytes(plane.buffer_size))
                frame.sample_rate, frame.pts = 48000, start
                container.mux(track.encode(frame))
            container.mux(track.encode(None))

    codec = "mpeg4" if name.endswith((".nut", ".avi")) else "libx264"
    return make_clip(name, pts=12, codec=codec, before_header=add, after=write)


def streams_of(path):
    with av.open(str(path)) as container:
        return [
            (s.type, s.codec_context.name if s.codec_context else None) for s in container.streams
        ]


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("out", ["out.mp4", "out.mov", "out.mkv"])
def test_every_track_is_there_or_named(make_clip, clips, tmp_path, name, out):
    codecs = [c for c in SOUNDS[name] if c in av.codecs_available]
    path = film_with(make_clip, name, codecs)
    with VideoReader(path) as reader:
        frames = list(reader)
    report = clips.upscale_identity(frames, reader.info, tmp_path / out)
    written = streams_of(tmp_path / out)
    assert written[0] == ("video", "h264")
    lines = [line for line in report.kept if line.startswith("audio")]
    assert len(lines) == len(written) - 1
    for index in range(1, len(codecs) + 1):
        said = [x for x in (*report.kept, *report.dropped) if x.startswith(f"audio #{index} ")]
        assert len(said) == 1
    # What is called kept can be read.
    for stream in range(1, len(written)):
        assert clips.packets_of(tmp_path / out, stream)
    assert any(codec in ("aac", "mp3", "mp3float") for _, codec in written[1:])


def test_a_track_that_fails_at_the_end_is_left_out_alone(make_clip, clips, tmp_path, monkeypatch):
    # FFmpeg takes FLAC for a MOV until its trailer, which the list below knows beforehand.
    monkeypatch.setattr(passthrough, "_NOT_IN_MOV", ())
    path = film_with(make_clip, "a.mkv", ("aac", "flac", "pcm_s16le"))
    with VideoReader(path) as reader:
        frames = list(reader)
    report = clips.upscale_identity(frames, reader.info, tmp_path / "out.mov")
    assert ("audio", "aac") in streams_of(tmp_path / "out.mov")
    assert ("audio", "pcm_s16le") in streams_of(tmp_path / "out.mov")
    for index in (1, 2):
        assert clips.packets_of(tmp_path / "out.mov", index)
    assert len(clips.packets_of(tmp_path / "out.mov", 0)) == 12
    (line,) = [line for line in report.dropped if line.startswith("audio #2 (flac)")]
    assert "cannot" in line


def with_odd_track(base, path, codec):
    """A film with AAC, and a third track that says it is something and holds nonsense."""
    tick = Fraction(1, 1000)
    is_sound = codec in SOUND_NAMES
    with av.open(str(base)) as source, av.open(str(path), "w") as output:
        made = {s.index: output.add_stream_from_template(s, opaque=True) for s in source.streams}
        odd = output.add_mux_stream(codec, **({"rate": 48000} if is_sound else {}))
        odd.time_base = tick
        packets = [p for p in source.demux() if p.size]
        for packet in packets:
            packet.stream = made[packet.stream_index]
        for index in range(10):
            packet = av.Packet(b"\x00\x10\x20\x30" * 40 if is_sound else b"Guten Tag")
            packet.pts = packet.dts = 40 * index
            packet.duration, packet.time_base, packet.stream = 40, tick, odd
            packet.is_keyframe = True
            packets.append(packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            output.mux(packet)
    return path


@pytest.mark.skipif(not hasattr(av.container.OutputContainer, "add_mux_stream"), reason="PyAV")
@pytest.mark.parametrize("codec", [*SOUND_NAMES, *SUBTITLE_NAMES])
def test_an_odd_track_costs_itself_alone(make_clip, clips, tmp_path, codec):
    base = make_clip("base.mp4", pts=6, num_sounds=1, options={"bf": "0"})
    try:
        path = with_odd_track(base, tmp_path / "in.mkv", codec)
    except (av.error.FFmpegError, ValueError):
        path = with_odd_track(base, tmp_path / "in.ts", codec)
    with VideoReader(path) as reader:
        frames = list(reader)
    for name in ("out.mp4", "out.mov", "out.mkv"):
        report = clips.upscale_identity(frames, reader.info, tmp_path / name)
        written = streams_of(tmp_path / name)
        assert len(clips.packets_of(tmp_path / name, 0)) == 6
        assert clips.packets_of(tmp_path / name, written.index(("audio", "aac")))
        said = [line for line in (*report.kept, *report.dropped) if " #2" in line]
        assert len(said) == 1, (name, said)


@pytest.mark.parametrize("out", ["out.mov", "out.mp4", "out.mkv"])
@pytest.mark.parametrize("name", ["in.mov", "in.mp4"])
def test_timecode_and_sound_are_kept(make_clip, clips, tmp_path, name, out):
    plain = make_clip("plain.mov", pts=25, num_sounds=1)
    with av.open(str(plain)) as source, av.open(str(tmp_path / name), "w") as copy:
        made = {s.index: copy.add_stream_from_template(s, opaque=True) for s in source.streams}
        made[0].metadata["timecode"] = "01:02:03:04"
        for packet in source.demux():
            if packet.size:
                packet.stream = made[packet.stream_index]
                copy.mux(packet)
    assert ("data", None) in streams_of(tmp_path / name)
    with VideoReader(tmp_path / name) as reader:
        frames = list(reader)
    report = clips.upscale_identity(frames, reader.info, tmp_path / out)
    assert report.dropped == ()
    assert any("timecode 01:02:03:04" in line for line in report.kept)
    assert ("audio", "aac") in streams_of(tmp_path / out)
    with av.open(str(tmp_path / out)) as container:
        tags = {k.lower(): v for k, v in container.streams.video[0].metadata.items()}
    assert tags["timecode"] == "01:02:03:04"


def test_only_a_disk_is_blamed_on_the_disk():
    own = av.error.PatchWelcomeError(1163346256, "Not yet implemented", "x.mp4")
    assert is_refusal(own)
    assert "disk" not in str(write_error("x.mp4", own))
    full = OSError(28, "No space left on device")
    assert not is_refusal(full)
    assert "disk" in str(write_error("x.mp4", full))
