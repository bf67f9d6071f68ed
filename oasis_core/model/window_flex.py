"""Window attention through FlexAttention: the fast path on CUDA, never required.

FlexAttention is imported on first use only, since importing it takes long and old torch lacks it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange

from .attention_window import MASK_CACHE_SIZE, Grid

FLEX_BLOCK = 128


def flex_is_available() -> bool:
    """Whether this torch has FlexAttention with block masks of any length."""
    try:
        from torch.nn.attention.flex_attention import BlockMask
    except ImportError:
        return False
    return "seq_lengths" in inspect.signature(BlockMask.from_kv_blocks).parameters


def flex_block_lists(grid: Grid, window: Grid, block: int = FLEX_BLOCK) -> tuple[torch.Tensor, ...]:
    """Which blocks of keys each block of queries touches, by integer arithmetic alone.

    Testing every pair of 32,400 tokens, as `create_block_mask` does, was measured at 56 s on a CPU.

    Args:
        grid: Tokens (t, h, w), in raster order.
        window: Box (t, h, w) in tokens, odd on every axis.
        block: Tokens in a block.

    Returns:
        Two bool tensors `queryblock keyblock`: some pairs are visible; all pairs are visible.
    """
    t, h, w = grid
    radius_t, radius_h, radius_w = (size // 2 for size in window)
    num_tokens, num_blocks = t * h * w, -(-(t * h * w) // block)
    # Runs of queries that share a block and a row: they start where a block or a row starts.
    cuts = torch.cat([torch.arange(0, num_tokens, block), torch.arange(0, num_tokens, w)])
    starts = torch.unique(cuts)
    stops = torch.cat([starts[1:], torch.tensor([num_tokens])]) - 1
    run_t, run_h, run_w = starts // (h * w), starts // w % h, starts % w
    left = (run_w - radius_w).clamp(min=0)
    right = (run_w + stops - starts + radius_w).clamp(max=w - 1)
    touched = torch.zeros(num_blocks, num_blocks, dtype=torch.bool)
    for dt in range(-min(radius_t, t - 1), min(radius_t, t - 1) + 1):
        for dh in range(-min(radius_h, h - 1), min(radius_h, h - 1) + 1):
            key_t, key_h = run_t + dt, run_h + dh
            inside = (key_t >= 0) & (key_t < t) & (key_h >= 0) & (key_h < h)
            row = (key_t * h + key_h) * w
            first, last = (row + left) // block, (row + right) // block
            for offset in range((block + 2 * radius_w) // block + 2):
                hit = inside & (first + offset <= last)
                touched[(starts // block)[hit], (first + offset)[hit]] = True
    token = torch.arange(num_blocks * block).clamp(max=num_tokens - 1)
    full = touched.clone()
    for position, radius in (
        (token // (h * w), radius_t), (token // w % h, radius_h), (token % w, radius_w)
    ):  # fmt: skip
        low, high = rearrange(position, "(m n) -> m n", n=block).aminmax(dim=1)
        full &= (high[:, None] - low[None, :] <= radius) & (high[None, :] - low[:, None] <= radius)
    if num_tokens % block:
        full[-1], full[:, -1] = False, False
    return touched, full


@functools.lru_cache(maxsize=MASK_CACHE_SIZE)
def flex_block_mask(grid: Grid, window: Grid, device: torch.device) -> Any:
    """FlexAttention's `BlockMask` of a window, built from `flex_block_lists`."""
    from torch.nn.attention.flex_attention import BlockMask

    _, h, w = grid
    radius_t, radius_h, radius_w = (size // 2 for size in window)

    def is_visible(
        _b: torch.Tensor, _k: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        near_t = (query // (h * w) - key // (h * w)).abs() <= radius_t
        near_h = (query // w % h - key // w % h).abs() <= radius_h
        return near_t & near_h & ((query % w - key % w).abs() <= radius_w)

    with torch.inference_mode(mode=False):
        touched, full = flex_block_lists(grid, window)
        lists = []
        for blocks in (touched & ~full, full):
            counts = blocks.sum(dim=1, dtype=torch.int32)
            order = blocks.to(torch.int32).argsort(dim=1, descending=True, stable=True)
            lists += [counts[None, None], order.to(torch.int32)[None, None]]
        length = grid[0] * h * w
        return BlockMask.from_kv_blocks(
            *(x.to(device).contiguous() for x in lists),
            BLOCK_SIZE=FLEX_BLOCK,
            mask_mod=is_visible,
            seq_lengths=(length, length),
        )


@functools.lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., torch.Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex_window_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    grid: Grid,
    window: Grid,
    num_past: int = 0,
    compiled: bool = True,
) -> torch.Tensor:
    """Window attention by FlexAttention; needs torch 2.6 or later and, when compiled, a compiler.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys `b k m d`: those of `num_past` frames before the queries, then like `q`.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        window: Box (t, h, w) in tokens, odd on every axis.
        num_past: Frames of keys that lie before the queries' own; their queries are computed with
            the others and thrown away, so that the mask stays a square one.
        compiled: Compile; without it every score is materialised, which only tests can afford.

    Returns:
        `b k n d`.
    """
    from torch.nn.attention.flex_attention import flex_attention

    num_queries = q.shape[2]
    if num_past:
        unwanted = q.new_zeros(*q.shape[:2], k.shape[2] - num_queries, q.shape[3])
        q = torch.cat([unwanted, q], dim=2)
    block_mask = flex_block_mask((num_past + grid[0], *grid[1:]), tuple(window), q.device)
    attend = _compiled_flex() if compiled else flex_attention
    return attend(q, k, v, block_mask=block_mask)[:, :, -num_queries:]
