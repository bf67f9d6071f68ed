"""Degradation operators on clips `t 3 h w`, float32 in [0, 1]; pure functions.

A parameter given per clip is a scalar; one given per frame is a sequence of t values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

RESIZE_MODES = ("bilinear", "area", "bicubic")

# Quantisation tables of ITU-T T.81, annex K.
_LUMA_TABLE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA_TABLE = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
# ITU-R BT.601, full range, as JFIF uses it.
_RGB_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


def blur(clip: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Convolve every frame with its kernel (one for all, or t of them), edges reflected."""
    radius = kernels[0].shape[-1] // 2
    t, _, h, w = clip.shape
    mode = "reflect" if radius < min(h, w) else "replicate"
    padded = F.pad(clip, (radius,) * 4, mode=mode)
    stack = torch.stack(list(kernels)).to(clip).expand(t, -1, -1)
    # One group per plane: on the CPU much faster than planes as a batch.
    weight = repeat(stack, "t i j -> (t c) 1 i j", c=3)
    frames = F.conv2d(rearrange(padded, "t c h w -> 1 (t c) h w"), weight, groups=3 * t)
    return rearrange(frames, "1 (t c) h w -> t c h w", t=t)


def resize(clip: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize to (h, w) with one of `RESIZE_MODES`; antialiased where the mode allows it."""
    if mode == "area":
        return F.interpolate(clip, size=size, mode="area")
    return F.interpolate(clip, size=size, mode=mode, antialias=True, align_corners=False)


def gaussian_noise(
    clip: Tensor, sigma: Sequence[float], gray: bool, generator: torch.Generator
) -> Tensor:
    """Add normal noise, new in every frame; sigma on the 0-1 scale, one value or t values."""
    t, c, h, w = clip.shape
    noise = torch.randn((t, 1 if gray else c, h, w), generator=generator)
    return clip + noise.to(clip) * torch.tensor(sigma).to(clip).view(-1, 1, 1, 1)


def poisson_noise(
    clip: Tensor, scale: Sequence[float], gray: bool, generator: torch.Generator
) -> Tensor:
    """Add photon noise at 8-bit levels, new in every frame.

    Args:
        clip: `t 3 h w`.
        scale: Strength, one value or t values; 1 is one photon per 8-bit level.
        gray: The same noise in all three channels.
        generator: Source of randomness.

    Returns:
        `t 3 h w`, not clamped.
    """
    source = clip.clamp(0, 1)
    if gray:
        weights = torch.tensor(_RGB_TO_YCC[0]).to(clip).view(1, 3, 1, 1)
        source = (source * weights).sum(1, keepdim=True)
    levels = source * 255
    noise = (torch.poisson(levels.cpu(), generator=generator).to(levels) - levels) / 255
    return clip + noise * torch.tensor(scale).to(clip).view(-1, 1, 1, 1)


def _dct_matrix() -> Tensor:
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) / 2
    matrix[0] /= 2**0.5
    return matrix.float()


def _quantise_blocks(plane: Tensor, table: Tensor) -> Tensor:
    """Round the 8x8 DCT coefficients of planes `t h w` (-128..127) to table steps `t 8 8`."""
    dct = _dct_matrix().to(plane)
    blocks = rearrange(plane, "t (h i) (w j) -> t h w i j", i=8, j=8)
    steps = rearrange(table, "t i j -> t 1 1 i j")
    coefficients = torch.round(dct @ blocks @ dct.T / steps) * steps
    return rearrange(dct.T @ coefficients @ dct, "t h w i j -> t (h i) (w j)")


def jpeg(clip: Tensor, quality: Sequence[float]) -> Tensor:
    """What JPEG with 4:2:0 chroma does to every frame, without writing a file.

    Args:
        clip: `t 3 h w`.
        quality: IJG quality in [1, 100], one value or t values.

    Returns:
        `t 3 h w`.

    Source: ITU-T T.81; the quality scale of the Independent JPEG Group's library.
    """
    t, _, h, w = clip.shape
    matrix = torch.tensor(_RGB_TO_YCC).to(clip)
    padded = F.pad(clip.clamp(0, 1), (0, -w % 16, 0, -h % 16), mode="replicate")
    ycc = torch.einsum("ij,tjhw->tihw", matrix, torch.round(padded * 255))
    ycc[:, 0] -= 128
    q = torch.tensor(quality).to(clip).expand(t)
    scale = torch.where(q < 50, 5000 / q, 200 - 2 * q).view(-1, 1, 1)
    luma, chroma = (
        (torch.tensor([float(x) for x in text.split()]).view(8, 8).to(clip) * scale / 100 + 0.5)
        .floor()
        .clamp(1, 255)
        for text in (_LUMA_TABLE, _CHROMA_TABLE)
    )
    y = _quantise_blocks(ycc[:, 0], luma)
    small = F.avg_pool2d(ycc[:, 1:], 2)
    small = torch.stack([_quantise_blocks(small[:, i], chroma) for i in range(2)], dim=1)
    cbcr = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.cat([y[:, None] + 128, cbcr], dim=1)
    rgb = torch.einsum("ij,tjhw->tihw", torch.linalg.inv(matrix), decoded)
    return (rgb[..., :h, :w] / 255).clamp(0, 1)
