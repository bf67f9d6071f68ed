"""How many threads many small operations deserve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

VALUES_PER_THREAD = 1 << 21
"""Of one operation. Between two small ones threads wait for each other, and where other programs
want the same cores, that is most of the time: with two threads on two busy cores, Lucas-Kanade of a
pair of 640x360 took 27 times the processor time it took with one, of 1920x1080 three times."""


@contextmanager
def few_threads(num_values: int, device: torch.device) -> Iterator[None]:
    """Let operations in the block use as many threads as are worth their waiting.

    Args:
        num_values: Numbers that a typical operation of the block works on.
        device: Where; on an accelerator nothing changes.
    """
    before = torch.get_num_threads()
    wanted = max(1, min(before, num_values // VALUES_PER_THREAD))
    if device.type != "cpu" or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
