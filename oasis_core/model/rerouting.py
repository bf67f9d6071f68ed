"""Giving a loaded network other routings and its own back, without loading it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .denoiser import OasisModel
from .routing import HeadRouting, calibrate


class Rerouter:
    """Remembers the order in which a network's heads stand, so that any routing can follow.

    Args:
        model: A loaded model.
        routing: The routing it was loaded with, in the file's head order.
    """

    def __init__(self, model: OasisModel, routing: HeadRouting) -> None:
        self.own = routing
        """The routing of the file."""
        self.current = routing
        """The routing that is applied."""
        self._model = model
        self._orders = _orders(routing)

    def apply(self, routing: HeadRouting) -> None:
        """Route the heads; takes as long as copying the attention weights once.

        Args:
            routing: In the file's head order.

        Raises:
            ValueError: It was made for another number of layers or heads.
        """
        if routing == self.current:
            return
        config = self._model.config
        routing.check_fits(config.num_layers, config.num_heads)
        orders = _orders(routing)
        for layer, block in enumerate(self._model.transformer.blocks):
            stands = {head: place for place, head in enumerate(self._orders[layer])}
            block.attention.permute_heads(tuple(stands[head] for head in orders[layer]))
            block.attention.counts = routing.counts(layer)
            block.attention.window = routing.window
        self.current, self._orders = routing, orders

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
            device = next(self._model.parameters()).device
            sources = (self._model.encode(clip.to(device)) for clip in clips)
            return calibrate(self._model, sources, head_order=self._orders, **options)
        finally:
            self.apply(before)


def _orders(routing: HeadRouting) -> list[tuple[int, ...]]:
    return [routing.permutation(layer) for layer in range(routing.num_layers)]


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
    top, left = ((n - side) // 2 for n, side in zip(video.shape[3:], sides, strict=True))
    crop = video[..., top : top + sides[0], left : left + sides[1]]
    starts = range(0, video.shape[2] - length + 1, length)
    return [crop[:, :, start : start + length].contiguous() for start in starts]
