"""Padding, frame counts, tile grids and segment plans: integers only, no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def plain_number(value: Any) -> Any:
    """A scalar of NumPy or torch as Python's own number; everything else as it is.

    A float of single precision or less becomes the decimal of 7 digits that was meant: 1.1, not
    1.10000002384.
    """
    try:
        number = value.item()
        is_single = isinstance(number, float) and not str(value.dtype).endswith("float64")
    except (AttributeError, TypeError, ValueError, RuntimeError):  # no scalar
        return value
    return float(f"{number:.7g}") if is_single else number


def middle(length: int, part: int) -> slice:
    """The middle of an axis.

    Args:
        length: Places on the axis.
        part: Places wanted, at most `length`.
    """
    start = (length - part) // 2
    return slice(start, start + part)


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def round_down(value: int, multiple: int) -> int:
    """Largest multiple of `multiple` that is not above `value`, at least one multiple."""
    return max(1, value // multiple) * multiple


def padding_indices(length: int, padded_length: int) -> list[int]:
    """Source index of each position past the end of an axis that is padded by reflection.

    The border line itself is not repeated (1 2 3 | 2 1), and reflection goes back and forth when
    the axis is shorter than its padding, so that any size can be padded to any multiple.

    Args:
        length: Lines that exist, at least 1.
        padded_length: Lines wanted, not below `length`.

    Returns:
        padded_length - length indices in [0, length).
    """
    period = max(1, 2 * (length - 1))
    folded = (index % period for index in range(length, padded_length))
    return [index if index < length else period - index for index in folded]


# Frame counts


def is_valid_num_frames(num_frames: int, stride: int) -> bool:
    """Whether a model whose stem takes `stride` frames a step accepts this many frames.

    A stride of 1 takes any number; a causal stride of k takes k*n + 1 (the first frame is alone).
    """
    return num_frames >= 1 and (num_frames - 1) % stride == 0


def next_valid_num_frames(num_frames: int, stride: int) -> int:
    """Smallest valid frame count that is not below `num_frames`."""
    return round_up(max(num_frames, 1) - 1, stride) + 1


# Tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class TileAxis:
    """Tiles along one axis: all of one length, together covering it exactly."""

    length: int
    """Pixels of the axis."""
    tile: int
    """Pixels of each tile."""
    overlap: int
    """Least pixels that two neighbours share."""
    starts: tuple[int, ...]
    """First pixel of each tile, ascending."""

    @property
    def seams(self) -> tuple[tuple[int, int], ...]:
        """For each pair of neighbours the pixels [start, stop) over which one fades to the other.

        A fade takes the middle half of what the two share: the outer quarters, where a tile has
        seen least beyond its edge, are thrown away.
        """
        fade = self.overlap // 2
        pairs = itertools.pairwise(self.starts)
        centres = ((first + self.tile + second) // 2 for first, second in pairs)
        return tuple((centre - fade // 2, centre - fade // 2 + fade) for centre in centres)

    def scaled(self, scale: int) -> TileAxis:
        """The same tiles on an axis of `scale` times the pixels."""
        return TileAxis(
            length=self.length * scale,
            tile=self.tile * scale,
            overlap=self.overlap * scale,
            starts=tuple(start * scale for start in self.starts),
        )


def balanced_tile(length: int, num_tiles: int, overlap: int, stride: int) -> int:
    """Least tile side with which `num_tiles` tiles cover an axis, so that overlaps waste least."""
    return round_up(-(-(length + (num_tiles - 1) * overlap) // num_tiles), stride)


def plan_tile_axis(length: int, tile: int, overlap: int, stride: int) -> TileAxis:
    """Lay tiles along one axis, on the token grid; the last is shifted inward, never shrunk.

    Args:
        length: Pixels of the axis, a multiple of `stride`.
        tile: Wanted pixels of a tile; rounded down to the stride, at most `length`.
        overlap: Wanted shared pixels; rounded up to the stride, at most half a tile.
        stride: Pixels of a token.

    Raises:
        ValueError: `length` is not a multiple of the stride.
    """
    if length % stride or length < stride:
        raise ValueError(f"length must be a multiple of the token size {stride}, got {length}")
    tile = min(round_down(tile, stride), length)
    if tile == length:
        return TileAxis(length=length, tile=tile, overlap=0, starts=(0,))
    # Half a tile at most: otherwise three tiles could meet in one fade.
    overlap = min(round_up(overlap, stride), tile // 2 // stride * stride)
    step = tile - overlap
    num_tiles = -(-(length - overlap) // step)
    starts = tuple(min(index * step, length - tile) for index in range(num_tiles))
    return TileAxis(length=length, tile=tile, overlap=overlap, starts=starts)


# Segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Frames [start, stop) of a shot to produce, and [read_start, read_stop) to look at."""

    start: int
    stop: int
    read_start: int
    read_stop: int
    shot_start: int = 0
    """The shot's first frame, where segments are numbered in a clip of several."""

    @property
    def num_frames(self) -> int:
        """Frames this segment produces."""
        return self.stop - self.start

    @property
    def keep(self) -> slice:
        """The produced frames, as positions within the frames that are read."""
        return slice(self.start - self.read_start, self.stop - self.read_start)


