"""Losses between a restored clip and the truth, both `b 3 t h w`; pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3


def charbonnier(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2), a smooth absolute error.

    Source: LapSRN, arXiv 1710.01992.
    """
    return torch.sqrt((restored - truth).square() + CHARBONNIER_EPSILON**2).mean()


def frame_difference(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the change from frame to frame; zero for one frame.

    Source: DOVE, arXiv 2505.16239.
    """
    if truth.shape[2] < 2:
        return truth.new_zeros(())
    return (restored.diff(dim=2) - truth.diff(dim=2)).abs().mean()
