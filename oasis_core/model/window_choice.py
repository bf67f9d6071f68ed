"""Which window backend is the fastest here: measured once for each shape, then remembered.

Which one wins depends on the GPU, the grid and the number of heads: tiles do a quarter of the
operations of FlexAttention up to 1080p, but copy keys and values nine times.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Mapping

import torch

from .timing import fastest

logger = logging.getLogger(__name__)

NUM_RUNS = 3


def fastest_backend(
    shape: Hashable,
    candidates: Mapping[str, Callable[[], torch.Tensor]],
    device: torch.device,
) -> str:
    """Name of the candidate that takes the least time for a shape.

    The first candidate is the one that works everywhere: its failures are the caller's. Another
    that fails, in compiling or for lack of memory, is left out, with one line in the log.

    Args:
        shape: What the answer depends on: grid, window, heads, dtype, device.
        candidates: Ways to compute the same, by name.
        device: Where they run.
    """
    measured = _measured()
    if shape not in measured:
        measured[shape] = _measure(candidates, device)
    return measured[shape]


def _measure(candidates: Mapping[str, Callable[[], torch.Tensor]], device: torch.device) -> str:
    seconds: dict[str, float] = {}
    for name, run in candidates.items():
        try:
            seconds[name], _ = fastest(run, device, NUM_RUNS)
        except Exception as error:
            # A compiler can fail in any way, and the first candidate needs none.
            if not seconds:
                raise
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
            logger.warning("window backend %s failed and is left out (%s)", name, reason)
    best = min(seconds, key=seconds.__getitem__)
    times = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
    logger.info("window attention: %s (%s)", best, times)
    return best


@functools.lru_cache(maxsize=1)
def _measured() -> dict[Hashable, str]:
    """What was measured in this process."""
    return {}
