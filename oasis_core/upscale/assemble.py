"""From a stream of frames to segments with their halo, shot by shot."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..geometry import next_segment_frames
from ..video import VideoFrame
from .shots import ShotDetector

if TYPE_CHECKING:
    from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentFrames:
    """The frames of one segment."""

    index: int
    """Position among the segments of the clip."""
    shot: int
    """Number of its shot."""
    first_frame: int
    """Number of the first kept frame in the clip."""
    frames: list[VideoFrame]
    """All frames to look at, halo included."""
    keep: slice
    """The frames to produce."""
    opening: VideoFrame
    """The first frame of its shot."""

    @property
    def kept(self) -> list[VideoFrame]:
        """The frames to produce."""
        return self.frames[self.keep]


class SegmentAssembler:
    """Collects frames into segments while they stream by; holds about one segment of them.

    Cuts nothing differently from `geometry.plan_segments` of each shot, but without knowing where
    the shots end.

    Args:
        segment_frames: Frames of a full segment.
        halo_frames: Further frames on both sides.
        lead_frames: Further frames before, if these are more.
        multiple: Frames of which a full segment is a multiple.
        has_shots: Find cuts; otherwise the clip is one shot.
    """

    def __init__(
        self,
        segment_frames: int,
        halo_frames: int,
        *,
        has_shots: bool,
        lead_frames: int = 0,
        multiple: int = 1,
    ) -> None:
        self._segment_frames = segment_frames
        self._halo_frames = halo_frames
        self._lead_frames, self._multiple = lead_frames, multiple
        self._before = max(halo_frames, lead_frames)
        self._detector = ShotDetector() if has_shots else None
        self._undecided: deque[VideoFrame] = deque()
        self._held: list[VideoFrame] = []
        self._opening: VideoFrame | None = None
        self._done = 0  # how many of the held frames are not to be produced: the halo behind
        self._has_begun = False
        self._index = 0
        self._shot = 0
        self._first_frame = 0

    @classmethod
    def of(cls, plan: Plan, *, has_shots: bool) -> SegmentAssembler:
        """What cuts a clip up as a plan says."""
        return cls(
            plan.segment_frames,
            plan.halo_frames,
            has_shots=has_shots,
            lead_frames=plan.lead_frames,
            multiple=plan.segment_multiple,
        )

    def segments(self, frames: Iterable[VideoFrame]) -> Iterator[SegmentFrames]:
        """Yield the segments of a clip in order.

        Frames that are context only, before and after all others, serve as halo.
        """
        for frame in frames:
            if frame.begins:
                yield from self._end_shot()
            self._undecided.append(frame)
            yield from self._decide([False] if self._detector is None else self._push(frame))
        if self._detector is not None:
            yield from self._decide(self._detector.flush())
        yield from self._emit(is_shot_over=True)

    def _end_shot(self) -> Iterator[SegmentFrames]:
        """Let no segment reach from one film into the other that follows it."""
        if self._detector is not None:
            yield from self._decide(self._detector.flush())
            self._detector = ShotDetector()
        yield from self._emit(is_shot_over=True)
        self._held, self._done, self._opening = [], 0, None
        self._shot += 1

    def _push(self, frame: VideoFrame) -> list[bool]:
        return self._detector.push(frame.pixels)

    def _decide(self, decisions: list[bool]) -> Iterator[SegmentFrames]:
        for is_cut in decisions:
            if is_cut:
                yield from self._emit(is_shot_over=True)
                self._held, self._done, self._opening = [], 0, None
                self._shot += 1
            frame = self._undecided.popleft()
            if self._opening is None:
                self._opening = frame
            self._held.append(frame)
            self._has_begun |= not frame.is_context
            self._done += not self._has_begun
            yield from self._emit(is_shot_over=False)

    def _emit(self, *, is_shot_over: bool) -> Iterator[SegmentFrames]:
        while num_left := self._num_left():
            length = next_segment_frames(
                num_left,
                self._segment_frames,
                is_shot_over,
                lacking_lead=max(0, self._lead_frames - self._done),
                multiple=self._multiple,
            )
            if length is None or (not is_shot_over and num_left < length + self._halo_frames):
                return
            stop = self._done + length
            start = max(0, self._done - self._before)
            yield SegmentFrames(
                index=self._index,
                shot=self._shot,
                first_frame=self._first_frame,
                frames=self._held[start : stop + self._halo_frames],
                keep=slice(self._done - start, stop - start),
                opening=self._opening,
            )
            self._index += 1
            self._first_frame += length
            behind = max(0, stop - self._before)
            del self._held[:behind]
            self._done = stop - behind

    def _num_left(self) -> int:
        """How many of the held frames are still to be produced."""
        held = self._held[self._done :]
        return sum(not frame.is_context for frame in held)
