"""Progress inside a tile: large models take minutes for one, and people want to see it move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


class BlockCounter:
    """Counts the blocks of a model as they finish.

    A block is a member of any `ModuleList`. How many calls a tile takes is learned from the first
    one (a decoder may run once per latent frame); until then every block counts once.

    Args:
        model: The model that will run.
        on_share: Called with the finished share of the tile at hand, in (0, 1); may raise to stop.
    """

    def __init__(self, model: nn.Module, on_share: Callable[[float], None]) -> None:
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        self._blocks = [block for blocks in lists for block in blocks]
        self._on_share = on_share
        self._expected = len(self._blocks)
        self._num_done = 0

    def tile_done(self) -> None:
        """Say that a tile is complete and the next block belongs to another."""
        self._expected = self._num_done or self._expected
        self._num_done = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count while the block of code runs."""
        handles = [block.register_forward_hook(self._count) for block in self._blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, *_: object) -> None:
        self._num_done += 1
        self._on_share(min(self._num_done / (self._expected + 1), 0.99))
