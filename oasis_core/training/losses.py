"""Losses between a restored clip and the truth, both `b 3 t h w`; pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .config import StageConfig

CHARBONNIER_EPSILON = 1e-3
RMS_EPSILON = 1e-6
LOG_EPSILON = 1e-5
"""Squared error of 50 dB, beyond which an even smaller one is worth little."""

CELL_PX = 4
CELLS_OF_MEAN, CELLS_OF_GRID = 4, 7
FLAT_PX = 16
NUM_FLAT_CLIPS = 16

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


def cell_error(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the means over 4x4 cells, of each pixel of a cell on its own.

    Holds colours and brightness where other losses look at texture alone.
    """
    return F.avg_pool2d(_phases(restored - truth), CELLS_OF_MEAN).abs().mean()


def grid_error(restored: Tensor, truth: Tensor) -> Tensor:
    """How much of a pattern repeats from cell to cell, beyond the truth's own.

    A network that makes 4x4 pixels of every cell at once, and a loss by features that are pooled
    over 2x2 pixels, agree on a weave with the period of the cells. What pixels of the same place in
    their cells have in common over a window, and those of other places have not, is that weave.
    """
    means = F.avg_pool2d(_phases(restored - truth), CELLS_OF_GRID, stride=CELLS_OF_GRID // 2)
    phases = rearrange(means, "n (c p) h w -> n c p h w", c=3)
    return (phases - phases.mean(2, keepdim=True)).abs().mean()


def _phases(clip: Tensor) -> Tensor:
    """Pixels of cells `(b t) (c 16) h/4 w/4` of `b c t h w`."""
    return F.pixel_unshuffle(rearrange(clip, "b c t h w -> (b t) c h w"), CELL_PX)


def draw_flat_clips(count: int, seed: int) -> Tensor:
    """Clips of one colour, `n 3 1 16 16`: a quarter of them corners of the colour cube.

    Args:
        count: n.
        seed: Of the colours.
    """
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(count, 3, 1, 1, 1, generator=generator)
    colors[: count // 4] = colors[: count // 4].round()
    return colors.expand(-1, -1, 1, FLAT_PX, FLAT_PX).contiguous()


def flat_error(residual: Tensor) -> Tensor:
    """What is added to clips of one colour `n 3 t h w`, on the mean and at its worst pixel."""
    size = residual.abs().flatten(1)
    return size.mean() + size.amax(1).mean()


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
    for name, part in (("cell", cell_error), ("grid", grid_error)):
        if weight := getattr(stage, f"{name}_weight"):
            parts[name] = weight * part(restored, truth)
    if stage.temporal_weight:
        change = frame_difference(restored, truth, change_loss)
        parts["temporal"] = stage.temporal_weight * change
    if stage.frequency_weight:
        parts["frequency"] = stage.frequency_weight * frequency(restored, truth)
    return parts
