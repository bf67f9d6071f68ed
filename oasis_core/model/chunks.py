"""What one chunk of a clip leaves to the next: the keys and values of every block.

A model that works chunk by chunk attends to the chunk at hand and to some frames before it. What it
needs of those is an explicit value, passed in and handed back; none is a clip's beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..config import ModelConfig


def chunk_spans(config: ModelConfig, num_latents: int) -> list[tuple[int, int]]:
    """Latent frames [start, stop) of each chunk that a model works on at once."""
    if not config.chunk_latents:
        return [(0, num_latents)]
    first = config.first_chunk_latents or config.chunk_latents
    starts = [0, *range(first, num_latents, config.chunk_latents)]
    stops = [*starts[1:], num_latents]
    return list(zip(starts, stops, strict=True))


def whole_chunks(config: ModelConfig, num_latents: int) -> int:
    """To how many latent frames a clip is filled up: whole blocks, and a first chunk at least."""
    if not config.is_sparse:
        return num_latents
    step = config.patch_size[0] * config.block_size[0]
    return max(config.first_chunk_latents, -(-num_latents // step) * step)


class KeyValues(NamedTuple):
    """Keys and values of one block's self-attention over some frames."""

    keys: Tensor
    """`b k n c`, normalised and rotated to their positions in the clip."""
    values: Tensor
    """`b k n c`."""


class ChunkKeys:
    """What one block sees of the chunk before, and what it leaves of this one.

    Calling the block twice leaves the same, so a call that failed may be repeated.

    Args:
        past: Of the frames before; None at the beginning of a clip.
        num_kept: Tokens, counted from this chunk's last, that the next chunk needs; None for those
            of this chunk.
    """

    def __init__(self, past: KeyValues | None, num_kept: int | None = None) -> None:
        self.past = past
        self._num_kept = num_kept
        self.kept: KeyValues | None = None
        """What the next chunk needs; None before the block has run."""

    def with_past(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `b k m c`: those of the frames before, then these `b k n c`."""
        own = KeyValues(keys, values)
        joined = own
        if self.past is not None:
            joined = KeyValues(*(torch.cat(x, dim=2) for x in zip(self.past, own, strict=True)))
        self.kept = own if self._num_kept is None else KeyValues(*map(self._last, joined))
        return tuple(joined)

    def _last(self, joined: Tensor) -> Tensor:
        if joined.shape[2] <= self._num_kept:
            return joined
        # A copy: a view would keep what is dropped alive until the next chunk.
        return joined[:, :, -self._num_kept :].clone()
