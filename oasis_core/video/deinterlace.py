"""Fields to frames, by FFmpeg's bwdif: as many frames out as in, at the same times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter

from .errors import AV_ERRORS, VideoError, reason


def deinterlaced(frames: Iterator[av.VideoFrame], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """Yield deinterlaced frames; half of the lines of each are made from its neighbours.

    Frames that are flagged as progressive among interlaced ones stay as they are; if the first one
    is not flagged as interlaced, flags are not to be relied on and every frame is treated.

    Args:
        frames: decoded, with PTS in `time_base`.
        time_base: seconds per tick.

    Raises:
        VideoError: this FFmpeg build cannot.
    """
    graph: av.filter.Graph | None = None
    kind: tuple[int, int, str] | None = None
    for frame in frames:
        last, kind = kind, (frame.width, frame.height, frame.format.name)
        if graph is not None and kind != last:  # the filter would read beyond the smaller one
            graph.push(None)
            yield from _pulled(graph, time_base)
            graph = None
        if graph is None:
            graph = _graph(frame, time_base)
        frame.time_base = time_base
        graph.push(frame)
        yield from _pulled(graph, time_base)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, time_base)


def _graph(frame: av.VideoFrame, time_base: Fraction) -> av.filter.Graph:
    which = "interlaced" if frame.interlaced_frame else "all"
    graph = av.filter.Graph()
    try:
        nodes = (
            graph.add(
                "buffer",
                f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
                f"time_base={time_base}:pixel_aspect=1/1:colorspace={int(frame.colorspace)}:"
                f"range={int(frame.color_range)}",
            ),
            graph.add("bwdif", f"mode=send_frame:parity=auto:deint={which}"),
            graph.add("buffersink"),
        )
        graph.link_nodes(*nodes)
        graph.configure()
    except AV_ERRORS as error:
        raise VideoError(
            f"this FFmpeg build cannot deinterlace {frame.format.name} ({reason(error)}); leave "
            "--deinterlace out and deinterlace the file first"
        ) from error
    return graph


def _pulled(graph: av.filter.Graph, time_base: Fraction) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        # The filter counts in halves of the source's ticks.
        frame.pts = round(frame.pts * frame.time_base / time_base)
        frame.time_base = time_base
        yield frame
