"""Full-reference metrics of clips `t 3 h w`, float in [0, 1]."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
# Luma of ITU-R BT.601, full range.
_LUMA = (0.299, 0.587, 0.114)
CONSISTENCY_SCALE, CONSISTENCY_OFFSET_PX2 = 0.01, 0.5


def psnr(clip: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in RGB in dB, per frame, then the mean over frames.

    Source: DOVE and OASIS protocol (no border crop).
    """
    errors = (clip.double() - truth.double()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10 * torch.log10(errors)).mean())


def ssim(clip: Tensor, truth: Tensor) -> float:
    """Structural similarity on luma, 11x11 Gaussian window of sigma 1.5, mean over frames.

    Source: Wang et al. 2004; borders without a full window are left out.
    """
    weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
    x, y = ((v.float() * weights).sum(1, keepdim=True) for v in (clip, truth))
    axis = torch.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
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


def _flow(reference: Tensor, moving: Tensor) -> Tensor:
    """Optical flow (dy, dx) in pixels from luma `h w` to luma `h w`; `2 h w`."""
    try:
        from skimage.registration import optical_flow_ilk
    except ImportError as error:
        raise ValueError(
            "the warping error needs scikit-image: pip install 'oasis-video-upscaler[evaluate]'"
        ) from error
    return torch.from_numpy(optical_flow_ilk(reference.numpy(), moving.numpy(), radius=7)).float()


def _sample(image: Tensor, flow: Tensor) -> Tensor:
    """Look `image` (`c h w`) up at every pixel displaced by `flow` (`2 h w`, dy dx)."""
    _, h, w = image.shape
    y = torch.arange(h)[:, None] + flow[0]
    x = torch.arange(w)[None, :] + flow[1]
    grid = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
    return F.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def motion(truth: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Flow from each frame of the truth to the next, and where it can be trusted.

    A pixel counts when going forward and back again ends near where it began.

    Returns:
        Per pair of frames: flow `2 h w` in pixels and visibility `h w`, bool.

    Source: flow by iterative Lucas-Kanade (scikit-image); visibility rule of EvalCrafter's
    warping error, arXiv 2310.11440, without its motion-edge term.
    """
    weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
    luma = (truth.float() * weights).sum(1)
    result = []
    for here, there in itertools.pairwise(luma):
        forward, backward = _flow(here, there), _flow(there, here)
        returned = forward + _sample(backward, forward)
        limit = forward.square().sum(0) + _sample(backward, forward).square().sum(0)
        is_visible = returned.square().sum(0) < CONSISTENCY_SCALE * limit + CONSISTENCY_OFFSET_PX2
        result.append((forward, is_visible))
    return result


def warping_error(clip: Tensor, flows: list[tuple[Tensor, Tensor]]) -> float:
    """Mean squared difference (x 1000) between frames and their motion-compensated successors.

    Args:
        clip: `t 3 h w`.
        flows: From `motion` of the true clip, so that all methods are judged along one motion.
    """
    errors = []
    for index, (flow, is_visible) in enumerate(flows):
        difference = (_sample(clip[index + 1].float(), flow) - clip[index].float()).square()
        errors.append(difference.mean(0)[is_visible].mean())
    return float(torch.stack(errors).mean() * 1000) if errors else 0.0


def to_uint8(clip: Tensor) -> Tensor:
    """Round to 8-bit levels and return to [0, 1]: metrics are taken on what a file would hold."""
    return (clip.clamp(0, 1) * 255).round() / 255
