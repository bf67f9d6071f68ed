"""FlashVSR's attention: each head chooses, block by block, which blocks of keys it looks at.

Tokens are cut into blocks. A block of queries may choose among the blocks around its place in all
frames that are there; all blocks of queries of one slice in time share a number of choices, so that
one may get many and another none.

Source: FlashVSR, arXiv 2510.12747, and OpenImagingLab/FlashVSR (Apache-2.0): formulas, not code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from .attention_window import Grid
from .window_flex import FLEX_BLOCK, _compiled_flex, flex_is_available

if TYPE_CHECKING:
    from ..config import ModelConfig

REFERENCE_PIXELS = 768 * 1280
TOKEN_PIXELS = 16 * 16
MAX_DENSE_PAIRS = 1 << 21
"""Up to here one masked call costs less than choosing keys block by block."""


class SparsePattern(NamedTuple):
    """How global heads choose."""

    block: Grid
    """Tokens (t, h, w) of a block."""
    local_range: int
    """Rows and columns of blocks among which one chooses, its own in the middle."""
    ratio: float
    """Of the number of choices; see `num_choices`."""

    @classmethod
    def of(cls, config: ModelConfig) -> SparsePattern | None:
        """That of a model; None for one whose global heads see all."""
        if not config.is_sparse:
            return None
        return cls(config.block_size, config.local_range, config.sparse_ratio)

    def blocks(self, grid: Grid) -> Grid:
        """Blocks (t, h, w) of a grid of tokens.

        Raises:
            ValueError: It does not hold whole blocks.
        """
        if any(length % size for length, size in zip(grid, self.block, strict=True)):
            raise ValueError(f"grid must hold whole blocks of {self.block} tokens, got {grid}")
        return tuple(n // size for n, size in zip(grid, self.block, strict=True))

    def num_near(self, grid: Grid) -> int:
        """Pairs of blocks of one slice that lie in each other's local range."""
        _, rows, columns = self.blocks(grid)
        return int(local_blocks(rows, columns, self.local_range, torch.device("cpu")).sum())

    def num_choices(self, grid: Grid) -> int:
        """Blocks of keys that the blocks of queries of one slice have together, for each head."""
        _, rows, columns = self.blocks(grid)
        pixels = TOKEN_PIXELS * grid[1] * grid[2]
        # In this order, as published: rounding decides on one choice more or less.
        return int((rows * columns) ** 2 * (self.ratio * REFERENCE_PIXELS / pixels)) - 1


def local_blocks(rows: int, columns: int, local_range: int, device: torch.device) -> Tensor:
    """Which blocks of a slice lie in the local range of which: bool `n n`, not moved at borders."""
    place = torch.arange(rows * columns, device=device)
    near = torch.ones(len(place), len(place), dtype=torch.bool, device=device)
    for position in (place // columns, place % columns):
        offset = position[None, :] - position[:, None] + local_range // 2
        near &= (offset >= 0) & (offset < local_range)
    return near


def select_blocks(q: Tensor, k: Tensor, *, grid: Grid, pattern: SparsePattern) -> Tensor:
    """Which blocks of keys each block of queries looks at.

    Args:
        q: Queries `b k n d`, normalised and rotated, n = t h w in raster order.
        k: Keys `b k m d`: those of earlier frames in front, then like `q`.
        grid: Tokens (t, h, w) of the queries.
        pattern: How to choose.

    Returns:
        bool `b k blocks-of-q blocks-of-k`, blocks in the order (t, h, w).
    """
    slices, rows, columns = pattern.blocks(grid)
    dtype = torch.promote_types(q.dtype, torch.float32)
    means = [_in_blocks(x, grid, pattern).mean(dim=3, dtype=dtype) for x in (q, k)]
    scores = torch.einsum("bkqd,bknd->bkqn", *means) / math.sqrt(q.shape[-1])
    num_slices = scores.shape[3] // (rows * columns)
    near = local_blocks(rows, columns, pattern.local_range, q.device)
    scores = scores.masked_fill(~near.repeat(slices, num_slices), -math.inf)
    shares = rearrange(scores.softmax(dim=-1), "b k (s q) n -> b k s (q n)", s=slices)
    number = min(shares.shape[-1] - 1, max(0, pattern.num_choices(grid)))
    least = shares.topk(number + 1, dim=-1).values[..., -1:]
    return rearrange(shares > least, "b k s (q n) -> b k (s q) n", q=rows * columns)


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    grid: Grid,
    pattern: SparsePattern,
    backend: str = "auto",
) -> Tensor:
    """Attend to the tokens of the chosen blocks; a query with none gets zeros.

    Args:
        q: Queries `b k n d`, normalised and rotated, n = t h w in raster order.
        k: Keys `b k m d`: those of earlier frames in front, then like `q`.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        pattern: How blocks are chosen.
        backend: All to the same result: "dense" (masked, the reference), "halo" (block by block,
            any device), "flex" (FlexAttention) or "auto".

    Returns:
        `b k n d`.
    """
    if q.is_meta:  # no values to choose by; as much memory as if all were seen
        return F.scaled_dot_product_attention(q, k, v)
    chosen = select_blocks(q, k, grid=grid, pattern=pattern)
    blocks = [_in_blocks(x, grid, pattern) for x in (q, k, v)]
    if backend == "auto":
        backend = _choose_backend(q, k, pattern)
    attend = {"dense": _dense, "halo": _block_by_block, "flex": _flex}[backend]
    out = attend(*blocks, chosen)
    bt, bh, bw = pattern.block
    _, rows, columns = pattern.blocks(grid)
    return rearrange(
        out,
        "b k (t h w) (bt bh bw) d -> b k (t bt h bh w bw) d",
        h=rows, w=columns, bt=bt, bh=bh, bw=bw,
    )  # fmt: skip


