"""Losses between a restored clip and the truth, both `b 3 t h w`; pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .config import StageConfig

CHARBONNIER_EPSILON = 1e-3
RMS_EPSILON = 1e-6
LOG_EPSILON = 1e-5
"""Squared error of 50 dB, beyond which an even smaller one is worth little."""

Loss = Callable[[Tensor, Tensor], Tensor]


def charbonnier(restored: Tensor, truth: Tensor, epsilon: float = CHARBONNIER_EPSILON) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2), a smooth absolute error.

    Source: LapSRN, arXiv 1710.01992.
    """
    return torch.sqrt((restored - truth).square() + epsilon**2).mean()


def root_mean_square(restored: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error of each clip, averaged over the batch.

    Between the plain squared error, which the worst clips dominate, and the logarithm that PSNR
    is, which the best ones do.
    """
    return torch.sqrt((restored - truth).square().mean(dim=(1, 2, 3, 4)) + RMS_EPSILON).mean()


def log_mean_square(restored: Tensor, truth: Tensor) -> Tensor:
    """Half the natural logarithm of each clip's mean squared error, averaged over the batch.

    What a mean of PSNRs measures: a decibel is worth as much on a clean clip as on a bad one.
    """
    errors = (restored - truth).square().mean(dim=(1, 2, 3, 4))
    return 0.5 * torch.log(errors + LOG_EPSILON).mean()


def absolute_error(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error."""
    return (restored - truth).abs().mean()


def frame_difference(restored: Tensor, truth: Tensor, loss: Loss = absolute_error) -> Tensor:
    """A loss on the change from frame to frame; zero for one frame.

    Source: DOVE, arXiv 2505.16239, with the absolute error.
    """
    if truth.shape[2] < 2:
        return truth.new_zeros(())
    return loss(restored.diff(dim=2), truth.diff(dim=2))


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
    loss, change_loss = {
        "charbonnier": (partial(charbonnier, epsilon=stage.charbonnier_epsilon), absolute_error),
        "root_mean_square": (root_mean_square, root_mean_square),
        "log_mean_square": (log_mean_square, log_mean_square),
    }[stage.pixel_loss]
    parts = {stage.pixel_loss: loss(restored, truth)}
    if stage.temporal_weight:
        change = frame_difference(restored, truth, change_loss)
        parts["temporal"] = stage.temporal_weight * change
    if stage.frequency_weight:
        parts["frequency"] = stage.frequency_weight * frequency(restored, truth)
    return parts
