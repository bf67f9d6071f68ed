"""Folding what is constant in one-step inference: the timestep and the text.

Both are exact: the timestep's embedding is added to the modulation it is always added to, and equal
padding rows of the prompt become one key whose logit is raised by the logarithm of their number.

Source: Wan2.1 (Apache-2.0), `wan/modules/model.py`: the prompt is padded with zero rows before the
text embedding, and no key is masked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..model.cross_attention import TextEmbedding
from ..model.layers import FullWidthRMSNorm, TimestepEmbedding

NUM_TEXT_ROWS = 512
"""Rows to which Wan pads a prompt."""

Read = Callable[[str], Tensor]
"""Reads a tensor of the unfolded transformer by its name in this project."""


def _filled(module: nn.Module, prefix: str, read: Read) -> nn.Module:
    state = {name: read(f"{prefix}.{name}").double() for name in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module


def fold_timestep(config: ModelConfig, read: Read, timestep: float) -> tuple[Tensor, Tensor]:
    """What to add to the modulation for one timestep.

    Args:
        config: Of the unfolded transformer.
        read: Reads its tensors.
        timestep: In [0, 1000].

    Returns:
        Rows `6 d` for every block and `2 d` for the head, float64.
    """
    with torch.device("meta"):
        embedding = TimestepEmbedding(config.timestep_channels, config.width)
    _filled(embedding, "timestep_embedding", read)
    with torch.inference_mode():
        head, rows = embedding(torch.tensor([timestep], dtype=torch.float64))
    return rows[0], head.expand(2, -1)


def context_rows(features: Tensor | None, channels: int) -> tuple[Tensor, Tensor]:
    """The distinct rows of a padded prompt and how often each stands there.

    Args:
        features: Text features `m c` of the prompt, unpadded or padded with zeros; None for a
            context of padding alone.
        channels: c.

    Returns:
        Rows `k c`, the padding's last, and the logarithm of their counts, `k`.

    Raises:
        ValueError: The features have another shape, or too many rows.
    """
    rows = torch.zeros(0, channels) if features is None else features.float()
    rows = rows[0] if rows.ndim == 3 and len(rows) == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != channels:
        raise ValueError(
            f"the context must be text features of shape (rows, {channels}), got "
            f"{tuple(rows.shape)}"
        )
    used = int(rows.abs().sum(dim=1).nonzero().max()) + 1 if bool(rows.any()) else 0
    if used >= NUM_TEXT_ROWS:
        raise ValueError(f"the context must leave padding, got {used} of {NUM_TEXT_ROWS} rows")
    counts = torch.tensor([1.0] * used + [float(NUM_TEXT_ROWS - used)])
    return torch.cat([rows[:used], torch.zeros(1, channels)]), counts.log()


def prompt_rows(features: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """The distinct rows of a stored prompt, as `context_rows`: zeros at its end become one.

    Args:
        features: All rows `m c` that the model was trained with, padding included.
        channels: c.

    Raises:
        ValueError: The features have another shape.
    """
    rows = features.float()
    rows = rows[0] if rows.ndim == 3 and len(rows) == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != channels or not 0 < len(rows) <= NUM_TEXT_ROWS:
        raise ValueError(
            f"the prompt must be text features of shape (1 to {NUM_TEXT_ROWS}, {channels}), got "
            f"{tuple(features.shape)}"
        )
    used = int(rows.abs().sum(dim=1).nonzero().max()) + 1 if bool(rows.any()) else 0
    num_padding = len(rows) - used
    counts = torch.tensor([1.0] * used + [float(num_padding)] * (num_padding > 0))
    return rows[: len(counts)].clone(), counts.log()


def embed_context(config: ModelConfig, read: Read, rows: Tensor) -> Tensor:
    """Text features `k c` through the text embedding: `k d`, float64."""
    with torch.device("meta"):
        embedding = TextEmbedding(config.text_channels, config.width)
    _filled(embedding, "text_embedding", read)
    with torch.inference_mode():
        return embedding(rows.double()[None])[0]


def fold_context(
    config: ModelConfig, read: Read, layer: int, context: Tensor
) -> tuple[Tensor, Tensor]:
    """Keys and values `k d` of one block for an embedded context `k d`."""
    prefix = f"blocks.{layer}.cross_attention"
    with torch.device("meta"):
        norm = FullWidthRMSNorm(config.width)
    _filled(norm, f"{prefix}.norm_key", read)

    def linear(name: str) -> Tensor:
        weight, bias = (read(f"{prefix}.{name}.{part}").double() for part in ("weight", "bias"))
        return F.linear(context, weight, bias)

    with torch.inference_mode():
        return norm(linear("key")), linear("value")
