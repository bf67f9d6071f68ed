"""Sizes, padding, frame counts, tile grids and segment plans: integers only, no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .choices import SHORT_SIDES_PX

MIN_SIDE_PX = 1
MAX_SIDE_PX = 1 << 15  # more than any codec here takes; keeps byte estimates honest
LEAST_BOX_PX = 8
"""Least side that a size which is a limit may have; less is a slip of the keys."""


# Picture sizes


def target_size(
    width: int,
    height: int,
    *,
    scale: float | Fraction | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Size of the result for a factor or an exact request.

    Args:
        width: Source width in pixels.
        height: Source height in pixels.
        scale: Factor for both sides; the result is rounded half up.
        size: Exact (width, height) in pixels, instead of `scale`.

    Returns:
        (width, height) in pixels.

    Raises:
        ValueError: Both or none are given, or source or result is outside the supported range.
    """
    if min(width, height) < MIN_SIDE_PX:
        raise ValueError(
            f"the source must have pixels, got {width}x{height}; choose another file or image"
        )
    if (scale is None) == (size is None):
        raise ValueError(
            f"exactly one of scale and size must be given, got scale={scale} and size={size}"
        )
    if size is not None:
        target = _exact_size(size)
    else:
        factor = _exact_scale(scale)
        target = (_round_half_up(width * factor), _round_half_up(height * factor))
    if min(target) < MIN_SIDE_PX or max(target) > MAX_SIDE_PX:
        raise ValueError(
            f"the result must be between {MIN_SIDE_PX} and {MAX_SIDE_PX} pixels on each side, got "
            f"{target[0]}x{target[1]} from {width}x{height}; choose another scale or size"
        )
    return target


def wanted_size(
    width: int,
    height: int,
    *,
    scale: float | Fraction | None = None,
    size: tuple[int, int] | str | None = None,
    fit: tuple[int, int] | None = None,
    max_side: int | None = None,
    even: bool = False,
) -> tuple[int, int]:
    """Size of the result in any of the ways in which a user may ask for it.

    Args:
        width: Source width in pixels.
        height: Source height in pixels.
        scale: Factor for both sides.
        size: Exact (width, height) in pixels, or a name of `choices.SHORT_SIDES_PX` such as
            "1080p", which the shorter side then has. Or
        fit: (width, height) in pixels of a box: the largest result of the source's shape inside.
        max_side: Greatest length of the longer side in pixels, which keeps the shape.
        even: Whether odd sides become the even number below, as 4:2:0 video needs.

    Returns:
        (width, height) in pixels. A size by name and one that fits a box have even sides where
        the wish itself is not odd.

    Raises:
        ValueError: Not exactly one of scale, size and fit is given, a name is unknown, or source or
            result is outside the supported range.
    """
    given = {"scale": scale, "size": size, "fit": fit}
    if sum(value is not None for value in given.values()) != 1:
        asked = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        raise ValueError(f"exactly one of scale, size and fit must be given, got {asked or 'none'}")
    if isinstance(size, str):
        target = _short_side_size(width, height, size)
    elif fit is not None:
        target = _fitted_size(width, height, _exact_size(fit, "fit"))
    else:
        target = target_size(width, height, scale=scale, size=size)
    if max_side is not None:
        target = _limited_size(target, max_side)
    if even:
        target = tuple(max(2, side - side % 2) for side in target)
    return target_size(width, height, size=target)


def _short_side_size(width: int, height: int, name: str) -> tuple[int, int]:
    if name not in SHORT_SIDES_PX:
        raise ValueError(
            f"size must be (width, height) in pixels or one of {', '.join(SHORT_SIDES_PX)}, got "
            f"{name!r}"
        )
    short_px = SHORT_SIDES_PX[name]
    long_px = _even(Fraction(max(width, height) * short_px, max(1, min(width, height))))
    return (long_px, short_px) if width >= height else (short_px, long_px)


def _fitted_size(width: int, height: int, box: tuple[int, int]) -> tuple[int, int]:
    if min(box) < LEAST_BOX_PX:
        raise ValueError(
            f"fit must be at least {LEAST_BOX_PX}x{LEAST_BOX_PX} pixels, got {box[0]}x{box[1]}"
        )
    factor = min(Fraction(box[0], max(1, width)), Fraction(box[1], max(1, height)))
    # The side that decides fills the box; the other one is even where the box has room for that.
    sides = zip((width, height), box, strict=True)
    return tuple(min(whole, _even(side * factor)) for side, whole in sides)


def _limited_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    if isinstance(max_side, bool) or max_side != int(max_side) or max_side < LEAST_BOX_PX:
        raise ValueError(
            f"max_side must be a whole number of at least {LEAST_BOX_PX} pixels, got {max_side}"
        )
    if max(size) <= max_side:
        return size
    factor = Fraction(int(max_side), max(size))
    return tuple(
        int(max_side) if side == max(size) else min(int(max_side), _even(side * factor))
        for side in size
    )


def _even(length: Fraction) -> int:
    """The nearest even number of pixels, at least 2."""
    return max(2, 2 * _round_half_up(length / 2))


def _exact_size(size: tuple[int, int], name: str = "size") -> tuple[int, int]:
    if len(size) != 2 or any(isinstance(v, bool) or int(v) != v for v in size):
        raise ValueError(f"{name} must be two whole numbers (width, height), got {size!r}")
    return int(size[0]), int(size[1])


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


def _exact_scale(scale: float | Fraction) -> Fraction:
    scale = plain_number(scale)
    if isinstance(scale, bool) or not isinstance(scale, (int, float, Fraction)):
        raise ValueError(f"scale must be a number above 0, got {scale!r}")
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale must be a finite number above 0, got {scale}; 2 doubles each side")
    # repr gives 1.1 back as 11/10: a product like 50 * 1.1 must not land a hair off a half.
    return scale if isinstance(scale, Fraction) else Fraction(repr(scale))


def _round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


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
