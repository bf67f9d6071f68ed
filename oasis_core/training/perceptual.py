"""A perceptual distance as a loss, by a network whose weights the user put on disk."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from .config import TrainingError


class PerceptualLoss:
    """LPIPS or DISTS between restored and true frames.

    Args:
        name: "lpips" (AlexNet), "lpips_vgg" or "dists".
        device: Where the network runs.

    Raises:
        TrainingError: Its library or weights are missing; the text says which file and from where.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        from ..evaluation.networks import MetricUnavailableError, build_network

        try:
            self.network = build_network(name).to(device)
        except MetricUnavailableError as error:
            raise TrainingError(f"perceptual_weight: {error}") from error
        self.is_lpips = name != "dists"

    def __call__(self, restored: Tensor, truth: Tensor) -> Tensor:
        """Mean distance of clips `b 3 t h w` in [0, 1], with gradient to `restored`."""
        x, y = (rearrange(clip, "b c t h w -> (b t) c h w") for clip in (restored, truth))
        if self.is_lpips:
            return self.network(2 * x - 1, 2 * y - 1).mean()
        # DISTS checks its range.
        return self.network(x.clamp(0, 1), y).mean()