def local_frame_attention(
    q: Tensor, k: Tensor, v: Tensor, *, grid: Grid, pattern: SparsePattern
) -> Tensor:
    """Attend inside each frame to the tokens of all blocks in the local range.

    The trained range is kept whatever the pattern: beyond it positions are unknown to the model.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys `b k m d`, those of earlier frames in front; they are not looked at.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        pattern: Blocks and range.

    Returns:
        `b k n d`.
    """
    t, h, w = grid
    q, k, v = (
        rearrange(x[:, :, -q.shape[2] :], "b k (t h w) d -> (b t) k h w d", t=t, h=h)
        for x in (q, k, v)
    )
    out, (_, bh, bw) = torch.empty_like(q), pattern.block
    before, after = pattern.local_range // 2, (pattern.local_range - 1) // 2
    for top in range(0, h, bh):
        rows = slice(max(0, top - before * bh), top + (after + 1) * bh)
        for left in range(0, w, bw):
            columns = slice(max(0, left - before * bw), left + (after + 1) * bw)
            here = (slice(None), slice(None), slice(top, top + bh), slice(left, left + bw))
            keys, values = (x[:, :, rows, columns].flatten(2, 3) for x in (k, v))
            part = F.scaled_dot_product_attention(q[here].flatten(2, 3), keys, values)
            out[here] = part.unflatten(2, (bh, bw))
    return rearrange(out, "(b t) k h w d -> b k (t h w) d", t=t)


def sparse_flops(
    grid: Grid, num_heads: int, head_size: int, pattern: SparsePattern, num_past: int
) -> int:
    """Floating-point operations of the heads that choose, if no two choices are equal.

    Args:
        grid: Tokens (t, h, w) of the queries, in whole blocks.
        num_heads: Heads.
        head_size: Channels of one head.
        pattern: How they choose.
        num_past: Frames of keys before the queries' own.
    """
    slices = pattern.blocks(grid)[0]
    there = pattern.num_near(grid) * (slices + num_past // pattern.block[0])
    chosen = min(there, max(0, pattern.num_choices(grid)))
    return 4 * head_size * num_heads * slices * chosen * math.prod(pattern.block) ** 2


# Ways to compute it


def _choose_backend(q: Tensor, k: Tensor, pattern: SparsePattern) -> str:
    if q.shape[2] * k.shape[2] <= MAX_DENSE_PAIRS:
        return "dense"
    fits = math.prod(pattern.block) == FLEX_BLOCK
    return "flex" if q.is_cuda and fits and flex_is_available() else "halo"


def _in_blocks(x: Tensor, grid: Grid, pattern: SparsePattern) -> Tensor:
    """`b k n d` in raster order as `b k blocks tokens d`; frames may be more than the grid's."""
    bt, bh, bw = pattern.block
    return rearrange(
        x,
        "b k (t bt h bh w bw) d -> b k (t h w) (bt bh bw) d",
        h=grid[1] // bh, w=grid[2] // bw, bt=bt, bh=bh, bw=bw,
    )  # fmt: skip


def _dense(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor) -> Tensor:
    """One masked call over all tokens."""
    n, m = q.shape[3], k.shape[3]
    mask = repeat(chosen, "b k q n -> b k (q i) (n j)", i=n, j=m)
    flat = (rearrange(x, "b k q n d -> b k (q n) d") for x in (q, k, v))
    out = F.scaled_dot_product_attention(*flat, attn_mask=mask)
    out = rearrange(out, "b k (q n) d -> b k q n d", n=n)
    return out.masked_fill(~chosen.any(dim=-1)[..., None, None], 0)


def _block_by_block(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor) -> Tensor:
    """One call for each block of queries, over the keys it chose."""
    out = torch.zeros_like(q)
    picks = chosen.cpu()
    for place in picks.any(dim=-1).nonzero().tolist():
        batch, head, block = place
        keys = picks[batch, head, block].nonzero()[:, 0].to(q.device)
        seen = (x[batch, head, keys].flatten(0, 1)[None] for x in (k, v))
        out[batch, head, block] = F.scaled_dot_product_attention(
            q[batch, head, block][None], *seen
        )[0]
    return out


def _flex(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, *, compiled: bool = True) -> Tensor:
    """FlexAttention over whole blocks, none of which needs a mask inside."""
    from torch.nn.attention.flex_attention import flex_attention

    flat = [rearrange(x, "b k q n d -> b k (q n) d").contiguous() for x in (q, k, v)]
    attend = _compiled_flex() if compiled else flex_attention
    out = attend(*flat, block_mask=flex_choices(chosen, q.shape[3]))
    out = rearrange(out, "b k (q n) d -> b k q n d", n=q.shape[3])
    return out.masked_fill(~chosen.any(dim=-1)[..., None, None], 0)


def flex_choices(chosen: Tensor, block: int) -> Any:
    """FlexAttention's `BlockMask` of some choices.

    Args:
        chosen: bool `b k blocks-of-q blocks-of-k`.
        block: Tokens in a block.
    """
    from torch.nn.attention.flex_attention import BlockMask

    counts = chosen.sum(dim=-1, dtype=torch.int32)
    order = chosen.to(torch.int32).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    lengths = tuple(block * n for n in chosen.shape[2:])

    def is_chosen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return chosen[batch, head, query // block, key // block]

    return BlockMask.from_kv_blocks(
        torch.zeros_like(counts),
        order.contiguous(),
        counts,
        order.contiguous(),
        BLOCK_SIZE=block,
        mask_mod=is_chosen,  # for what cannot skip blocks; whole blocks are never asked about
        seq_lengths=lengths,
    )
