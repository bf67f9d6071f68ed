"""What one chunk of a clip leaves to the next: the keys and values of every block.

A model that works chunk by chunk attends to the chunk at hand and to the one before it. What it
needs of that one is an explicit value, passed in and handed back; none is a clip's beginning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class KeyValues(NamedTuple):
    """Keys and values of one block's self-attention over one chunk."""

    keys: Tensor
    """`b k n c`, normalised and rotated to their positions in the clip."""
    values: Tensor
    """`b k n c`."""


class ChunkKeys:
    """What one block sees of the chunk before, and what it leaves of this one.

    Calling the block twice leaves the same, so a call that failed may be repeated.

    Args:
        past: Of the chunk before; None at the beginning of a clip.
    """

    def __init__(self, past: KeyValues | None) -> None:
        self.past = past
        self.kept: KeyValues | None = None
        """What the next chunk needs; None before the block has run."""

    def with_past(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `b k m c`: those of the chunk before, then these `b k n c`."""
        self.kept = KeyValues(keys, values)
        if self.past is None:
            return keys, values
        joined = (torch.cat(pair, dim=2) for pair in zip(self.past, self.kept, strict=True))
        return tuple(joined)