def least_tail(segment_frames: int) -> int:
    """Frames below which the end of a shot is not left as a segment of its own."""
    return max(1, segment_frames // 2)


def next_segment_frames(
    num_left: int,
    segment_frames: int,
    is_shot_over: bool,
    *,
    lacking_lead: int = 0,
    multiple: int = 1,
) -> int | None:
    """Length of the next segment of a shot whose end may not be known yet.

    A full segment, unless what would be left after it is too short: then the two last segments
    share the frames evenly. The answer never depends on when the frames arrived.

    Args:
        num_left: Frames of the shot that are known and not yet in a segment.
        segment_frames: Frames of a full segment.
        is_shot_over: No further frame of this shot will come.
        lacking_lead: Frames of the lead that are not there before this segment, the first of its
            shot: it produces them too, so that it is as long for the model as those that follow.
        multiple: Frames of which a segment, but for that, produces a multiple if more follow it.

    Returns:
        Frames to take, or None if more frames must be known first.
    """
    full = segment_frames + lacking_lead
    if num_left >= full + least_tail(segment_frames):
        return full
    if not is_shot_over:
        return None
    if num_left <= full:
        return num_left
    # As even as the multiple allows, and what is left is never more than a full segment.
    half = max(-(-num_left // 2), num_left - segment_frames) - lacking_lead
    return lacking_lead + round_up(max(0, half), multiple)


def plan_segments(
    num_frames: int,
    segment_frames: int,
    halo_frames: int,
    *,
    lead_frames: int = 0,
    multiple: int = 1,
) -> list[Segment]:
    """Cut one shot into segments with a halo on both sides, clipped at the ends of the shot.

    Args:
        num_frames: Frames of the shot.
        segment_frames: Frames a full segment produces.
        halo_frames: Extra frames read on each side.
        lead_frames: Extra frames read before a segment, if these are more.
        multiple: Frames of which `segment_frames` is a multiple, and every segment of a shot but
            the last two, the first after taking its lead off.

    Raises:
        ValueError: A count is out of range.
    """
    if num_frames < 1 or segment_frames < 1 or halo_frames < 0:
        raise ValueError(
            "num_frames and segment_frames must be at least 1 and halo_frames at least 0, got "
            f"{num_frames}, {segment_frames} and {halo_frames}"
        )
    segments, start, before = [], 0, max(halo_frames, lead_frames)
    while start < num_frames:
        length = next_segment_frames(
            num_frames - start,
            segment_frames,
            is_shot_over=True,
            lacking_lead=max(0, lead_frames - start),
            multiple=multiple,
        )
        stop = start + length
        segments.append(
            Segment(
                start=start,
                stop=stop,
                read_start=max(0, start - before),
                read_stop=min(num_frames, stop + halo_frames),
            )
        )
        start = stop
    return segments


def shots_from_cuts(num_frames: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Frames [start, stop) of each shot, from the first frames of all shots but the first."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < num_frames}), num_frames]
    return list(itertools.pairwise(edges))
