"""How much each attention head would lose under a cheaper pattern: KL divergences by sampling.

For a query with attention p over all keys and the mass m of p inside a pattern's mask, the local
attention is p renormalised inside the mask, and KL(local || global) = -ln m. That is a difference
of two log-sum-exps, so no attention map is ever formed.

Source: OASIS (arXiv 2509.23980); the direction of the KL and the normalisation are this project's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from einops import rearrange
from torch import nn

from .attention_window import Grid
from .routing_checks import (
    as_triple,
    check_grid,
    check_keys,
    check_window,
    is_number,
    table_by,
    table_rows,
    table_shape,
)
from .sparse_attention import SparsePattern, select_blocks

Pairs: TypeAlias = tuple[tuple[tuple[float, float], ...], ...]

KEYS_PER_CHUNK = 4096
LEAST_MASS = 1e-4
"""Of a query's attention; a pattern that holds none of the chosen keys would lose infinitely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadDistances:
    """How much of its attention each head loses under each cheaper pattern."""

    raw: Pairs
    """Layers x heads x (intra, window): mean of KL(local || global) in nats."""
    normalized: Pairs
    """The same over ln(N / |M|): 0 loses nothing, 1 is what uniform attention loses. There is no
    upper bound: a head that looks mostly outside of the pattern is above 1."""
    grid: Grid
    """Tokens (t, h, w) at which they were measured; the raw values grow with it."""
    window: Grid
    """Box (t, h, w) in tokens."""

    def __post_init__(self) -> None:
        check_grid("grid", self.grid)
        check_window(self.window)
        shape = table_shape("distances", self.raw)
        shape_normalized = table_shape("normalized distances", self.normalized)
        if shape_normalized != shape:
            raise ValueError(
                "normalized distances must have as many layers and heads as the raw ones, got "
                f"{table_by(shape_normalized)} and {table_by(shape)}"
            )
        for row in (*self.raw, *self.normalized):
            for pair in row:
                if len(pair) != 2 or not all(is_number(value) for value in pair):
                    raise ValueError(
                        f"each head's distances must be two finite numbers (intra, window), got "
                        f"{pair!r:.60}"
                    )

    def to_json(self) -> dict[str, Any]:
        """The distances as plain JSON values."""
        return {
            "raw": [[list(pair) for pair in row] for row in self.raw],
            "normalized": [[list(pair) for pair in row] for row in self.normalized],
            "grid": list(self.grid),
            "window": list(self.window),
        }

    @classmethod
    def from_json(cls, values: Any) -> HeadDistances:
        """Read `to_json`'s values.

        Raises:
            ValueError: A key is missing or unknown, or a value is out of range.
        """
        check_keys("routing distances", values, {"raw", "normalized", "grid", "window"}, set())
        pairs = {}
        for name in ("raw", "normalized"):
            rows = table_rows(f"{name} distances", values[name])
            if not all(isinstance(pair, list) for row in rows for pair in row):
                raise ValueError(f"{name} distances must hold a pair of numbers for every head")
            pairs[name] = tuple(tuple(tuple(pair) for pair in row) for row in rows)
        return cls(**pairs, grid=as_triple(values["grid"]), window=as_triple(values["window"]))


class SampledDistances(NamedTuple):
    """Means over sampled queries; each `k`, in nats."""

    intra: torch.Tensor
    """KL(local || global) of the intra-frame pattern."""
    window: torch.Tensor
    """The same of the window."""
    uniform_intra: float
    """What uniform attention would lose under the intra-frame pattern: mean ln(N / |M|)."""
    uniform_window: float
    """The same under the window, with the true clipped sizes of the sampled queries."""

    @property
    def normalized_intra(self) -> torch.Tensor:
        """The intra-frame distance over its uniform value; 0 where the mask holds every key."""
        return _ratio(self.intra, self.uniform_intra)

    @property
    def normalized_window(self) -> torch.Tensor:
        """The window distance over its uniform value; 0 where the mask holds every key."""
        return _ratio(self.window, self.uniform_window)


