"""Sums over square windows, which motion and optical flow both need."""

from __future__ import annotations

from torch import Tensor


def running_sums(fields: Tensor, dim: int, radius: int) -> Tensor:
    """Sums of 2 * radius + 1 neighbours, built from sums of 1, 2, 4, ... of them.

    Args:
        fields: Any shape, at least as long as a window along `dim`.
        dim: Axis to sum along; it gets 2 * radius shorter.
        radius: Neighbours on each side.
    """
    width = 2 * radius + 1
    length = fields.shape[dim] - width + 1
    total, start, span, sums = None, 0, 1, fields
    while span <= width:
        if width & span:
            piece = sums.narrow(dim, start, length)
            total = piece.clone() if total is None else total.add_(piece)
            start += span
        span *= 2
        if span <= width:
            count = fields.shape[dim] - span + 1
            sums = sums.narrow(dim, 0, count) + sums.narrow(dim, span // 2, count)
    return total
