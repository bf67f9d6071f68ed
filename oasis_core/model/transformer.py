"""The diffusion transformer: stem, routed blocks, head.

Source: OASIS, arXiv 2509.23980; block order, norms, modulation and head as in Wan2.1 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import ModelConfig
from .attention import routed_attention
from .layers import FeedForward, FullWidthRMSNorm, UnshuffleStem, modulate
from .rope import apply_rope, rope_rotations

if TYPE_CHECKING:
    from .routing import HeadRouting

Grid = tuple[int, int, int]


class RoutedSelfAttention(nn.Module):
    """Self-attention whose heads are global, intra-frame or window, in this order.

    `attention_observer`, when set, is called with the normalised and rotated queries and keys
    (`b k n c` each) and the token grid; calibration uses it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.window = config.window_size
        self.counts = (config.num_heads, 0, 0)
        self.backend = "auto"
        self.attention_observer: Callable[[Tensor, Tensor, Grid], None] | None = None
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_query = FullWidthRMSNorm(config.width)
        self.norm_key = FullWidthRMSNorm(config.width)

    def forward(self, x: Tensor, grid: Grid, rotations: tuple[Tensor, Tensor]) -> Tensor:
        """Attend among tokens `b n d`."""
        heads = {"k": self.num_heads}
        q = rearrange(self.norm_query(self.query(x)), "b n (k c) -> b n k c", **heads)
        k = rearrange(self.norm_key(self.key(x)), "b n (k c) -> b n k c", **heads)
        v = rearrange(self.value(x), "b n (k c) -> b k n c", **heads)
        q, k = (rearrange(apply_rope(y, *rotations), "b n k c -> b k n c") for y in (q, k))
        if self.attention_observer is not None:
            self.attention_observer(q, k, grid)
        out = routed_attention(
            q, k, v, grid=grid, counts=self.counts, window=self.window, backend=self.backend
        )
        return self.out(rearrange(out, "b k n c -> b n (k c)"))

    def permute_heads(self, order: tuple[int, ...]) -> None:
        """Reorder the heads in the weights; the module's function does not change.

        The norms stay valid because their statistic runs over all heads together.

        Args:
            order: The current index of the head that comes first, second, ...
        """
        size = self.query.in_features // self.num_heads
        rows = torch.tensor([head * size + c for head in order for c in range(size)])
        with torch.no_grad():
            for linear in (self.query, self.key, self.value):
                linear.weight.copy_(linear.weight[rows])
                linear.bias.copy_(linear.bias[rows])
            for norm in (self.norm_query, self.norm_key):
                norm.weight.copy_(norm.weight[rows])
            self.out.weight.copy_(self.out.weight[:, rows])


class ConstantCrossAttention(nn.Module):
    """Cross-attention to a constant context whose keys and values are stored, not computed.

    Equal padding rows of a prompt collapse into one key; `log_count` holds the logarithm of how
    many rows each key stands for and is added to its logit, which is exact.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.query = nn.Linear(config.width, config.width)
        self.norm_query = FullWidthRMSNorm(config.width)
        self.out = nn.Linear(config.width, config.width)
        shape = (config.num_context_keys, config.width)
        self.context_key = nn.Parameter(torch.zeros(shape))
        self.context_value = nn.Parameter(torch.zeros(shape))
        self.register_buffer("log_count", torch.zeros(config.num_context_keys))

    def forward(self, x: Tensor) -> Tensor:
        """Attend from tokens `b n d` to the stored context."""
        q = rearrange(
            self.norm_query(self.query(self.norm(x))), "b n (k c) -> b k n c", k=self.num_heads
        )
        keys, values = (
            repeat(y.to(q.dtype), "m (k c) -> b k m c", k=self.num_heads, b=len(x))
            for y in (self.context_key, self.context_value)
        )
        bias = self.log_count.to(q.dtype).expand(q.shape[2], -1)
        out = nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
        return self.out(rearrange(out, "b k n c -> b n (k c)"))


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention, feed-forward; modulated by a constant (adaLN).

    The timestep is one fixed value, so its embedding is a constant and lives in `modulation`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(6, config.width))
        self.attention = RoutedSelfAttention(config)
        self.cross_attention = ConstantCrossAttention(config) if config.num_context_keys else None
        self.ffn = FeedForward(config.width, config.ffn_width)

    def forward(self, x: Tensor, grid: Grid, rotations: tuple[Tensor, Tensor]) -> Tensor:
        """Transform tokens `b n d`."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation
        out = self.attention(modulate(x, shift_a, scale_a), grid, rotations)
        x = torch.addcmul(x, out, gate_a.to(x.dtype))
        if self.cross_attention is not None:
            x = x + self.cross_attention(x)
        out = self.ffn(modulate(x, shift_f, scale_f))
        return torch.addcmul(x, out, gate_f.to(x.dtype))


class OasisTransformer(nn.Module):
    """A low-quality video of the target size in, a latent out, in one step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        pt, ph, pw = config.patch_size
        self.stem = UnshuffleStem(config)
        self.patch_embedding = nn.Linear(self.stem.out_channels * pt * ph * pw, config.width)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.head_modulation = nn.Parameter(torch.zeros(2, config.width))
        self.head = nn.Linear(config.width, pt * ph * pw * config.out_channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the latent.

        Args:
            video: `b 3 t h w` in [0, 1]; h and w multiples of `config.token_stride`.

        Returns:
            Stem features `(b t') c h' w'` and the prediction `(b t') out_channels h' w'`, where
            t' h' w' count stem cells.
        """
        pt, ph, pw = self.config.patch_size
        features = self.stem(video)
        patches = rearrange(
            features,
            "(b t pt) c (h ph) (w pw) -> b t h w (c pt ph pw)",
            b=len(video),
            pt=pt,
            ph=ph,
            pw=pw,
        )
        grid = patches.shape[1:4]
        rotations = rope_rotations(grid, self.config.head_size, video.device)
        x = self.patch_embedding(rearrange(patches, "b t h w c -> b (t h w) c"))
        for block in self.blocks:
            x = block(x, grid, rotations)
        x = self.head(modulate(x, *self.head_modulation))
        latent = rearrange(
            x,
            "b (t h w) (pt ph pw c) -> (b t pt) c (h ph) (w pw)",
            t=grid[0],
            h=grid[1],
            w=grid[2],
            pt=pt,
            ph=ph,
            pw=pw,
        )
        return features, latent

    def apply_routing(self, routing: HeadRouting) -> None:
        """Assign every head its pattern and make each pattern's heads contiguous.

        To be called once, on weights in their stored head order.

        Raises:
            ValueError: The routing was made for another number of layers or heads.
        """
        routing.check_fits(self.config.num_layers, self.config.num_heads)
        for layer, block in enumerate(self.blocks):
            block.attention.permute_heads(routing.permutation(layer))
            block.attention.counts = routing.counts(layer)
            block.attention.window = routing.window
