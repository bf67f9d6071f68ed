"""Writing animated WebP and GIF, from frames that stream by.

Animated WebP is put together here of single pictures, each complete: FFmpeg's own writer holds the
whole film. GIF is FFmpeg's, with one palette for the film.

Source: the WebP container specification (VP8X, ANIM, ANMF); GIF89a for the clock.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .errors import AV_ERRORS, VideoError, reason, write_error
from .image_writer import ImageEncoder, ImageSpec
from .reader import VideoFrame

FOREVER = 0
"""Number of times an animation plays: for ever."""
_ALPHA, _ANIMATION = 0x10, 0x02
_NO_BLEND = 0x02
_MOST_BYTES = (1 << 32) - 2
_MOST_MS = (1 << 24) - 1
_GIF_TICK = Fraction(1, 100)
_GIF_LEAST_TICKS = 2
"""Browsers show what is to last less for a tenth of a second instead."""
_GIF_MOST_TICKS = (1 << 16) - 1
_OPAQUE_FROM = 128

Frames = Callable[[], Iterator[VideoFrame]]
"""Reads the film once more from its beginning."""


def loops_of(path: Path) -> int:
    """How often an animation plays, 0 for ever; films and what does not say play for ever.

    Args:
        path: of the source; anything that is no GIF or animated WebP counts as a film.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return FOREVER
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and (place := head.find(b"ANIM")) > 0:
        return int.from_bytes(head[place + 12 : place + 14], "little")
    if head[:3] == b"GIF":
        place = head.find(b"NETSCAPE2.0\x03\x01")
        if place < 0:
            return 1
        repeats = int.from_bytes(head[place + 13 : place + 15], "little")
        return FOREVER if repeats == 0 else repeats + 1
    return FOREVER


def write_webp(
    path: Path, frames: Frames, spec: ImageSpec, *, time_base: Fraction, loops: int
) -> None:
    """Write an animated WebP.

    Args:
        path: the file; not there before.
        frames: of the film, 8 bits.
        spec: of each picture.
        time_base: seconds per tick of their times.
        loops: how often it plays; 0 for ever.

    Raises:
        VideoError: it cannot be written, or would be larger than the format's 4 GiB.
    """
    encoder = ImageEncoder(spec)
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (spec.width, spec.height))
    flags = _ANIMATION | (_ALPHA if spec.has_alpha else 0)
    try:
        with path.open("wb") as file:
            file.write(b"RIFF\0\0\0\0WEBP")
            file.write(_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + sides))
            file.write(_chunk(b"ANIM", bytes(4) + struct.pack("<H", loops)))
            for frame, start, stop in _timed(frames(), time_base, Fraction(1, 1000)):
                picture = _picture_chunks(encoder.encode(frame.pixels, frame.alpha))
                length = min(_MOST_MS, max(1, stop - start)).to_bytes(3, "little")
                head = bytes(6) + sides + length + bytes((_NO_BLEND,))
                chunk = _chunk(b"ANMF", head + picture)
                if file.tell() + len(chunk) > _MOST_BYTES:
                    raise VideoError(
                        f"an animated WebP must be smaller than 4 GiB, and {str(path)!r} would be "
                        "larger; write a video, or a shorter or smaller piece"
                    )
                file.write(chunk)
            size = file.tell() - 8
            file.seek(4)
            file.write(struct.pack("<I", size))
    except OSError as error:
        raise write_error(path, error) from error


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _picture_chunks(data: bytes) -> bytes:
    """The chunks of a single WebP that hold its picture: alpha and colours."""
    place, found = 12, b""
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        end = place + 8 + length + length % 2
        if name in (b"ALPH", b"VP8 ", b"VP8L"):
            found += data[place:end]
        place = end
    return found


def _timed(
    frames: Iterator[VideoFrame], time_base: Fraction, tick: Fraction
) -> Iterator[tuple[VideoFrame, int, int]]:
    """Each frame with its first and its end time in ticks from the first frame, not drifting."""
    first = None
    for frame in frames:
        first = frame.pts if first is None else first
        start = round((frame.pts - first) * time_base / tick)
        yield frame, start, round((frame.pts - first + frame.duration) * time_base / tick)


