"""The diffusion transformer: stem, routed blocks, head.

Source: OASIS, arXiv 2509.23980; block order, norms, modulation and head as in Wan2.1 (Apache-2.0).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import ModelConfig
from .attention import routed_attention
from .chunks import ChunkKeys, KeyValues, chunk_spans
from .cross_attention import TextEmbedding, build_cross_attention
from .layers import (
    FeedForward,
    FullWidthRMSNorm,
    TimestepEmbedding,
    UnshuffleStem,
    add_gated,
    modulate,
)
from .rope import apply_rope, rope_rotations
from .sparse_attention import SparsePattern
from .weight_precision import raised, run_in_dtype

if TYPE_CHECKING:
    from .routing import HeadRouting

Grid = tuple[int, int, int]

FFN_PIECE_TOKENS = 8192
"""Enough rows to keep any device busy."""


class RoutedSelfAttention(nn.Module):
    """Self-attention whose heads are global, intra-frame or window, in this order.

    `attention_observer`, when set, is called with the normalised and rotated queries and keys
    (`b k n c`, keys of an earlier chunk in front) and the queries' token grid; calibration uses it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.window = config.window_size
        self.sparse = SparsePattern.of(config)
        self.counts = (config.num_heads, 0, 0)
        self.backend = "auto"
        self.is_precise = config.is_latent
        self.attend = routed_attention
        self.attention_observer: Callable[[Tensor, Tensor, Grid], None] | None = None
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_query = FullWidthRMSNorm(config.width, is_precise=config.is_latent)
        self.norm_key = FullWidthRMSNorm(config.width, is_precise=config.is_latent)

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        rotations: tuple[Tensor, Tensor],
        chunk: ChunkKeys | None = None,
    ) -> Tensor:
        """Attend among tokens `b n d`, and to those of frames before, where there are chunks."""
        heads = {"k": self.num_heads}
        q = rearrange(self.norm_query(self.query(x)), "b n (k c) -> b n k c", **heads)
        k = rearrange(self.norm_key(self.key(x)), "b n (k c) -> b n k c", **heads)
        v = rearrange(self.value(x), "b n (k c) -> b k n c", **heads)
        q, k = (
            rearrange(apply_rope(y, *rotations, is_precise=self.is_precise), "b n k c -> b k n c")
            for y in (q, k)
        )
        options = {"window": self.window, "backend": self.backend}
        if chunk is not None:
            k, v = chunk.with_past(k, v)
            options["num_past"] = (k.shape[2] - q.shape[2]) // (grid[1] * grid[2])
        if self.sparse is not None:
            options["sparse"] = self.sparse
        if self.attention_observer is not None:
            self.attention_observer(q, k, grid)
        out = self.attend(q, k, v, grid=grid, counts=self.counts, **options)
        return self.out(rearrange(out, "b k n c -> b n (k c)"))

    def permute_heads(self, order: tuple[int, ...]) -> None:
        """Reorder the heads in the weights; the module's function does not change.

        The norms stay valid because their statistic runs over all heads together.

        Args:
            order: The current index of the head that comes first, second, ...
        """
        if tuple(order) == tuple(range(self.num_heads)):
            return
        size = self.query.in_features // self.num_heads
        rows = torch.tensor([head * size + c for head in order for c in range(size)])
        with torch.no_grad():
            for part in (self.query, self.key, self.value, self.norm_query, self.norm_key):
                # All that a layer holds is one entry a row: weight, bias, an 8-bit matrix's scale.
                for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                    tensor.copy_(tensor[rows])
            self.out.weight.copy_(self.out.weight[:, rows])


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention, feed-forward; modulated (adaLN).

    With one fixed timestep its embedding is a constant and lives in `modulation`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_precise = config.is_latent
        self.modulation = nn.Parameter(torch.zeros(6, config.width))
        self.attention = RoutedSelfAttention(config)
        self.cross_attention = build_cross_attention(config)
        tokens_per_piece = FFN_PIECE_TOKENS if config.is_latent else 0
        self.ffn = FeedForward(config.width, config.ffn_width, tokens_per_piece)

    def forward(
        self,
        x: Tensor,
        grid: Grid,
        rotations: tuple[Tensor, Tensor],
        embedding: Tensor | None = None,
        context: tuple[Tensor, Tensor] | None = None,
        chunk: ChunkKeys | None = None,
    ) -> Tensor:
        """Transform tokens.

        Args:
            x: `b n d`.
            grid: Tokens (t, h, w).
            rotations: From `rope_rotations`.
            embedding: Timestep's rows `b 6 d`, added to the modulation.
            context: Keys and values `b m d` of the context, for models that take one.
            chunk: What the chunk before left, for models that work in chunks.
        """
        rows, is_precise = add_rows(self.modulation, embedding), self.is_precise
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = rows
        out = modulate(x, shift_a, scale_a, is_precise=is_precise)
        out = self.attention(out, grid, rotations, chunk)
        x = add_gated(x, out, gate_a, is_precise=is_precise)
        if self.cross_attention is not None:
            x = x + self.cross_attention(x, context)
        out = self.ffn(modulate(x, shift_f, scale_f, is_precise=is_precise))
        return add_gated(x, out, gate_f, is_precise=is_precise)