def head_distances(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    grid: Grid,
    window: Grid,
    num_queries: int,
    generator: torch.Generator,
    num_past: int = 0,
    keys_per_chunk: int = KEYS_PER_CHUNK,
    sparse: SparsePattern | None = None,
) -> SampledDistances:
    """Measure the heads of one layer from sampled queries, streaming over the keys.

    Args:
        q: Queries `b k n d`, normalised and rotated, n = t h w in raster order.
        k: Keys `b k m d`: those of `num_past` frames before the queries, then like `q`.
        grid: Tokens (t, h, w) of the queries.
        window: Box (t, h, w) in tokens, odd on every axis.
        num_queries: Queries sampled without replacement; all of them if there are fewer.
        generator: CPU generator that draws the queries.
        num_past: Frames of keys that lie before the queries' own.
        keys_per_chunk: Keys looked at together; changes memory, not the result.
        sparse: How global heads choose blocks of keys, which then are all there is: a pattern is
            measured by what of the chosen keys it holds, and a query that would keep less than
            `LEAST_MASS` of its attention counts as keeping that much.

    Returns:
        The distances of every head, averaged over the batch and the queries.
    """
    num_tokens = k.shape[2]
    chosen = torch.randperm(q.shape[2], generator=generator)[:num_queries].to(q.device)
    dtype = torch.promote_types(q.dtype, torch.float32)
    queries = q[:, :, chosen].to(dtype) * q.shape[-1] ** -0.5
    token = torch.arange(num_tokens, device=q.device)
    seen = None if sparse is None else _ChosenKeys(q, k, grid, sparse, chosen)
    # Counted among the keys, where a query has its own place behind the past.
    chosen = chosen + num_past * grid[1] * grid[2]
    total, intra, box = (queries.new_full(queries.shape[:3], -math.inf) for _ in range(3))
    shape = q.shape[:2] if sparse is not None else (1, 1)
    size_total, size_intra, size_box = (
        torch.zeros(*shape, len(chosen), device=q.device) for _ in range(3)
    )
    # Autocast would round the scores, and the distances are differences of close numbers.
    with torch.autocast(q.device.type, enabled=False):
        for keys in token.split(keys_per_chunk):
            part = k[:, :, keys[0] : keys[-1] + 1].to(dtype)
            scores = torch.einsum("bkqd,bknd->bkqn", queries, part)
            masks = [x[None, None] for x in _pattern_masks(chosen, keys, grid, window)]
            if seen is None:
                size_total += len(keys)
            else:
                mask = seen.among(keys)
                scores = scores.masked_fill(~mask, -math.inf)
                masks = [x & mask for x in masks]
                size_total += mask.sum(dim=-1)
            total = torch.logaddexp(total, scores.logsumexp(dim=-1))
            size_intra += masks[0].sum(dim=-1)
            size_box += masks[1].sum(dim=-1)
            intra = torch.logaddexp(intra, _masked_logsumexp(scores, masks[0]))
            box = torch.logaddexp(box, _masked_logsumexp(scores, masks[1]))
    most = math.inf if sparse is None else -math.log(LEAST_MASS)
    # A query that chose nothing attends to nothing: there is nothing to lose.
    is_there = total != -math.inf
    return SampledDistances(
        intra=_mean_loss(total - intra, is_there, most),
        window=_mean_loss(total - box, is_there, most),
        uniform_intra=_uniform_loss(size_total, size_intra, most),
        uniform_window=_uniform_loss(size_total, size_box, most),
    )


class _ChosenKeys:
    """The keys that some queries look at, by the blocks that global heads chose."""

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        grid: Grid,
        sparse: SparsePattern,
        queries: torch.Tensor,
    ) -> None:
        self._grid, self._block = grid, sparse.block
        chosen = select_blocks(q, k, grid=grid, pattern=sparse)
        self._rows = chosen[:, :, self._block_of(queries)]

    def among(self, keys: torch.Tensor) -> torch.Tensor:
        """Bool `b k q n` for some of the keys."""
        return self._rows[..., self._block_of(keys)]

    def _block_of(self, tokens: torch.Tensor) -> torch.Tensor:
        (_, h, w), (bt, bh, bw) = self._grid, self._block
        rows, columns = h // bh, w // bw
        place = tokens // (h * w) // bt, tokens // w % h // bh, tokens % w // bw
        return (place[0] * rows + place[1]) * columns + place[2]


def _mean_loss(loss: torch.Tensor, is_there: torch.Tensor, most: float) -> torch.Tensor:
    """Mean over batch and queries of a divergence `b k q`, `k`; nothing is lost of nothing."""
    loss = loss.clamp(min=0, max=most)
    return loss.where(is_there, torch.zeros_like(loss)).mean(dim=(0, 2))


def _uniform_loss(total: torch.Tensor, inside: torch.Tensor, most: float) -> float:
    """What uniform attention over `total` keys would lose if `inside` were left of them."""
    loss = (total.double() / inside.double()).log().clamp(max=most)
    return float(loss.where(total > 0, torch.zeros_like(loss)).mean())


