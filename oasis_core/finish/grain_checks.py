"""What grain cannot be laid on or measured in, told before torch or a model is loaded."""

from __future__ import annotations

LEAST_SIDE_PX = 64
"""Of a source whose grain is measured: smaller pictures have too few flat places."""


def check_grain(
    grain: float | str | None, size: tuple[int, int], bit_depth: int, num_frames: int | None
) -> None:
    """Refuse grain where there cannot be any.

    Args:
        grain: As asked for.
        size: (width, height) of the source in pixels.
        bit_depth: Of the source.
        num_frames: That will be done, if known.

    Raises:
        ValueError: It cannot be laid or measured.
    """
    if grain is None:
        return
    if bit_depth == 1:
        raise ValueError(
            "grain must have shades to lie on, got a source of 1 bit per pixel; leave --grain out"
        )
    if grain == "auto":
        check_measurable(*size)
        check_frames(num_frames)


def check_measurable(width: int, height: int) -> None:
    """Refuse to measure grain in pictures that are too small for it.

    Raises:
        ValueError: They are.
    """
    if min(width, height) < LEAST_SIDE_PX:
        raise ValueError(
            f"grain auto must have a source of at least {LEAST_SIDE_PX}x{LEAST_SIDE_PX} pixels to "
            f"measure, got {width}x{height}; give an amount from 0 to 1"
        )


def check_frames(num_frames: int | None) -> None:
    """Refuse to measure grain in one picture.

    Raises:
        ValueError: There is only one.
    """
    if num_frames == 1:
        raise ValueError(
            "grain auto must have at least 2 frames to tell grain from texture, got 1; give an "
            "amount from 0 to 1"
        )
