"""Giving a loaded network other routings and its own back, without loading it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..geometry import middle
from .denoiser import OasisModel
from .routing import HeadRouting, calibrate


class Rerouter:
    """Routes a network's heads by other rules and knows the routing it had at first.

    Args:
        model: A loaded model.
    """

    def __init__(self, model: OasisModel) -> None:
        config = model.config
        self.own = model.transformer.routing or HeadRouting.all_global(
            config.num_layers, config.num_heads, window=config.window_size
        )
        """The routing of the file; all heads global where none was applied."""
        self._model = model

    @property
    def current(self) -> HeadRouting:
        """The routing that is applied, in the file's head order."""
        return self._model.transformer.routing or self.own

    def apply(self, routing: HeadRouting) -> None:
        """Route the heads; takes as long as copying the attention weights once.

        Args:
            routing: In the file's head order.

        Raises:
            ValueError: It was made for another number of layers or heads.
        """
        if routing != self.current:
            self._model.transformer.apply_routing(routing)

    def calibrate(self, clips: Iterable[torch.Tensor], **options: Any) -> HeadRouting:
        """Measure the heads unrestricted and route them; the applied routing stays.

        Args:
            clips: Videos `b 3 t h w` in [0, 1], all of one size, a multiple of the token stride.
            **options: Of `calibrate`.

        Returns:
            The new routing, in the file's head order, not applied.

        Raises:
            ValueError: See `calibrate`.
        """
        before = self.current
        num_layers, num_heads, window = before.num_layers, before.num_heads, before.window
        try:
            self.apply(HeadRouting.all_global(num_layers, num_heads, window=window))
            return calibrate(self._model, clips, **options)
        finally:
            self.apply(before)


def calibration_clips(
    video: torch.Tensor, *, num_frames: int, side_px: int, stride: tuple[int, int, int]
) -> list[torch.Tensor]:
    """Centre crops of consecutive frames, all of one size, that a model can be calibrated on.

    Args:
        video: `1 3 t h w` in [0, 1], as the model would see it: already at the target size.
        num_frames: Frames of each clip; a video that is shorter gives one clip.
        side_px: Longest side of a crop.
        stride: Token (frames, pixels, pixels) of the model.

    Returns:
        Clips `1 3 t h w`.

    Raises:
        ValueError: The picture is smaller than one token.
    """
    sides = [min(side_px, n) // s * s for n, s in zip(video.shape[3:], stride[1:], strict=True)]
    if min(sides) == 0:
        raise ValueError(
            f"calibration needs pictures of at least {stride[2]}x{stride[1]} px, got "
            f"{video.shape[4]}x{video.shape[3]}; enlarge them"
        )
    length = min(num_frames, video.shape[2])
    length -= (length - 1) % stride[0]
    rows, columns = map(middle, video.shape[3:], sides)
    crop = video[..., rows, columns]
    starts = range(0, video.shape[2] - length + 1, length)
    return [crop[:, :, start : start + length].contiguous() for start in starts]
