"""Spans: which frames a segment needs, told so exactly that anyone can read them again."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..upscale.assemble import SegmentAssembler, SegmentFrames
from ..upscale.job import Job
from ..upscale.plan import Plan
from ..upscale.run import visible
from ..video import TimeWindow, VideoError, VideoFrame, VideoInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The frames of one segment, without their pixels."""

    index: int
    """Position among the segments of the clip."""
    shot: int
    """Number of its shot."""
    first_frame: int
    """Number of the first kept frame in the clip."""
    keep: tuple[int, int]
    """First kept frame and the one behind the last, among those read."""
    read_start: int
    """How many frames of the job come before those to read."""
    start_s: float
    """When the first frame to read is shown, in seconds after the film's first."""
    duration_s: float
    """Seconds from there to the end of the last frame to read."""
    marks: tuple[tuple[int, int, int], ...]
    """Of each frame to read: PTS, duration and a checksum of its pixels."""
    opening: Span | None = None
    """The first frame of the shot, for models that build up a state; None: the first to read."""

    @property
    def num_frames(self) -> int:
        """Frames that the segment produces."""
        return self.keep[1] - self.keep[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanEnd:
    """What is known once a source was read to its end."""

    num_corrupt_frames: int
    """Frames that the decoder flagged as damaged."""


def scan(job: Job, plan: Plan) -> Iterator[Span | ScanEnd]:
    """Read a source once and yield its segments as spans, then the end.

    Shots are found while decoding, so where segments begin is known only here.

    Raises:
        VideoError: The source cannot be read.
    """
    assembler = SegmentAssembler.of(plan, has_shots=job.options.shots)
    numbers: dict[int, int] = {}
    shot, opening = -1, None

    def numbered(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for number, frame in enumerate(frames):
            numbers[frame.pts] = number
            yield visible(frame)

    with job.open() as reader:
        info = reader.info
        for segment in assembler.segments(numbered(iter(reader))):
            first = segment.frames[0]
            if segment.shot != shot and plan.lead_frames:
                shot, frame = segment.shot, segment.opening
                alone = replace(segment, frames=[frame], keep=slice(0, 1))
                opening = _span(alone, info, numbers[frame.pts])
            yield _span(segment, info, numbers[first.pts], opening)
            for pts in [pts for pts in numbers if pts < first.pts]:
                del numbers[pts]
        yield ScanEnd(num_corrupt_frames=reader.num_corrupt_frames)


def _span(
    segment: SegmentFrames, info: VideoInfo, read_start: int, opening: Span | None = None
) -> Span:
    first, last = segment.frames[0], segment.frames[-1]
    return Span(
        index=segment.index,
        shot=segment.shot,
        first_frame=segment.first_frame,
        keep=(segment.keep.start, segment.keep.stop),
        read_start=read_start,
        start_s=float((first.pts - info.start_pts) * info.time_base),
        duration_s=float((last.pts + max(1, last.duration) - first.pts) * info.time_base),
        marks=tuple(_mark(frame) for frame in segment.frames),
        opening=None if opening is None or opening.read_start == read_start else opening,
    )


def read_span(job: Job, span: Span) -> SegmentFrames:
    """Read the frames of a span: by seeking, or from the beginning where that gives others.

    Seeking can go wrong without a word (open groups of pictures, damaged files, filters with a
    memory), and then the result would depend on who did the segment: so every frame is compared
    with what the scan saw.

    Raises:
        VideoError: The source cannot be read, or it is not what the scan saw.
    """
    frames = _by_seeking(job, span)
    if tuple(map(_mark, frames)) != span.marks:
        logger.info("%s: segment %d is read from the beginning", job.source.name, span.index)
        frames = _from_beginning(job, span)
    if tuple(map(_mark, frames)) != span.marks:
        raise VideoError(
            f"{str(job.source)!r} must read the same on every worker, but frames from number "
            f"{span.read_start} differ from those seen before; it was changed meanwhile, or this "
            "machine has another FFmpeg or another file of that name"
        )
    opening = frames[0] if span.opening is None else read_span(job, span.opening).frames[0]
    return SegmentFrames(
        index=span.index,
        shot=span.shot,
        first_frame=span.first_frame,
        frames=frames,
        keep=slice(*span.keep),
        opening=opening,
    )


def _by_seeking(job: Job, span: Span) -> list[VideoFrame]:
    window = TimeWindow(start_s=max(0.0, span.start_s), duration_s=span.duration_s)
    try:
        with job.open(window) as reader:
            return [visible(frame) for frame in reader]
    except VideoError as error:
        logger.info("%s: %s", job.source.name, error)
        return []


def _from_beginning(job: Job, span: Span) -> list[VideoFrame]:
    with job.open() as reader:
        stop = span.read_start + len(span.marks)
        return [visible(frame) for frame in islice(reader, span.read_start, stop)]


def _mark(frame: VideoFrame) -> tuple[int, int, int]:
    checksum = zlib.crc32(np.ascontiguousarray(frame.pixels))
    if frame.alpha is not None:
        checksum = zlib.crc32(np.ascontiguousarray(frame.alpha), checksum)
    if frame.excess is not None:
        checksum = zlib.crc32(np.ascontiguousarray(frame.excess), checksum)
    return frame.pts, frame.duration, checksum
