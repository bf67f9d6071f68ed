"""Clips made on the spot: known pictures, known times, known sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from oasis_core.video import EncodeSpec, SegmentWriter, VideoFrame, VideoInfo, mux

SAMPLE_RATE = 44100


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Return a smooth colour picture `h w 3` uint8 that is different for every index."""
    y, x = np.mgrid[0:height, 0:width]
    waves = (x / 9 + index / 3, y / 7 - index / 5, (x + y) / 11 + index / 4)
    return np.stack([127.5 + 110 * np.sin(w) for w in waves], -1).astype(np.uint8)


def _add_sound(
    container: av.container.OutputContainer, count: int, codec: str
) -> list[av.stream.Stream]:
    tracks = []
    for language in ("eng", "fra", "deu")[:count]:
        track = container.add_stream(codec, rate=SAMPLE_RATE)
        track.layout = "stereo"
        track.metadata["language"] = language
        tracks.append(track)
    return tracks


def _write_sound(
    container: av.container.OutputContainer,
    tracks: list[av.stream.Stream],
    duration_s: float,
    start_s: float = 0.0,
) -> None:
    for pitch, track in enumerate(tracks, start=1):
        total, sample_format = int(duration_s * SAMPLE_RATE), track.codec_context.format.name
        for start in range(0, total, 1024):
            t = np.arange(start, min(start + 1024, total))
            wave = (0.3 * np.sin(t * 0.02 * pitch)).astype(np.float32)
            both = np.stack([wave, wave])
            if sample_format == "s16":
                both = (both.T.reshape(1, -1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(both, sample_format, "stereo")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start + round(start_s * SAMPLE_RATE)
            frame.time_base = Fraction(1, SAMPLE_RATE)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


def write_clip(
    path: Path,
    *,
    pts: Sequence[int] | int = 10,
    rate: Fraction = Fraction(25),
    time_base: Fraction | None = None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: tuple[int, int, int, int] = (2, 2, 2, 0),
    aspect: Fraction | None = None,
    num_sounds: int = 0,
    sound_s: float | None = None,
    sound_start_s: float = 0.0,
    sound_codec: str = "aac",
    frames: Sequence[av.VideoFrame] = (),
    metadata: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
    before_header: Callable[[av.container.OutputContainer], object] | None = None,
    after: Callable[[av.container.OutputContainer, object], None] | None = None,
) -> Path:
    """Encode a clip; `pts` is the number of frames, or their times in `time_base`."""
    width, height = size
    time_base = time_base or 1 / rate
    times = list(range(pts)) if isinstance(pts, int) else list(pts)
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        default = {"preset": "veryfast", "crf": "12", "threads": "1"} if "264" in codec else {}
        film = container.add_stream(codec, rate=rate, options=default | (options or {}))
        film.width, film.height, film.pix_fmt = width, height, pixel_format
        film.time_base = time_base
        context = film.codec_context
        context.time_base = time_base
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        if aspect:
            context.sample_aspect_ratio = aspect
        tracks = _add_sound(container, num_sounds, sound_codec)
        extra = before_header(container) if before_header else None
        for index, time in enumerate(times):
            if frames:
                frame = frames[index]
            else:
                frame = av.VideoFrame.from_ndarray(picture(index, width, height), "rgb24")
                frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = time, time_base
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
        length_s = float((times[-1] - times[0] + 1) * time_base)
        sound_s = length_s if sound_s is None else sound_s
        _write_sound(container, tracks, sound_s, sound_start_s)
        if after:
            after(container, extra)
    return path


def write_sound(path: Path, duration_s: float = 0.3) -> Path:
    """Encode a file with sound and nothing else."""
    with av.open(str(path), "w") as container:
        tracks = _add_sound(container, 1, "aac")
        _write_sound(container, tracks, duration_s)
    return path


class Copied:
    """A stream taken over from another file: `add` before the header, `write` after the film."""

    def __init__(self, path: Path, disposition: int = 0, language: str | None = None) -> None:
        self._container = av.open(str(path))
        self._disposition = disposition
        self._language = language

    def add(self, container: av.container.OutputContainer) -> av.stream.Stream:
        stream = container.add_stream_from_template(self._container.streams[0], opaque=True)
        stream.disposition = self._disposition
        if self._language:
            stream.metadata["language"] = self._language
        return stream

    def write(self, container: av.container.OutputContainer, stream: av.stream.Stream) -> None:
        for packet in self._container.demux(self._container.streams[0]):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        self._container.close()


def cover(folder: Path) -> Copied:
    """Return a PNG cover picture to put into a clip."""
    path = write_clip(folder / "cover.mov", codec="png", pixel_format="rgb24", size=(16, 16), pts=1)
    return Copied(path, disposition=0x400)


def subtitles(folder: Path) -> Copied:
    """Return two German subtitle lines to put into a clip."""
    path = folder / "lines.srt"
    path.write_text(
        "1\n00:00:00,040 --> 00:00:00,200\nGuten Tag\n\n2\n00:00:00,240 --> 00:00:00,320\nEnde\n"
    )
    return Copied(path, language="deu")


def turn(path: Path, matrix: Sequence[int]) -> None:
    """Write a display matrix (a b c d, of -1, 0, 1) into an MP4's video track."""
    data = bytearray(path.read_bytes())
    one, zeros = b"\x00\x01\x00\x00", b"\x00" * 12
    unit = one + zeros + one + zeros + b"\x40\x00\x00\x00"
    start = data.index(unit, data.index(b"tkhd"))
    for slot, value in zip((0, 1, 3, 4), matrix, strict=True):
        at = start + 4 * slot
        data[at : at + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


def upscale_identity(
    frames: Sequence[VideoFrame],
    info: VideoInfo,
    destination: Path,
    *,
    codec: str = "h264",
    segment: int = 4,
    source: Path | None = None,
    **options: object,
):
    """Write frames as segments and join them; return the mux report."""
    height, width, _ = frames[0].pixels.shape
    options.setdefault("preset", None if codec == "ffv1" else "ultrafast")
    spec = EncodeSpec.from_source(info, codec=codec, width=width, height=height, **options)
    paths = []
    for start in range(0, len(frames), segment):
        paths.append(destination.with_name(f"{destination.name}-{start}.mkv"))
        with SegmentWriter(paths[-1], spec) as writer:
            for frame in frames[start : start + segment]:
                writer.write(frame.pixels, frame.pts, frame.duration)
    return mux(paths, source or info.path, destination, spec)


def packets_of(path: Path, index: int) -> list[av.packet.Packet]:
    """Return all packets of one stream."""
    with av.open(str(path)) as container:
        return [p for p in container.demux(container.streams[index]) if p.size]


@pytest.fixture(scope="session")
def clips():
    """Return the functions above; under importlib a test cannot import its conftest."""
    return SimpleNamespace(
        picture=picture,
        write_clip=write_clip,
        turn=turn,
        upscale_identity=upscale_identity,
        packets_of=packets_of,
        write_sound=write_sound,
        cover=cover,
        subtitles=subtitles,
    )


@pytest.fixture
def make_clip(tmp_path):
    """Return a function that writes a clip into the test's own folder."""

    def make(name="clip.mp4", **options):
        return write_clip(tmp_path / name, **options)

    return make
