"""The display matrix: how stored pixels are turned to stand upright."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass

import numpy as np
from einops import rearrange

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """One of the eight ways to lay a picture: transpose first, then mirror rows and columns."""

    transpose: bool = False
    """Swap rows and columns."""
    flip_x: bool = False
    """Mirror left to right, after the transpose."""
    flip_y: bool = False
    """Mirror top to bottom, after the transpose."""

    @property
    def rotation_deg(self) -> int:
        """Clockwise turn, 0, 90, 180 or 270, that makes the picture upright (mirroring aside)."""
        if self.transpose:
            return 270 if self.flip_y and not self.flip_x else 90
        return 180 if self.flip_y else 0

    @property
    def is_mirrored(self) -> bool:
        """Whether the picture is also mirrored, as some front cameras do."""
        return self.transpose != (self.flip_x != self.flip_y)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn a picture upright.

        Args:
            pixels: `h w c` as stored.

        Returns:
            `h w c`, C-contiguous; `h` and `w` are exchanged by a transpose.
        """
        if self.transpose:
            pixels = rearrange(pixels, "h w c -> w h c")
        if self.flip_x:
            pixels = pixels[:, ::-1]
        if self.flip_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


UPRIGHT = Orientation()


def from_rotation(degrees: int) -> Orientation:
    """Return the orientation of a display matrix of which only the angle is known.

    Args:
        degrees: counterclockwise, as PyAV has it; other angles than quarter turns are ignored.
    """
    return {
        90: Orientation(transpose=True, flip_y=True),
        180: Orientation(flip_x=True, flip_y=True),
        270: Orientation(transpose=True, flip_x=True),
    }.get(degrees % 360, UPRIGHT)


def from_display_matrix(matrix: bytes) -> Orientation:
    """Return the orientation of a display matrix; other angles than quarter turns are ignored.

    Args:
        matrix: FFmpeg's AV_FRAME_DATA_DISPLAYMATRIX: nine native int32, rows (a b u), (c d v),
            (x y w), 16.16 fixed point; a stored point (x, y) is shown at (a x + c y, b x + d y).
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if a == d == 0 and b and c:
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    if b == c == 0 and a and d:
        return Orientation(flip_x=a < 0, flip_y=d < 0)
    if any((a, b, c, d)):
        log.warning("the file asks to be shown at an angle that is no quarter turn; it is ignored")
    return UPRIGHT


def orientation_of(side_data: dict[str, bytes], rotation_deg: int) -> Orientation:
    """Return the orientation of a decoded frame.

    Args:
        side_data: of the frame.
        rotation_deg: PyAV's angle of it, for where its matrix is not shown.
    """
    if "DISPLAYMATRIX" not in side_data:
        return from_rotation(rotation_deg)
    return from_display_matrix(side_data["DISPLAYMATRIX"])
