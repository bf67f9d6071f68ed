"""Window attention: every query sees the keys of a small box of tokens around it.

The box is centred on the query and clipped at the borders of the grid, so a corner token has fewer
keys than an inner one. `dense_window_attention` defines the result; `halo_window_attention` equals
it at a cost that grows with the number of tokens, not with its square.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch.utils.checkpoint import checkpoint

Grid: TypeAlias = tuple[int, int, int]

MASK_CACHE_SIZE = 8

# Query tile (rows, columns). On a CPU small tiles win: they waste the fewest scores, and batches of
# tiny products still run at two thirds of the peak. An accelerator wants larger products.
CPU_TILE = (2, 4)
ACCELERATOR_TILE = (4, 8)

# Scores held at once: about 1 MB in float32, so that a chunk stays in a CPU's cache.
CPU_CHUNK_SCORES = 300_000
ACCELERATOR_CHUNK_SCORES = 50_000_000


def window_mask(
    grid: Grid, window: Grid, device: torch.device | str = "cpu", num_past: int = 0
) -> torch.Tensor:
    """Which keys each query of a token grid may see.

    Args:
        grid: Tokens (t, h, w) of the queries; token index n runs in raster order.
        window: Box (t, h, w) in tokens, odd on every axis.
        device: Where the mask is made.
        num_past: Frames of keys that lie before the queries' own.

    Returns:
        Bool `n m`, [query, key], true where |dt|, |dy|, |dx| are at most half the box.
    """
    axes = []
    for axis, (size, extent) in enumerate(zip(grid, window, strict=True)):
        past = num_past if axis == 0 else 0
        key = torch.arange(past + size, device=device)
        axes.append((key[past:, None] - key[None, :]).abs() <= extent // 2)
    mask_t, mask_h, mask_w = axes
    mask = (
        mask_t[:, None, None, :, None, None]
        & mask_h[None, :, None, None, :, None]
        & mask_w[None, None, :, None, None, :]
    )
    return rearrange(mask, "tq hq wq tk hk wk -> (tq hq wq) (tk hk wk)")


@functools.lru_cache(maxsize=MASK_CACHE_SIZE)
def _cached_mask(grid: Grid, window: Grid, device: torch.device, num_past: int) -> torch.Tensor:
    # A mask born in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(mode=False):
        return window_mask(grid, window, device, num_past)


def dense_window_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    grid: Grid,
    window: Grid,
    num_past: int = 0,
) -> torch.Tensor:
    """Masked dense attention: the reference, and the fastest way for small grids.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys `b k m d`: those of `num_past` frames before the queries, then like `q`.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        window: Box (t, h, w) in tokens, odd on every axis.
        num_past: Frames of keys that lie before the queries' own.

    Returns:
        `b k n d`.
    """
    mask = _cached_mask(tuple(grid), tuple(window), q.device, num_past)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@dataclass(frozen=True, slots=True)
class _Tiling:
    """Integers of the halo layout: the grid cut into strips of columns, strips into query tiles.

    A strip of keys is stored `row, slot, column`, where a slot holds one frame of the window; so
    the keys of a query tile are one contiguous run of rows, and neighbouring tiles are overlapping
    views of the same memory. Strips follow each other at a pitch of `strip_rows`, the empty rows
    below one serving as the rows above the next, so all tiles of all heads form one uniform batch.
    """

    grid: Grid
    window: Grid
    tile: tuple[int, int]
    num_past: int = 0
    """Frames of keys before the queries' own."""

    @property
    def num_key_frames(self) -> int:
        """Frames of keys."""
        return self.num_past + self.grid[0]

    @property
    def radius(self) -> Grid:
        """Half the window (t, h, w)."""
        return (self.window[0] // 2, self.window[1] // 2, self.window[2] // 2)

    @property
    def num_slots(self) -> int:
        """Frames kept: frame t of the keys lies in slot t modulo this."""
        return min(2 * self.radius[0] + 1, self.num_key_frames)

    @property
    def num_strips(self) -> int:
        """Strips of `tile[1]` query columns across the width."""
        return -(-self.grid[2] // self.tile[1])

    @property
    def strip_rows(self) -> int:
        """Rows from one strip to the next."""
        return -(-(self.grid[1] + self.radius[1]) // self.tile[0]) * self.tile[0]

    @property
    def key_columns(self) -> int:
        """Columns of a key strip."""
        return self.tile[1] + 2 * self.radius[2]

    @property
    def key_rows(self) -> int:
        """Rows of keys that one query tile reads."""
        return self.tile[0] + 2 * self.radius[1]

    def num_tiles(self, num_strips: int) -> int:
        """Query tiles, unused ones at the seams included, of some strips."""
        return num_strips * self.strip_rows // self.tile[0]

    def frames(self, t: int) -> range:
        """Frames of keys that the queries of frame t may see."""
        at = self.num_past + t
        return range(max(0, at - self.radius[0]), min(self.num_key_frames, at + self.radius[0] + 1))


def _tiling(grid: Grid, window: Grid, device: torch.device, num_past: int = 0) -> _Tiling:
    tile = CPU_TILE if device.type == "cpu" else ACCELERATOR_TILE
    return _Tiling(tuple(grid), tuple(window), tile, num_past)


def halo_pairs(grid: Grid, window: Grid, device: torch.device) -> int:
    """Pairs of tokens that one head of `halo_window_attention` multiplies, masked ones included."""
    tiling = _tiling(grid, window, device)
    keys = tiling.key_rows * tiling.num_slots * tiling.key_columns
    queries = tiling.num_tiles(tiling.num_strips) * tiling.tile[0] * tiling.tile[1]
    return grid[0] * queries * keys


def halo_window_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    grid: Grid,
    window: Grid,
    num_past: int = 0,
) -> torch.Tensor:
    """Window attention by small query tiles against their haloed keys; runs on every device.

    Low-precision inputs are computed in float32 on a CPU, where that is as fast. With gradients the
    frames are recomputed in the backward pass, so memory does not grow with their number.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys `b k m d`: those of `num_past` frames before the queries, then like `q`.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        window: Box (t, h, w) in tokens, odd on every axis.
        num_past: Frames of keys that lie before the queries' own.

    Returns:
        `b k n d`, in the dtype of `q`.
    """
    tiling = _tiling(grid, window, q.device, num_past)
    num_heads, (_, h, w) = q.shape[1], grid
    split = [rearrange(x, "b k (t h w) d -> (b k) t h w d", h=h, w=w) for x in (q, k, v)]
    # q, k and v have their final dtype here: autocast must not lower the products again.
    with torch.autocast(q.device.type, enabled=False):
        if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
            output = _halo_differentiable(*split, tiling)
        else:
            output = _halo_inference(*split, tiling)
    return rearrange(output, "(b k) t h w d -> b k (t h w) d", k=num_heads)


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    is_low = x.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if is_low and x.device.type == "cpu" else x.dtype


def _halo_bias(
    tiling: _Tiling, strips: range, visible_slots: Sequence[bool], like: torch.Tensor
) -> torch.Tensor:
    """Zero where a query of a tile sees a key, hugely negative elsewhere: `(x y) q keys`."""
    (_, h, w), (_, radius_h, radius_w), (tile_h, tile_w) = tiling.grid, tiling.radius, tiling.tile
    rows = torch.arange(tiling.strip_rows, device=like.device)
    query_h = rearrange(rows, "(y q) -> y q 1", q=tile_h)
    key_h = query_h[:, :1] - radius_h + torch.arange(tiling.key_rows, device=like.device)
    mask_h = ((query_h - key_h).abs() <= radius_h) & (key_h >= 0) & (key_h < h)
    starts = torch.arange(strips.start, strips.stop, device=like.device)[:, None, None] * tile_w
    query_w = starts + torch.arange(tile_w, device=like.device)[:, None]
    key_w = starts - radius_w + torch.arange(tiling.key_columns, device=like.device)
    mask_w = ((query_w - key_w).abs() <= radius_w) & (key_w >= 0) & (key_w < w)
    slots = torch.tensor(visible_slots, device=like.device)
    mask = (
        rearrange(mask_h, "y qh r -> 1 y qh 1 r 1 1")
        & rearrange(mask_w, "x qw c -> x 1 1 qw 1 1 c")
        & rearrange(slots, "s -> s 1")
    )
    mask = rearrange(mask, "x y qh qw r s c -> (x y) (qh qw) (r s c)")
    # Half the lowest number: a score may be added without overflow, and a tile without any key
    # (a seam, thrown away later) stays finite, also in the backward pass.
    lowest = torch.finfo(like.dtype).min / 2
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill_(~mask, lowest)


class _HaloChunk:
    """The buffers for some heads and strips, reused for every frame and for the next strips.

    What an earlier use left outside the grid is finite and masked, so nothing is ever cleared.
    """

    def __init__(
        self, tiling: _Tiling, num_heads: int, num_strips: int, like: torch.Tensor
    ) -> None:
        self.tiling, self.num_heads, self.num_strips = tiling, num_heads, num_strips
        self.dtype, self.scale = _compute_dtype(like), like.shape[-1] ** -0.5
        size, (tile_h, tile_w) = like.shape[-1], tiling.tile
        self.keys, self.key_tiles = self._ring(like)
        self.values, self.value_tiles = self._ring(like)
        num_rows = num_heads * num_strips * tiling.strip_rows
        # Zeros: the rows between strips are read, and must be finite although they are masked.
        self.queries = like.new_zeros(num_rows * tile_w * size, dtype=self.dtype)
        shape = (num_rows // tile_h, tile_h * tile_w)
        self.query_tiles = self.queries.view(*shape, size)
        self.scores = like.new_empty(*shape, self.key_tiles.shape[1], dtype=self.dtype)
        self.output_tiles = torch.empty_like(self.query_tiles)
        view = (num_heads, num_strips, tiling.strip_rows, tile_w, size)
        self.query_strips = self.queries.view(view)[:, :, : tiling.grid[1]]
        self.output_strips = self.output_tiles.view(view)[:, :, : tiling.grid[1]]
        self.biases: dict[tuple, torch.Tensor] = {}

    def _ring(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A buffer as `k x row slot column d` strips, and as overlapping `tile key d` views."""
        tiling, size, slots = self.tiling, like.shape[-1], self.tiling.num_slots
        num_rows = self.num_heads * self.num_strips * tiling.strip_rows
        row_size = slots * tiling.key_columns * size
        margin = tiling.radius[1] * row_size
        buffer = like.new_zeros(num_rows * row_size + 2 * margin, dtype=self.dtype)
        strips = buffer[margin : margin + num_rows * row_size].view(
            self.num_heads, self.num_strips, tiling.strip_rows, slots, tiling.key_columns, size
        )[:, :, : tiling.grid[1]]
        tiles = buffer.as_strided(
            (num_rows // tiling.tile[0], tiling.key_rows * slots * tiling.key_columns, size),
            (tiling.tile[0] * row_size, size, 1),
        )
        return strips, tiles

    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        output: torch.Tensor,
        strips: range,
    ) -> None:
        """Write some strips of `output`; all are `k t h w d`, of this chunk's number of heads."""
        loaded = 0
        for t in range(self.tiling.grid[0]):
            for frame in range(loaded, self.tiling.frames(t).stop):
                self._load(k[:, frame], v[:, frame], frame % self.tiling.num_slots, strips)
            loaded = self.tiling.frames(t).stop
            self._attend(q[:, t], output[:, t], strips, self._bias(t, strips))

    def _load(self, k: torch.Tensor, v: torch.Tensor, slot: int, strips: range) -> None:
        tiling = self.tiling
        for i, strip in enumerate(strips):
            first = strip * tiling.tile[1] - tiling.radius[2]
            start, stop = max(0, first), min(tiling.grid[2], first + tiling.key_columns)
            inside = slice(start - first, stop - first)
            self.keys[:, i, :, slot, inside].copy_(k[:, :, start:stop])
            self.values[:, i, :, slot, inside].copy_(v[:, :, start:stop])

    def _bias(self, t: int, strips: range) -> torch.Tensor:
        tiling = self.tiling
        frames, slots = {f % tiling.num_slots for f in tiling.frames(t)}, range(tiling.num_slots)
        visible = tuple(slot in frames for slot in slots)
        width, radius = tiling.tile[1], tiling.radius[2]
        at_edge = strips.start * width < radius or strips.stop * width + radius > tiling.grid[2]
        key = (visible, strips if at_edge else None)
        if key not in self.biases:
            self.biases[key] = _halo_bias(tiling, strips, visible, self.query_tiles)
        return self.biases[key]

    def _attend(
        self, q: torch.Tensor, output: torch.Tensor, strips: range, bias: torch.Tensor
    ) -> None:
        width = self.tiling.tile[1]
        columns = [slice(x * width, min(self.tiling.grid[2], (x + 1) * width)) for x in strips]
        for i, column in enumerate(columns):
            part = q[:, :, column]
            torch.mul(part, self.scale, out=self.query_strips[:, i, :, : part.shape[2]])
        torch.bmm(self.query_tiles, self.key_tiles.transpose(1, 2), out=self.scores)
        rearrange(self.scores, "(k m) q s -> k m q s", k=self.num_heads).add_(bias)
        weights = torch.softmax(self.scores, dim=-1)
        torch.bmm(weights, self.value_tiles, out=self.output_tiles)
        for i, column in enumerate(columns):
            part = output[:, :, column]
            part.copy_(self.output_strips[:, i, :, : part.shape[2]])


def _halo_inference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tiling: _Tiling
) -> torch.Tensor:
    """The fast path, in chunks of heads and strips that fit the cache; all `k t h w d`."""
    budget = CPU_CHUNK_SCORES if q.device.type == "cpu" else ACCELERATOR_CHUNK_SCORES
    scores = tiling.num_tiles(1) * tiling.tile[0] * tiling.tile[1]
    scores *= tiling.key_rows * tiling.num_slots * tiling.key_columns
    num_heads = max(1, min(q.shape[0], budget // scores))
    num_strips = max(1, min(tiling.num_strips, budget // (scores * num_heads)))
    output = torch.empty_like(q)
    for first in range(0, q.shape[0], num_heads):
        head = slice(first, min(q.shape[0], first + num_heads))
        chunk = None
        for x in range(0, tiling.num_strips, num_strips):
            strips = range(x, min(tiling.num_strips, x + num_strips))
            if chunk is None or chunk.num_strips != len(strips):
                chunk = _HaloChunk(tiling, head.stop - head.start, len(strips), q)
            chunk.run(q[head], k[head], v[head], output[head], strips)
    return output


def _halo_differentiable(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tiling: _Tiling
) -> torch.Tensor:
    """The same layout without writing into buffers, frame by frame; all `k t h w d`."""
    outputs, biases = [], {}
    dtype = _compute_dtype(q)
    for t in range(tiling.grid[0]):
        frames = tiling.frames(t)
        if len(frames) not in biases:
            like = torch.empty((), dtype=dtype, device=q.device)
            biases[len(frames)] = _halo_bias(
                tiling, range(tiling.num_strips), [True] * len(frames), like
            )
        near = slice(frames.start, frames.stop)
        args = (q[:, t], k[:, near], v[:, near], biases[len(frames)], tiling)
        outputs.append(checkpoint(_halo_frame, *args, use_reentrant=False))
    return torch.stack(outputs, dim=1).to(q.dtype)


def _halo_frame(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, tiling: _Tiling
) -> torch.Tensor:
    """Queries `k h w d` of one frame against keys `k s h w d` of its window's frames."""
    (_, h, w), (tile_h, tile_w) = tiling.grid, tiling.tile
    num_heads, pad_w = q.shape[0], tiling.num_strips * tile_w - w
    pad_h = tiling.strip_rows - h

    def key_tiles(x: torch.Tensor) -> torch.Tensor:
        radius_h, radius_w = tiling.radius[1:]
        x = F.pad(x.to(bias.dtype), (0, 0, radius_w, radius_w + pad_w, 0, pad_h))
        x = x.unfold(3, tiling.key_columns, tile_w)
        rows = rearrange(x, "k s h x d c -> (k x h) (s c d)")
        tiles = F.pad(rows, (0, 0, radius_h, radius_h)).unfold(0, tiling.key_rows, tile_h)
        return rearrange(tiles, "b (s d) r -> b (r s) d", d=q.shape[-1])

    queries = F.pad(q.to(bias.dtype) * q.shape[-1] ** -0.5, (0, 0, 0, pad_w, 0, pad_h))
    queries = rearrange(queries, "k (y a) (x c) d -> (k x y) (a c) d", a=tile_h, c=tile_w)
    with torch.autocast(q.device.type, enabled=False):
        scores = torch.bmm(queries, key_tiles(k).transpose(1, 2))
        scores = scores + repeat(bias, "m q s -> (k m) q s", k=num_heads)
        output = torch.bmm(torch.softmax(scores, dim=-1), key_tiles(v))
    sizes = {"k": num_heads, "x": tiling.num_strips, "a": tile_h}
    output = rearrange(output, "(k x y) (a c) d -> k (y a) (x c) d", **sizes)
    return output[:, :h, :w]
