"""A piece of a film: which frames belong to it, and which are only looked at."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from ..remote import RemoteFile
from .errors import VideoError


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow:
    """A piece of a film, in seconds after its first frame."""

    start_s: float = 0.0
    """Frames shown from here on belong to it."""
    duration_s: float | None = None
    """Frames shown this much later no longer do; None: to the end."""
    context_frames: int = 0
    """Further frames to read on both sides, where there are any."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise VideoError(f"start_s must be 0 or more seconds, got {self.start_s}")
        if self.duration_s is not None and not (
            math.isfinite(self.duration_s) and self.duration_s > 0
        ):
            raise VideoError(f"duration_s must be more than 0 seconds, got {self.duration_s}")

    def ticks(self, first_pts: int, time_base: Fraction) -> tuple[int, float]:
        """Return the first PTS inside and the first one behind.

        Args:
            first_pts: of the film's first frame.
            time_base: seconds per tick.
        """
        start = first_pts + _to_ticks(self.start_s, time_base)
        if self.duration_s is None:
            return start, math.inf
        return start, first_pts + _to_ticks(self.start_s + self.duration_s, time_base)

    def num_frames(self, total: int | None, duration_s: float | None, rate: Fraction) -> int:
        """Return about how many frames it holds.

        Args:
            total: frames of the film, if known.
            duration_s: its length, if known.
            rate: its frames per second.
        """
        if total is None and duration_s is not None:
            total = round(duration_s * rate)
        wanted = None if self.duration_s is None else math.ceil(self.duration_s * rate)
        left = None if total is None else max(0, total - math.ceil(self.start_s * rate))
        return max(1, min((n for n in (wanted, left) if n is not None), default=1))


def _to_ticks(seconds: float, time_base: Fraction) -> int:
    # A time that was computed from ticks must find its own frame again.
    return math.ceil(Fraction(seconds) / time_base - Fraction(1, 1000))


def frames_in(
    frames: Iterator[av.VideoFrame], start: int, stop: float, context_frames: int
) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Yield the frames of a window and whether each is context only.

    At least one frame behind the window is yielded where there is one: it tells how long the last
    one inside is shown.

    Args:
        frames: decoded, with increasing PTS.
        start: first PTS inside.
        stop: first PTS behind.
        context_frames: frames wanted on both sides.
    """
    before: deque[av.VideoFrame] = deque(maxlen=context_frames)
    num_behind = 0
    for frame in frames:
        if frame.pts < start:
            before.append(frame)
            continue
        while before:
            yield before.popleft(), True
        is_behind = frame.pts >= stop
        yield frame, is_behind
        num_behind += is_behind
        if num_behind >= max(1, context_frames):
            return


def empty_piece(path: Path | RemoteFile, last_s: float, window: TimeWindow) -> VideoError:
    """The sentence for a piece in which no frame begins.

    Args:
        path: what the user named.
        last_s: when its last frame is shown, in seconds after the first.
        window: the piece.
    """
    if window.duration_s is None or window.start_s > last_s:
        return VideoError(
            f"the piece to read must begin before the last frame of {str(path)!r} at {last_s:.3f} "
            f"s, got start_s {window.start_s:g}"
        )
    return VideoError(
        f"no frame of {str(path)!r} begins within {window.duration_s:g} s from {window.start_s:g} "
        "s; choose a longer piece"
    )
