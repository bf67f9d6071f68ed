"""Timing on devices that work in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told, so that a clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def fastest(function: Callable[[], T], device: torch.device, num_runs: int) -> tuple[float, T]:
    """Seconds of the fastest run, since others only add the machine's noise; and the last result.

    Args:
        function: What to time; it runs once more, first, to warm up.
        device: Where it works.
        num_runs: Measured runs; with 0 the one that warms up is measured.
    """
    times = []
    for _ in range(num_runs + 1):
        result = None  # the last result's memory serves the next run
        synchronize(device)
        start_s = time.perf_counter()
        result = function()
        synchronize(device)
        times.append(time.perf_counter() - start_s)
    return min(times[1:] or times), result
