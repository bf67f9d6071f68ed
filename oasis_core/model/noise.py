"""Noise that belongs to a place: the same for a segment, a tile and the whole, on any machine.

Each value is a hash of the seed and of where it lies, turned into a normal number; nothing is drawn
one after the other.

Source: the hash is the finaliser of SplitMix64 (Steele, Lea, Flood, 2014); the numbers are made by
Box and Muller's formula.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Place3 = tuple[int, int, int]

ORIGIN: Place3 = (0, 0, 0)
GOLDEN = 0x9E3779B97F4A7C15
FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
HALF_BITS = 32


def keyed_noise(
    channels: int, cells: Place3, *, at: Place3 = ORIGIN, time_step: int = 1, seed: int = 0
) -> Tensor:
    """Standard normal noise for some cells.

    Args:
        channels: c.
        cells: How many cells (t, h, w).
        at: Numbers (t, h, w) of the first.
        time_step: Numbers from one cell in time to the next.
        seed: Another one gives other noise.

    Returns:
        `1 c t h w` float32 on the CPU.
    """
    t, h, w = (
        start + step * torch.arange(length, device="cpu")
        for start, step, length in zip(at, (time_step, 1, 1), cells, strict=True)
    )
    key = _mix(torch.tensor(seed, device="cpu"))
    for axis in (torch.arange(channels, device="cpu"), t, h, w):
        key = _mix(key[..., None] + axis * _signed(GOLDEN))
    high, low = _shift(key, HALF_BITS), key & ((1 << HALF_BITS) - 1)
    uniform, angle = ((x.double() + 0.5) / 2**HALF_BITS for x in (high, low))
    return ((-2 * uniform.log()).sqrt() * (2 * math.pi * angle).cos()).float()[None]


def _mix(x: Tensor) -> Tensor:
    """A permutation of the 64-bit integers in which every bit depends on every bit."""
    x = x + _signed(GOLDEN)
    for bits, factor in FACTORS:
        x = (x ^ _shift(x, bits)) * _signed(factor)
    return x ^ _shift(x, LAST_SHIFT)


def _shift(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in: torch's own shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
