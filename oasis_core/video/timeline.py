"""The exact times of all encoded pictures, over the borders of the segments.

Each segment's encoder invented decoding times of its own, which collide at the borders. All
presentation times together, sorted, are a strictly increasing clock that runs through every
segment; delayed by the largest reordering found, it is never later than the picture it decodes. So
DTS come from the PTS alone.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, repeat
from math import gcd, lcm
from pathlib import Path

import av

from .errors import AV_ERRORS, VideoError, reason
from .writer import SEGMENT_TAG, SEGMENT_TICK

MOST_TICKS = (1 << 31) - 2
"""Of one picture in an MP4 or MOV."""


_MAX_TIMESCALE = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When every picture of a film is shown and decoded, in ticks of `time_base`."""

    time_base: Fraction
    """Seconds per tick."""
    pts: array
    """All presentation times, increasing (8 bytes each: a day of video is 20 MB)."""
    delay: int
    """By how many pictures decoding order runs ahead of presentation order, at most."""
    lead: int
    """By how many pictures a picture is shown later than its place in decoding order, at most."""
    end_pts: int
    """When the last picture disappears."""

    def dts(self, index: int) -> int:
        """Return the decoding time of the index-th coded picture."""
        if index >= self.delay:
            return self.pts[index - self.delay]
        step = self.pts[1] - self.pts[0] if len(self.pts) > 1 else 1
        return self.pts[0] - (self.delay - index) * step


def mov_timescale(timeline: Timeline) -> tuple[int, bool]:
    """Return ticks per second for an MP4 or MOV, and whether all times are exact in them.

    FFmpeg writes no picture that stays longer than 2^31 ticks, 3.6 minutes at 10 MHz: then a
    coarser clock is taken, one in which all times are whole numbers if there is one.

    Args:
        timeline: of the film.
    """
    pts, tick = timeline.pts, timeline.time_base
    reach = max(1, timeline.delay + timeline.lead)  # from decoding a picture to showing it
    ends = islice(chain(pts, repeat(timeline.end_pts)), reach, len(pts) + reach)
    longest = max(end - start for start, end in zip(pts, ends, strict=True)) * tick.numerator
    scale = tick.denominator
    if longest <= MOST_TICKS:
        return scale, True
    common = gcd(scale, timeline.end_pts * tick.numerator, *(t * tick.numerator for t in pts))
    if longest // common <= MOST_TICKS:
        return scale // common, True
    return max(1, scale * MOST_TICKS // longest), False


def movie_timescale(
    scale: int, opened: tuple[av.container.InputContainer, av.VideoStream] | None
) -> int:
    """Return a clock in which picture and sound start at whole numbers, if there is one.

    Args:
        scale: ticks per second of the picture.
        opened: the source and its film; None for none.
    """
    for stream in opened[0].streams.audio if opened else ():
        finer = lcm(scale, stream.codec_context.sample_rate or 1) if stream.codec_context else scale
        scale = finer if finer <= _MAX_TIMESCALE else scale
    while scale < 1000:
        scale *= 10
    return scale


def read_timeline(segments: Sequence[Path]) -> Timeline:
    """Return the times of the pictures in all segments, checked.

    Args:
        segments: files of `SegmentWriter`, in order.

    Raises:
        VideoError: a file is no segment, or it does not follow its predecessor.
    """
    if not segments:
        raise ValueError("segments must name at least one file, got none")
    times, delay, lead, end_pts = array("q"), 0, 0, 0
    time_base: Fraction | None = None
    headers: set[bytes] = set()
    for path in segments:
        with _open(path) as container:
            tick, first_pts = _clock(path, container)
            stream = container.streams.video[0]
            headers.add(bytes(stream.codec_context.extradata or b""))
            coded, end = [], first_pts
            for packet in _packets(path, container):
                coded.append(packet.pts + first_pts)
                end = max(end, packet.pts + first_pts + (packet.duration or 1))
        shown = sorted(coded)
        rank = {pts: index for index, pts in enumerate(shown)}
        delay = max(delay, max((i - rank[pts] for i, pts in enumerate(coded)), default=0))
        lead = max(lead, max((rank[pts] - i for i, pts in enumerate(coded)), default=0))
        if time_base not in (None, tick) or len(headers) > 1:
            raise VideoError(
                f"segment {str(path)!r} was encoded with other settings than {str(segments[0])!r}; "
                "delete the segments and start over"
            )
        if not shown or (times and shown[0] <= times[-1]) or len(rank) != len(shown):
            raise VideoError(
                f"segment {str(path)!r} does not continue the one before it; encode it again"
            )
        time_base, end_pts = tick, end
        times.extend(shown)
    return Timeline(time_base=time_base, pts=times, delay=delay, lead=lead, end_pts=end_pts)


def coded_packets(
    segments: Sequence[Path], timeline: Timeline, shift: int
) -> Iterator[av.packet.Packet]:
    """Yield the packets of all segments in coding order, with final times in `timeline.time_base`.

    Args:
        segments: as for `read_timeline`.
        timeline: its result.
        shift: ticks to add to every time.
    """
    index = 0
    duration_of = _Durations(timeline)
    for path in segments:
        with _open(path) as container:
            _, first_pts = _clock(path, container)
            for packet in _packets(path, container):
                pts = packet.pts + first_pts
                packet.pts = pts + shift
                packet.dts = timeline.dts(index) + shift
                packet.duration = duration_of[pts]
                packet.time_base = timeline.time_base
                index += 1
                yield packet


class _Durations:
    """Looks up how long a picture stays; the sorted list is searched, not copied into a dict."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def __getitem__(self, pts: int) -> int:
        after = bisect_right(self._timeline.pts, pts)
        is_last = after == len(self._timeline.pts)
        return (self._timeline.end_pts if is_last else self._timeline.pts[after]) - pts


def _open(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path.absolute()))
    except AV_ERRORS as error:
        raise VideoError(
            f"segment {str(path)!r} cannot be read ({reason(error)}); encode it again"
        ) from error


def _clock(path: Path, container: av.container.InputContainer) -> tuple[Fraction, int]:
    try:
        tag = json.loads(container.metadata[SEGMENT_TAG])
        return Fraction(tag["time_base"]), int(tag["first_pts"])
    except (KeyError, ValueError) as error:
        raise VideoError(
            f"{str(path)!r} is not a segment of this program; encode it again"
        ) from error


def _packets(path: Path, container: av.container.InputContainer) -> Iterator[av.packet.Packet]:
    stream = container.streams.video[0]
    if Fraction(stream.time_base) != SEGMENT_TICK:
        raise VideoError(f"{str(path)!r} is not a segment of this program; encode it again")
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except AV_ERRORS as error:
        raise VideoError(
            f"segment {str(path)!r} is damaged ({reason(error)}); encode it again"
        ) from error
