"""Blur kernels: Gaussian families, plateau and sinc, all normalised to sum 1.

Source: Real-ESRGAN, arXiv 2107.10833, section 3 and appendix (families and ranges).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_family_kernel(
    size: int, *, sigma_x: float, sigma_y: float, angle: float, beta: float, family: str
) -> Tensor:
    """An anisotropic Gaussian, generalised Gaussian or plateau kernel.

    Args:
        size: Odd side in pixels.
        sigma_x: Width along the first axis in pixels.
        sigma_y: Width along the second axis in pixels.
        angle: Rotation in radians.
        beta: Shape; 1 is Gaussian for the first two families.
        family: "gaussian", "generalized" (exp of a power) or "plateau" (flat top).

    Returns:
        `size size`, float32, sum 1.
    """
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma_x
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma_y
    distance = along.square() + across.square()
    if family == "plateau":
        kernel = 1 / (1 + distance.pow(beta))
    else:
        kernel = torch.exp(-0.5 * distance.pow(beta if family == "generalized" else 1.0))
    return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """A circular low-pass filter; makes the ringing of a sharpened or over-compressed source.

    Args:
        size: Odd side in pixels.
        cutoff: Angular frequency in radians per pixel, in (0, pi].

    Returns:
        `size size`, float32, sum 1.

    Source: Real-ESRGAN, arXiv 2107.10833, equation 6.
    """
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    radius = torch.sqrt(axis[:, None].square() + axis[None, :].square())
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()
