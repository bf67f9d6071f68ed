"""Cross-attention: to a context that is stored, or to one that is given.

Source: block order, norms and text embedding as in Wan2.1 (Apache-2.0).
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import FullWidthRMSNorm, precise_dtype


class TextEmbedding(nn.Module):
    """Text features to the model's width: two linear layers around a tanh-approximated GELU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, width)
        self.contract = nn.Linear(width, width)

    def forward(self, context: Tensor) -> Tensor:
        """Embed `b m c` as `b m d`."""
        return self.contract(nn.functional.gelu(self.expand(context), approximate="tanh"))


class CrossAttention(nn.Module):
    """What the cross-attention to a stored and to a given context share: queries and output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.is_precise = config.is_latent
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.query = nn.Linear(config.width, config.width)
        self.norm_query = FullWidthRMSNorm(config.width, is_precise=config.is_latent)
        self.out = nn.Linear(config.width, config.width)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Attend from tokens `b n d` to `b m d`; `bias` `m` is added to the logits."""
        normed = self.norm(x.to(precise_dtype(x))).to(x.dtype) if self.is_precise else self.norm(x)
        q = self.norm_query(self.query(normed))
        q, keys, values = (
            rearrange(y.to(q.dtype), "b m (k c) -> b k m c", k=self.num_heads)
            for y in (q, keys, values)
        )
        mask = None if bias is None else bias.to(q.dtype).expand(q.shape[2], -1)
        out = nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.out(rearrange(out, "b k n c -> b n (k c)"))


class ConstantCrossAttention(CrossAttention):
    """Cross-attention to a constant context whose keys and values are stored, not computed.

    Equal padding rows of a prompt collapse into one key; `log_count` holds the logarithm of how
    many rows each key stands for and is added to its logit, which is exact.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        shape = (config.num_context_keys, config.width)
        self.context_key = nn.Parameter(torch.zeros(shape))
        self.context_value = nn.Parameter(torch.zeros(shape))
        self.register_buffer("log_count", torch.zeros(config.num_context_keys))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from tokens `b n d` to the stored context; `context` is not looked at."""
        keys, values = (
            repeat(y, "m d -> b m d", b=len(x)) for y in (self.context_key, self.context_value)
        )
        return self.attend(x, keys, values, self.log_count)


class TextCrossAttention(CrossAttention):
    """Cross-attention to a context given at run time, as Wan2.1 was trained."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.norm_key = FullWidthRMSNorm(config.width, is_precise=config.is_latent)

    def embed(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `b m d` of an embedded context `b m d`: the same for all tokens."""
        return self.norm_key(self.key(context)), self.value(context)

    def forward(self, x: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """Attend from tokens `b n d` to what `embed` made of the context, without a mask."""
        return self.attend(x, *context, None)


def build_cross_attention(config: ModelConfig) -> CrossAttention | None:
    """The cross-attention that a configuration asks for."""
    if config.text_channels:
        return TextCrossAttention(config)
    return ConstantCrossAttention(config) if config.num_context_keys else None
