"""How large a result is, as users may ask for it: integers only, no torch."""

from __future__ import annotations

import math
from fractions import Fraction

from .choices import SHORT_SIDES_PX
from .geometry import plain_number

MIN_SIDE_PX = 1
MAX_SIDE_PX = 1 << 15  # more than any codec here takes; keeps byte estimates honest
LEAST_BOX_PX = 8
"""Least side that a size which is a limit may have; less is a slip of the keys."""


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