def add_rows(modulation: Tensor, embedding: Tensor | None) -> Tensor:
    """Modulation rows `m d`, or `m b 1 d` with the timestep's `b m d` added."""
    if embedding is None:
        return modulation
    return rearrange(modulation, "m d -> m 1 1 d") + rearrange(embedding, "b m d -> m b 1 d")


class OasisTransformer(nn.Module):
    """A low-quality video of the target size in, a latent out, in one step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        pt, ph, pw = config.patch_size
        self.stem = UnshuffleStem(config)
        self.patch_embedding = nn.Linear(self.stem.out_channels * pt * ph * pw, config.width)
        self.timestep_embedding = self.text_embedding = None
        if config.timestep_channels:
            self.timestep_embedding = TimestepEmbedding(config.timestep_channels, config.width)
        if config.text_channels:
            self.text_embedding = TextEmbedding(config.text_channels, config.width)
        self.routing: HeadRouting | None = None
        """The routing that is applied, in the stored head order; None before the first."""
        self.head_orders: list[tuple[int, ...]] = []
        """Per layer, the stored head that stands first, second, ... in the weights now."""
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.head_modulation = nn.Parameter(torch.zeros(2, config.width))
        self.head = nn.Linear(config.width, pt * ph * pw * config.out_channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._forget_order()
        self.register_load_state_dict_post_hook(_forget_order)

    def forward(
        self,
        video: Tensor,
        *,
        timestep: Tensor | None = None,
        context: Tensor | None = None,
        guide: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the latent.

        Args:
            video: `b 3 t h w` in [0, 1], h and w multiples of `config.token_stride`; with the stem
                "latent" the normalised latent `b c t' h' w'` instead, in whole patches; with
                "noise" noise of that shape, in whole chunks and blocks.
            timestep: `b` in [0, 1000], for a model that embeds it; None for its fixed one.
            context: Text features `b m c`, for a model that takes them.
            guide: Tokens `b t h w d` that are added to the embedded ones, for a model with a
                projector.

        Returns:
            Stem features `(b t') c h' w'` and the prediction `(b t') out_channels h' w'`, where
            t' h' w' count stem cells.

        Raises:
            ValueError: A timestep or context is given to a model that does not take it, or a
                needed context is missing.
        """
        self._check_conditions(timestep, context)
        features = self.stem(video)
        cells = rearrange(features, "(b t) c h w -> b t c h w", b=len(video))
        rows = self._embed_timestep(video, timestep)
        contexts = self._embed_context(context, video.dtype)
        if not self.config.chunk_latents:
            return features, self._predict(cells, rows, contexts)
        latents: list[Tensor] = []
        past: list[KeyValues | None] = [None] * len(self.blocks)
        for start, stop in chunk_spans(self.config, cells.shape[1]):
            piece = cells[:, start:stop]
            added = None if guide is None else guide[:, start:stop]
            latent = self._predict(piece, rows, contexts, start, past, added)
            latents.append(rearrange(latent, "(b t) c h w -> b t c h w", b=len(video)))
        return features, rearrange(torch.cat(latents, dim=1), "b t c h w -> (b t) c h w")

    def _predict(
        self,
        cells: Tensor,
        rows: tuple[Tensor | None, Tensor | None],
        contexts: list[tuple[Tensor, Tensor] | None],
        start: int = 0,
        past: list[KeyValues | None] | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """The head's prediction `(b t) c h w` for cells `b t c h w`, the clip's from `start` on.

        `past` holds what each block left of the frames before, and afterwards what it leaves of
        these; block by block, so that old and new are never held both: they are gigabytes. `added`
        `b t h w d` is added to the embedded patches.
        """
        pt, ph, pw = self.config.patch_size
        patches = rearrange(
            cells,
            "b (t pt) c (h ph) (w pw) -> b t h w (c pt ph pw)",
            pt=pt,
            ph=ph,
            pw=pw,
        )
        grid, is_precise = patches.shape[1:4], self.config.is_latent
        rotations = rope_rotations(
            grid, self.config.head_size, cells.device, is_precise=is_precise, first=start // pt
        )
        run = run_in_dtype if is_precise else _run
        head_row, block_rows = rows
        x = run(self.patch_embedding, rearrange(patches, "b t h w c -> b (t h w) c"))
        if added is not None:
            x = x + rearrange(added, "b t h w d -> b (t h w) d")
        kept = self.config.kept_latents // pt * grid[1] * grid[2] or None
        for index, (block, context) in enumerate(zip(self.blocks, contexts, strict=True)):
            chunk = None if past is None else ChunkKeys(past[index], kept)
            x = run(block, x, grid, rotations, block_rows, context, chunk)
            if chunk is not None:
                past[index] = chunk.kept
        rows = add_rows(self.head_modulation, head_row)
        x = run(self.head, modulate(x, *rows, is_precise=is_precise))
        return rearrange(
            x,
            "b (t h w) (pt ph pw c) -> (b t pt) c (h ph) (w pw)",
            t=grid[0],
            h=grid[1],
            w=grid[2],
            pt=pt,
            ph=ph,
            pw=pw,
        )

    def _check_conditions(self, timestep: Tensor | None, context: Tensor | None) -> None:
        if timestep is not None and self.timestep_embedding is None:
            raise ValueError(
                f"timestep must be left out: it is folded into {self.config.name} as "
                f"{self.config.timestep:g}; convert without folding to vary it"
            )
        if (context is None) != (self.text_embedding is None):
            verb = "must be given to" if context is None else "must be left out, it is fixed in"
            raise ValueError(f"context {verb} {self.config.name}")

    def _embed_timestep(
        self, video: Tensor, timestep: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Rows `b 2 d` for the head and `b 6 d` for the blocks; None each if they are folded."""
        if self.timestep_embedding is None:
            return None, None
        if timestep is None:
            timestep = torch.full((len(video),), self.config.timestep, device=video.device)
        head, rows = self.timestep_embedding(timestep)
        return repeat(head, "b d -> b two d", two=2), rows

    def _embed_context(
        self, context: Tensor | None, dtype: torch.dtype
    ) -> list[tuple[Tensor, Tensor] | None]:
        """Keys and values of a given context for every block; None each without one."""
        if context is None:
            return [None] * len(self.blocks)
        is_lowered = self.config.is_latent and not torch.is_grad_enabled()
        run, embedded = run_in_dtype if self.config.is_latent else _run, []
        context = run(self.text_embedding, context)
        for block in self.blocks:
            part = block.cross_attention
            with raised(part, dtype) if is_lowered else contextlib.nullcontext():
                embedded.append(part.embed(context))
        return embedded

    def apply_routing(self, routing: HeadRouting) -> None:
        """Assign every head its pattern and make each pattern's heads contiguous.

        May be called again with another routing: the network remembers where its heads stand.

        Args:
            routing: In the stored head order, that of the weights when they were loaded.

        Raises:
            ValueError: The routing was made for another number of layers or heads.
        """
        routing.check_fits(self.config.num_layers, self.config.num_heads)
        for layer, block in enumerate(self.blocks):
            wanted = routing.permutation(layer)
            stands = {head: place for place, head in enumerate(self.head_orders[layer])}
            block.attention.permute_heads(tuple(stands[head] for head in wanted))
            self.head_orders[layer] = wanted
            block.attention.counts = routing.counts(layer)
            block.attention.window = routing.window
        self.routing = routing

    def settle_heads(self) -> None:
        """Take the order in which the heads stand now for their stored one, to train or save."""
        if self.routing is not None:
            self.routing = self.routing.permuted(self.head_orders)
        self._forget_order()

    def _forget_order(self) -> None:
        """Heads stand as they are stored: weights that are loaded come in an order of their own."""
        heads = tuple(range(self.config.num_heads))
        self.head_orders = [heads] * self.config.num_layers


def _forget_order(transformer: OasisTransformer, _: object) -> None:
    """A hook after loading; a function of the module, so that networks can be pickled."""
    transformer._forget_order()


def _run(module: nn.Module, *args: object) -> Tensor:
    return module(*args)