def write_gif(path: Path, frames: Frames, *, time_base: Fraction, loops: int) -> None:
    """Write a GIF with the palette that suits all of the film best.

    Args:
        path: the file; not there before.
        frames: of the film, 8 bits; read twice.
        time_base: seconds per tick of their times.
        loops: how often it plays; 0 for ever.

    Raises:
        VideoError: it cannot be written.
    """
    try:
        palette, last_ticks = _palette_of(frames(), time_base)
        repeats = {FOREVER: 0, 1: -1}.get(loops, loops - 1)
        # FFmpeg takes how long the last picture stays from this alone.
        options = {"loop": str(repeats), "final_delay": str(last_ticks), "fflags": "+bitexact"}
        with ExitStack() as stack:
            output = stack.enter_context(
                av.open(str(path.absolute()), "w", format="gif", options=options)
            )
            _write_pictures(output, frames(), palette, time_base)
    except AV_ERRORS as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(
            f"the GIF {str(path)!r} cannot be written ({reason(error)}); write .webp or a video"
        ) from error


def _rgba(frame: VideoFrame) -> av.VideoFrame:
    alpha = frame.alpha
    if alpha is None:
        alpha = np.full(frame.pixels.shape[:2], 255, np.uint8)
    pixels = np.dstack((frame.pixels, alpha))
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgba")


def _buffer(graph: av.filter.Graph, frame: av.VideoFrame) -> av.filter.context.FilterContext:
    return graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/100:"
        "pixel_aspect=1/1",
    )


def _palette_of(frames: Iterator[VideoFrame], time_base: Fraction) -> tuple[av.VideoFrame, int]:
    """The palette of a film, and how many hundredths of a second its last picture stays."""
    graph, length = None, 0
    for number, (frame, start, stop) in enumerate(_timed(frames, time_base, _GIF_TICK)):
        length = stop - start
        picture = _rgba(frame)
        picture.pts, picture.time_base = number, _GIF_TICK
        if graph is None:
            graph = av.filter.Graph()
            nodes = (_buffer(graph, picture), graph.add("palettegen"), graph.add("buffersink"))
            graph.link_nodes(*nodes).configure()
        graph.push(picture)
    graph.push(None)
    return graph.pull(), min(_GIF_MOST_TICKS, max(_GIF_LEAST_TICKS, length))


def _write_pictures(
    output: av.container.OutputContainer,
    frames: Iterator[VideoFrame],
    palette: av.VideoFrame,
    time_base: Fraction,
) -> None:
    graph, source, stream, last = None, None, None, -1
    for frame, start, _ in _timed(frames, time_base, _GIF_TICK):
        picture = _rgba(frame)
        # A clock of hundredths has no room for more than 50 pictures a second.
        last = max(start, last + _GIF_LEAST_TICKS) if last >= 0 else 0
        picture.pts, picture.time_base = last, _GIF_TICK
        if graph is None:
            graph, source = _palette_graph(picture, palette)
            stream = output.add_stream("gif", rate=100)
            stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "pal8"
            stream.time_base = stream.codec_context.time_base = _GIF_TICK
        source.push(picture)
        _drain(graph, stream, output)
    source.push(None)
    _drain(graph, stream, output)
    output.mux(stream.encode(None))


def _palette_graph(
    picture: av.VideoFrame, palette: av.VideoFrame
) -> tuple[av.filter.Graph, av.filter.context.FilterContext]:
    graph = av.filter.Graph()
    source, colors = _buffer(graph, picture), _buffer(graph, palette)
    use = graph.add("paletteuse", f"dither=sierra2_4a:alpha_threshold={_OPAQUE_FROM}")
    sink = graph.add("buffersink")
    source.link_to(use, 0, 0)
    colors.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    palette.pts, palette.time_base = 0, _GIF_TICK
    colors.push(palette)
    colors.push(None)
    return graph, source


def _drain(
    graph: av.filter.Graph, stream: av.VideoStream, output: av.container.OutputContainer
) -> None:
    while True:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        picture.time_base = _GIF_TICK
        output.mux(stream.encode(picture))