def measure_distances(
    model: nn.Module,
    clips: Iterable[torch.Tensor],
    *,
    window: Grid,
    seed: int,
    num_queries: int,
    head_order: Sequence[Sequence[int]] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> HeadDistances:
    """Run clips through a model and measure every head of it.

    Args:
        model: An `OasisModel`, meant to be routed all-global: a head that is already local is
            measured by what it would attend to, on inputs that its locality has shaped.
        clips: Videos `b 3 t h w` in [0, 1], all of one size, a multiple of the token stride.
        window: Box (t, h, w) in tokens.
        seed: Seed of the sampled queries.
        num_queries: Queries sampled per layer and clip.
        head_order: Per layer, the stored head that stands first, second, ... in the model; None
            asks the model. The result is in the stored order.
        on_progress: Called with the number of clips done.

    Returns:
        The distances, averaged over the clips.

    Raises:
        ValueError: There are no clips, their sizes differ, or the model's queries or keys hold
            NaN or infinity.
    """
    layers = [block.attention for block in model.transformer.blocks]
    generator = torch.Generator().manual_seed(seed)
    samples: list[list[SampledDistances]] = [[] for _ in layers]
    grids: set[Grid] = set()
    pieces: list[Grid] = []

    def observe(layer: int, q: torch.Tensor, k: torch.Tensor, grid: Grid) -> None:
        # A model that works in chunks comes by once for each.
        if layer == 0:
            pieces.append(tuple(grid))
        sample = head_distances(
            q,
            k,
            grid=grid,
            window=window,
            num_queries=num_queries,
            generator=generator,
            num_past=(k.shape[2] - q.shape[2]) // (grid[1] * grid[2]),
            sparse=layers[layer].sparse,
        )
        samples[layer].append(sample)

    device = next(model.parameters()).device
    with _observed(model, observe), torch.inference_mode():
        for done, clip in enumerate(clips, start=1):
            # Attention is all that counts, so nothing is decoded.
            clip = clip.to(device)
            clip = model.in_blocks(clip)
            model.transformer(
                model.encode(clip), context=model.context(clip), guide=model.guide(clip)
            )
            grids.add((sum(t for t, _, _ in pieces), *pieces[0][1:]))
            pieces.clear()
            if on_progress is not None:
                on_progress(done)
    if len(grids) != 1:
        raise ValueError(
            f"calibration needs at least one clip and all of one size, got the token grids "
            f"{sorted(grids)[:4]}"
        )
    orders = model.transformer.head_orders if head_order is None else head_order
    return _average(samples, grids.pop(), window, orders)


@contextmanager
def _observed(
    model: nn.Module, observe: Callable[[int, torch.Tensor, torch.Tensor, Grid], None]
) -> Iterator[None]:
    """Show every layer's queries and keys, in evaluation mode; the model is left as it was."""
    layers = [block.attention for block in model.transformer.blocks]
    before = [layer.attention_observer for layer in layers]
    was_training = model.training
    try:
        model.eval()
        for index, layer in enumerate(layers):
            layer.attention_observer = functools.partial(observe, index)
        yield
    finally:
        model.train(was_training)
        for layer, observer in zip(layers, before, strict=True):
            layer.attention_observer = observer


def _average(
    samples: list[list[SampledDistances]],
    grid: Grid,
    window: Grid,
    head_order: Sequence[Sequence[int]],
) -> HeadDistances:
    raw, normalized = [], []
    for layer, parts in enumerate(samples):
        intra, box = (torch.stack([part[i] for part in parts]).mean(dim=0) for i in (0, 1))
        if not bool((intra + box).isfinite().all()):
            raise ValueError(
                f"the attention of layer {layer} must be finite, got NaN or infinity; "
                "the weights or the clips are broken"
            )
        uniform = [sum(part[i] for part in parts) / len(parts) for i in (2, 3)]
        mean = SampledDistances(intra.cpu(), box.cpu(), *uniform)
        order = head_order[layer]
        position = sorted(range(len(intra)), key=lambda head: order[head])
        for table, columns in (
            (raw, (mean.intra, mean.window)),
            (normalized, (mean.normalized_intra, mean.normalized_window)),
        ):
            pairs = torch.stack(columns, dim=1)[position].tolist()
            table.append(tuple(tuple(round(x, 6) for x in pair) for pair in pairs))
    return HeadDistances(raw=tuple(raw), normalized=tuple(normalized), grid=grid, window=window)


def _pattern_masks(
    queries: torch.Tensor, keys: torch.Tensor, grid: Grid, window: Grid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which keys lie in the same frame and in the window: two bool `q n`."""
    _, h, w = grid
    query = torch.stack([queries // (h * w), queries // w % h, queries % w])
    key = torch.stack([keys // (h * w), keys // w % h, keys % w])
    offset = (rearrange(query, "a q -> a q 1") - rearrange(key, "a n -> a 1 n")).abs()
    radius = torch.tensor([size // 2 for size in window], device=queries.device)
    return offset[0] == 0, (offset <= rearrange(radius, "a -> a 1 1")).all(dim=0)


def _masked_logsumexp(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~mask, -math.inf).logsumexp(dim=-1)


def _ratio(distance: torch.Tensor, uniform: float) -> torch.Tensor:
    return distance / uniform if uniform > 0 else torch.zeros_like(distance)
