"""Losses between a restored clip and the truth, both `b 3 t h w`; pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import StageConfig

CHARBONNIER_EPSILON = 1e-3


def charbonnier(restored: Tensor, truth: Tensor, epsilon: float = CHARBONNIER_EPSILON) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2), a smooth absolute error.

    Source: LapSRN, arXiv 1710.01992.
    """
    return torch.sqrt((restored - truth).square() + epsilon**2).mean()


def frame_difference(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the change from frame to frame; zero for one frame.

    Source: DOVE, arXiv 2505.16239.
    """
    if truth.shape[2] < 2:
        return truth.new_zeros(())
    return (restored.diff(dim=2) - truth.diff(dim=2)).abs().mean()


def frequency(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the frames' spectra (real and imaginary part), orthonormal.

    Source: MIMO-UNet, arXiv 2108.05054.
    """
    difference = torch.fft.rfft2((restored - truth).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def latent_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of latents `b c t h w`.

    Source: DOVE, arXiv 2505.16239, stage 1.
    """
    return (predicted.float() - target.float()).square().mean()


def pixel_losses(stage: StageConfig, restored: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """The weighted losses of a stage that compare pixels and need no network."""
    parts = {"charbonnier": charbonnier(restored, truth, stage.charbonnier_epsilon)}
    if stage.temporal_weight:
        parts["temporal"] = stage.temporal_weight * frame_difference(restored, truth)
    if stage.frequency_weight:
        parts["frequency"] = stage.frequency_weight * frequency(restored, truth)
    return parts
