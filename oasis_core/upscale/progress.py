"""Progress inside a tile, and what a run is doing: large models take minutes for one tile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

OnStage = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all or 0) at every step of it; may raise to stop."""

MOTION_SHARE = 0.4
"""Of a tile's time that finding motion takes, until it has been measured."""


def stage_of(on_progress: Any) -> OnStage:
    """Who wants to know what a run is doing, beside how far it is.

    Args:
        on_progress: What a caller gave; its method `stage` is called if it has one.

    Returns:
        That method, or a function that does nothing.
    """
    return getattr(on_progress, "stage", tell_nobody)


def tell_nobody(stage: str, done: int, total: int) -> None:
    """Do nothing, where nobody wants to know."""


class Part:
    """Progress of a part as progress of the whole.

    Args:
        on_progress: Who wants to know of the whole; None is nobody.
        to_whole: Turns (done, in all) of the part into that of the whole.
    """

    def __init__(
        self,
        on_progress: Callable[[float, float], None] | None,
        to_whole: Callable[[float, float], tuple[float, float]],
    ) -> None:
        self._on_progress, self._to_whole = on_progress, to_whole
        self.stage = stage_of(on_progress)

    def __call__(self, done: float, total: float) -> None:
        """Report on the part."""
        if self._on_progress is not None:
            self._on_progress(*self._to_whole(done, total))


class BlockCounter:
    """Follows a model through a tile: first the motion of its frames, then its blocks.

    A block is a member of any `ModuleList`. How many calls a tile takes is learned from the first
    one (a decoder may run once per latent frame), and so is how long a block takes beside a frame's
    motion; until then every block counts once.

    Args:
        model: The model that will run.
        on_share: Called with the finished share of the tile at hand, in (0, 1); may raise to stop.
        on_stage: Called with ("motion", frames done, frames) and ("model", 0, 0); likewise.
        clock: Gives seconds.
    """

    def __init__(
        self,
        model: nn.Module,
        on_share: Callable[[float], None],
        on_stage: OnStage = tell_nobody,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # Here, so that what refuses a file for its name need not load torch.
        from torch import nn

        from ..model.motion import FrameChanges

        modules = list(model.modules())
        lists = [module for module in modules if isinstance(module, nn.ModuleList)]
        # Without any list, its layers.
        self._blocks = [block for blocks in lists for block in blocks] or [
            module for module in modules if not any(module.children())
        ]
        self._motions = [module for module in modules if isinstance(module, FrameChanges)]
        self._on_share, self._on_stage, self._clock = on_share, on_stage, clock
        self._expected = len(self._blocks)
        self._num_done = 0
        self._num_frames = self._num_moved = 0
        self._before_s = clock()
        self._spent_s = {"motion": 0.0, "model": 0.0}
        self._each_s: dict[str, float] | None = None

    def begin_tile(self) -> None:
        """Say that the next frame or block belongs to a new tile."""
        self._num_done = self._num_frames = self._num_moved = 0
        self._spent_s = {"motion": 0.0, "model": 0.0}
        self._before_s = self._clock()

    def tile_done(self) -> None:
        """Say that a tile is complete and the next block belongs to another."""
        self._expected = self._num_done or self._expected
        self._each_s = {
            "motion": self._spent_s["motion"] / max(1, self._num_moved),
            "model": self._spent_s["model"] / max(1, self._num_done),
        }
        self.begin_tile()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count while the block of code runs."""
        handles = [block.register_forward_hook(self._count) for block in self._blocks]
        handles += [layer.register_forward_hook(self._count_motion) for layer in self._motions]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, *_: object) -> None:
        self._num_done += 1
        self._spend("model")
        if self._num_done == 1 or self._num_done == self._num_frames:
            self._on_stage("model", 0, 0)
        self._on_share(self._share())

    def _count_motion(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        del layer, output
        clip, _, here, _ = inputs
        self._num_frames = len(clip)
        self._num_moved += len(here)
        self._spend("motion")
        self._on_stage("motion", min(self._num_moved, self._num_frames), self._num_frames)
        self._on_share(self._share())

    def _spend(self, stage: str) -> None:
        now_s = self._clock()
        self._spent_s[stage] += now_s - self._before_s
        self._before_s = now_s

    def _share(self) -> float:
        # One more than there are: what follows the last block takes time, too.
        num_blocks = self._expected + 1
        if self._each_s is None:
            weight = MOTION_SHARE if self._motions else 0.0
            moved = self._num_moved / max(1, self._num_frames)
            done, total = weight * moved + (1 - weight) * self._num_done / num_blocks, 1.0
        else:
            motion_s, block_s = self._each_s["motion"], self._each_s["model"]
            done = self._num_moved * motion_s + self._num_done * block_s
            total = self._num_frames * motion_s + num_blocks * block_s
        return min(done / total if total else 0.0, 0.99)
