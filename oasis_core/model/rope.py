"""Rotary position embedding over time, height and width.

The channels of a head are split into a time, a height and a width part; inside each part adjacent
channels form a pair that is rotated by its token's position on that axis.

Source: Wan2.1 (Apache-2.0), `wan/modules/model.py`, layout and frequencies; RoPE, arXiv 2104.09864.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor

THETA = 10_000.0


def axis_sizes(head_size: int) -> tuple[int, int, int]:
    """Channels of one head that encode (time, height, width); all even, together `head_size`."""
    spatial = 2 * (head_size // 6)
    return head_size - 2 * spatial, spatial, spatial


def rope_rotations(
    grid: tuple[int, int, int],
    head_size: int,
    device: torch.device,
    *,
    is_precise: bool = False,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every token's rotation.

    Args:
        grid: Token counts (t, h, w).
        head_size: Channels of one head; even.
        device: Where the result lives.
        is_precise: Take them of float64 angles, which matters far from the origin.
        first: Position of the first frame of tokens, where a clip is worked on piece by piece.

    Returns:
        Two float32 tensors `n (head_size / 2)`, n = t*h*w in raster order.
    """
    t, h, w = grid
    angles = []
    starts = (first, 0, 0)
    for start, length, size in zip(starts, grid, axis_sizes(head_size), strict=True):
        exponent = torch.arange(0, size, 2, dtype=torch.float64) / max(size, 1)
        frequency = THETA**-exponent
        positions = torch.arange(start, start + length, dtype=torch.float64)
        angles.append(torch.outer(positions, frequency))
    parts = [
        repeat(angles[0], "t c -> (t h w) c", h=h, w=w),
        repeat(angles[1], "h c -> (t h w) c", t=t, w=w),
        repeat(angles[2], "w c -> (t h w) c", t=t, h=h),
    ]
    angle = torch.cat(parts, dim=-1)
    if is_precise:
        return tuple(y.to(device, torch.float32) for y in (angle.cos(), angle.sin()))
    angle = angle.to(device, torch.float32)
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor, *, is_precise: bool = False) -> Tensor:
    """Rotate queries or keys to their positions.

    Args:
        x: `b n k c`, any float dtype.
        cos: `n (c / 2)` from `rope_rotations`.
        sin: `n (c / 2)`.
        is_precise: Rotate in float32 and round once.

    Returns:
        `b n k c` in the dtype of `x`.
    """
    dtype = torch.promote_types(x.dtype, torch.float32) if is_precise else x.dtype
    cos, sin = (rearrange(table.to(dtype), "n c -> n 1 c") for table in (cos, sin))
    even, odd = rearrange(x.to(dtype), "b n k (c two) -> two b n k c", two=2)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rearrange(rotated, "b n k c two -> b n k (c two)").to(x.dtype)
