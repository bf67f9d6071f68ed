"""Window attention: every query sees the keys of a small box of tokens around it.

The box is centred on the query and clipped at the borders of the grid, so a corner token has fewer
keys than an inner one. `dense_window_attention` defines the result.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange

Grid: TypeAlias = tuple[int, int, int]

MASK_CACHE_SIZE = 8


def window_mask(grid: Grid, window: Grid, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which keys each query of a token grid may see.

    Args:
        grid: Tokens (t, h, w); token index n runs in raster order.
        window: Box (t, h, w) in tokens, odd on every axis.
        device: Where the mask is made.

    Returns:
        Bool `n n`, [query, key], true where |dt|, |dy|, |dx| are at most half the box.
    """
    axes = []
    for size, extent in zip(grid, window, strict=True):
        position = torch.arange(size, device=device)
        axes.append((position[:, None] - position[None, :]).abs() <= extent // 2)
    mask_t, mask_h, mask_w = axes
    mask = (
        mask_t[:, None, None, :, None, None]
        & mask_h[None, :, None, None, :, None]
        & mask_w[None, None, :, None, None, :]
    )
    return rearrange(mask, "tq hq wq tk hk wk -> (tq hq wq) (tk hk wk)")


@functools.lru_cache(maxsize=MASK_CACHE_SIZE)
def _cached_mask(grid: Grid, window: Grid, device: torch.device) -> torch.Tensor:
    # A mask born in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(mode=False):
        return window_mask(grid, window, device)


def dense_window_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, grid: Grid, window: Grid
) -> torch.Tensor:
    """Masked dense attention: the reference, and the fastest way for small grids.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys, like `q`.
        v: Values, like `q`.
        grid: Tokens (t, h, w).
        window: Box (t, h, w) in tokens, odd on every axis.

    Returns:
        `b k n d`.
    """
    mask = _cached_mask(tuple(grid), tuple(window), q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
