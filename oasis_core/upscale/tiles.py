"""Blending tiles with weights that sum to exactly 1 and never fade at the picture's own edge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import TileAxis, plan_tile_axis

# Weights are multiples of 1/4096: products of two and their sums are then exact in float32, so
# that "sums to 1" is an equality and not a tolerance.
WEIGHT_UNITS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One tile: where it lies and how much it counts in each of its pixels."""

    top: int
    left: int
    height: int
    width: int
    weight_rows: Tensor
    """`h 1`, float32."""
    weight_columns: Tensor
    """`1 w`, float32."""

    @property
    def rows(self) -> slice:
        """The tile's rows in the picture."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The tile's columns in the picture."""
        return slice(self.left, self.left + self.width)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """All tiles of a picture; the same for every frame."""

    vertical: TileAxis
    horizontal: TileAxis

    @property
    def num_tiles(self) -> int:
        """Tiles of the picture."""
        return len(self.vertical.starts) * len(self.horizontal.starts)

    def scaled(self, scale: int) -> TileGrid:
        """The same tiles of a picture with `scale` times the pixels per side."""
        return TileGrid(self.vertical.scaled(scale), self.horizontal.scaled(scale))

    def tiles(self, device: torch.device) -> Iterator[Tile]:
        """The tiles in raster order, weights on `device`."""
        rows, columns = axis_weights(self.vertical), axis_weights(self.horizontal)
        for top, row in zip(self.vertical.starts, rows, strict=True):
            for left, column in zip(self.horizontal.starts, columns, strict=True):
                yield Tile(
                    top,
                    left,
                    self.vertical.tile,
                    self.horizontal.tile,
                    row[:, None].to(device),
                    column[None, :].to(device),
                )


def plan_tiles(
    height: int, width: int, tile: tuple[int, int], overlap_px: int, stride: tuple[int, int]
) -> TileGrid:
    """Lay tiles over a padded picture.

    Args:
        height: Rows, a multiple of the token height.
        width: Columns, a multiple of the token width.
        tile: (height, width) of a tile; a picture side that is not longer gets one tile.
        overlap_px: Pixels that neighbours share.
        stride: Token (height, width) in pixels.
    """
    return TileGrid(
        plan_tile_axis(height, tile[0], overlap_px, stride[0]),
        plan_tile_axis(width, tile[1], overlap_px, stride[1]),
    )


def axis_weights(axis: TileAxis) -> list[Tensor]:
    """Weight of each tile along one axis, float32 of `axis.tile` values.

    A raised cosine inside each seam, 1 or 0 outside; at every pixel the weights of all tiles sum
    to exactly 1.
    """
    weights = [torch.full((axis.tile,), WEIGHT_UNITS, dtype=torch.int64) for _ in axis.starts]
    for index, (start, stop) in enumerate(axis.seams):
        fade_in = torch.tensor(_raised_cosine(stop - start), dtype=torch.int64)
        first, second = weights[index], weights[index + 1]
        in_first, in_second = start - axis.starts[index], start - axis.starts[index + 1]
        first[in_first : in_first + len(fade_in)] = WEIGHT_UNITS - fade_in
        first[in_first + len(fade_in) :] = 0
        second[:in_second] = 0
        second[in_second : in_second + len(fade_in)] = fade_in
    return [weight.to(torch.float32) / WEIGHT_UNITS for weight in weights]


def _raised_cosine(length: int) -> list[int]:
    phases = (math.pi * (index + 0.5) / length for index in range(length))
    return [round(WEIGHT_UNITS * (0.5 - 0.5 * math.cos(phase))) for phase in phases]
