"""One frame as it is handed out, and how decoded ones become it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .alpha import alpha_of
from .changes import Judged, PictureKind, fitted, in_depth
from .color import ToRgb
from .info import VideoInfo
from .orientation import Orientation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoFrame:
    """One upright picture and when it is shown."""

    pixels: np.ndarray
    """`h w 3` RGB: uint8, or uint16 over 0..65535 when the source has more than 8 bits."""
    pts: int
    """When it appears, in units of the stream's time base."""
    duration: int
    """How long it stays, likewise."""
    alpha: np.ndarray | None = None
    """`h w` of the same type as the pixels, 0 is transparent; None where the source has none."""
    excess: np.ndarray | None = None
    """`h w 3` float32: what floating-point pictures have beyond the pixels, see `light`."""
    is_context: bool = False
    """Whether it lies outside the window asked for, to be looked at only."""
    begins: bool = False
    """Whether the film was another one before it: another size, another shape of pixels."""


class FrameMaker:
    """Makes upright RGB frames that are all alike.

    Args:
        info: facts of the film; its size, depth and transparency are those of every frame.
        orientation: what makes pixels upright.
        kind: of its first frame.
    """

    def __init__(self, info: VideoInfo, orientation: Orientation, kind: PictureKind) -> None:
        self.to_rgb = ToRgb(info.color, info.codec)
        self._info = info
        self._turn = orientation.apply
        self._kind = kind

    def __call__(self, decoded: Judged, *, begins: bool) -> VideoFrame:
        """Make a frame, its duration still 0.

        Args:
            decoded: with its kind.
            begins: see `VideoFrame`.
        """
        frame, bits, pixels = decoded.frame, self._info.bit_depth, self.to_rgb(decoded.frame)
        alpha = None
        if self._info.has_alpha:
            alpha = np.full((*pixels.shape[:2], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
            stored = frame.format
            if stored.has_palette or any(component.is_alpha for component in stored.components):
                alpha = alpha_of(frame)[..., None]
        if decoded.kind != self._kind:
            pixels = in_depth(fitted(pixels, decoded.kind, self._kind), bits)
            if alpha is not None:
                alpha = in_depth(fitted(alpha, decoded.kind, self._kind), bits, dithers=False)
        return VideoFrame(
            pixels=self._turn(pixels),
            pts=frame.pts,
            duration=0,
            alpha=None if alpha is None else self._turn(alpha)[..., 0],
            is_context=decoded.is_context,
            begins=begins,
        )
