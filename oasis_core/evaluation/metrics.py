"""Full-reference metrics of clips `t 3 h w`, float in [0, 1], in the published conventions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
# Luma of ITU-R BT.601, full range; YIQ's Y is the same.
LUMA = (0.299, 0.587, 0.114)
# Luma of ITU-R BT.601, limited range, on the scale 0-1: what "PSNR on Y" means since SRCNN.
_LIMITED_LUMA = tuple(weight / 255 for weight in (65.481, 128.553, 24.966))


def luma(clip: Tensor) -> Tensor:
    """Full-range luma `t 1 h w` of `t 3 h w`."""
    return (clip.float() * torch.tensor(LUMA, device=clip.device).view(1, 3, 1, 1)).sum(
        1, keepdim=True
    )


def psnr(clip: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in RGB in dB, per frame, then the mean over frames.

    Source: DOVE and OASIS protocol (no border crop).
    """
    errors = (clip.double() - truth.double()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10 * torch.log10(errors)).mean())


def psnr_y(clip: Tensor, truth: Tensor) -> float:
    """PSNR of limited-range luma (16-235) against a peak of 255, the mean over frames.

    Source: the protocol of Vid4, UDM10 and REDS4 (MATLAB's rgb2ycbcr); no border crop.
    """
    weights = torch.tensor(_LIMITED_LUMA, dtype=torch.float64, device=clip.device)
    difference = torch.einsum("tchw,c->thw", clip.double() - truth.double(), weights)
    errors = difference.square().mean(dim=(1, 2)).clamp_min(1e-10)
    return float((-10 * torch.log10(errors)).mean())


def ssim(clip: Tensor, truth: Tensor) -> float:
    """Structural similarity on luma, the mean over frames; the published tables' "SSIM".

    Source: Wang et al. 2004; pyiqa's `ssim` (luma by default). See `ssim_rgb` for the window.
    """
    return _ssim(luma(clip), luma(truth))


def ssim_rgb(clip: Tensor, truth: Tensor) -> float:
    """Structural similarity of R, G and B, the mean over channels and frames.

    11x11 Gaussian window of sigma 1.5; borders without a full window are left out.

    Source: Wang et al. 2004; pyiqa's `ssimc`, torchmetrics.
    """
    return sum(_ssim(clip[:, i : i + 1], truth[:, i : i + 1]) for i in range(3)) / 3


def _ssim(x: Tensor, y: Tensor) -> float:
    if min(x.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs frames of at least {SSIM_WINDOW}x{SSIM_WINDOW}, got "
            f"{x.shape[3]}x{x.shape[2]}"
        )
    x, y = x.float(), y.float()
    axis = torch.arange(SSIM_WINDOW, device=x.device) - SSIM_WINDOW // 2
    line = torch.exp(-(axis**2) / (2 * SSIM_SIGMA**2))
    line = line / line.sum()

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    index = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(index.mean())


def to_uint8(clip: Tensor) -> Tensor:
    """Round to 8-bit levels and return to [0, 1]: metrics are taken on what a file would hold."""
    return (clip.clamp(0, 1) * 255).round() / 255
