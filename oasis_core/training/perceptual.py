"""A perceptual distance as a loss, by a network whose weights the user put on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .config import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFSETS_PX = 8
"""A frame whose features are judged is cut at one of so many places along each side: pooled
features would otherwise allow a pattern that always meets their grid in the same way."""


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

    def feature_widths(self) -> Sequence[int]:
        """Channels of the features that `with_features` gives.

        Raises:
            TrainingError: The network hands out no features.
        """
        from ..evaluation.feature_networks import WIDTHS, Lpips

        if not isinstance(self.network, Lpips):
            raise TrainingError(
                "feature_weight needs a network that hands out its features: perceptual_network "
                '"lpips" or "lpips_vgg", from a folder named by OASIS_METRIC_WEIGHTS'
            )
        return WIDTHS[self.network.stack.kind]

    def with_features(
        self, restored: Tensor, truth: Tensor, seed: int
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]]]:
        """Mean distance of one frame of each clip, and the features of both.

        Args:
            restored: `b 3 t h w` in [0, 1].
            truth: The same shape.
            seed: Chooses the frame and where it is cut.
        """
        generator = torch.Generator().manual_seed(seed)
        frame = int(torch.randint(truth.shape[2], (), generator=generator))
        top, left = torch.randint(OFFSETS_PX, (2,), generator=generator).tolist()
        height, width = (n - OFFSETS_PX for n in truth.shape[3:])
        cut = (slice(None), slice(None), frame, slice(top, top + height), slice(left, left + width))
        features = self._features(restored[cut])
        with torch.no_grad():
            true_features = self._features(truth[cut])
        unit = ([F.normalize(x, dim=1) for x in side] for side in (features, true_features))
        return self.network.distance(*unit).mean(), (features, true_features)

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """Activations of pictures `n 3 h w` in [0, 1], not scaled to unit length."""
        network = self.network
        return network.stack((2 * pictures - 1 - network.mean) / network.deviation)
