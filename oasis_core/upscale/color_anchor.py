"""Colour anchor: the low frequencies of the result are those of the input.

A restoration model may drift: a tint, a brightness step, a flicker of whole areas. Its residual
should hold detail only, so what the residual says about large areas is taken out of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# At 64 output pixels a cell is far coarser than anything denoising or deblurring changes, and
# finer than a tint or a shading error.
CELL_PX = 64
# Weights of the frames around one frame; must not reach further than the usual halo, because the
# halo frames are what makes the smoothing independent of where segments begin.
TIME_KERNEL = (1.0, 2.0, 3.0, 2.0, 1.0)


class ColorAnchor:
    """Measures and removes the low frequencies of a residual, over the whole picture.

    The picture is divided into equal cells. `pool` takes the mean of each cell and `spread` is the
    smooth (piecewise bilinear) field with *exactly* these cell means: bilinear interpolation
    combined with the inverse of (pool after interpolate). Removing it is therefore a projection,
    and the means of the result equal those of the input. Everything is separable, so both are two
    thin matrix products per channel.

    In time the removed field is a short weighted mean over neighbouring frames, halo included,
    clipped at the ends of the shot: slow drift goes, while the removal of the source's own
    frame-to-frame noise stays. The mean over the whole frame is removed frame by frame, so that the
    picture never flickers more than its source.

    Args:
        height: Rows of the picture without padding.
        width: Columns of the picture without padding.
        device: Where the residual is.
        cell_px: Side of a cell in output pixels, about.
    """

    def __init__(
        self, height: int, width: int, device: torch.device, cell_px: int = CELL_PX
    ) -> None:
        pool_rows, spread_rows = _axis_matrices(height, cell_px)
        pool_columns, spread_columns = _axis_matrices(width, cell_px)
        self.pool_rows = pool_rows.to(device)
        self.pool_columns = pool_columns.T.contiguous().to(device)
        self.spread_rows = spread_rows.to(device)
        self.spread_columns = spread_columns.T.contiguous().to(device)
        self.shape = (pool_rows.shape[0], pool_columns.shape[0])

    def measure(self, frame: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """Cell means that a piece of one frame contributes.

        Args:
            frame: `c h w`, float32: weighted residual of a tile, or the whole residual.
            top: First row of the piece.
            left: First column of the piece.

        Returns:
            `c h' w'` cells; the contributions of all pieces add up.
        """
        rows = self.pool_rows[:, top : top + frame.shape[1]]
        columns = self.pool_columns[left : left + frame.shape[2]]
        return torch.matmul(torch.matmul(rows, frame[:, : rows.shape[1], : len(columns)]), columns)

    def smooth(self, cells: Tensor, keep: slice) -> Tensor:
        """What to remove from each kept frame.

        Args:
            cells: `t c h' w'` of all frames of a segment, halo included.
            keep: Frames wanted.

        Returns:
            `t c h' w'` of the kept frames.
        """
        num_frames, radius = len(cells), len(TIME_KERNEL) // 2
        positions = torch.arange(num_frames, device=cells.device)
        distance = positions[keep][:, None] - positions[None, :]
        kernel = torch.tensor(TIME_KERNEL, device=cells.device)
        weights = kernel[(distance + radius).clamp(0, 2 * radius)] * (distance.abs() <= radius)
        weights = weights / weights.sum(dim=1, keepdim=True)
        smoothed = torch.einsum("st,tchw->schw", weights, cells)
        drift = cells[keep].mean(dim=(2, 3), keepdim=True)
        return smoothed + drift - smoothed.mean(dim=(2, 3), keepdim=True)

    def remove_(self, frame: Tensor, cells: Tensor, strength: float) -> None:
        """Subtract the smooth field with these cell means from a frame, in place.

        Args:
            frame: `c h w`, float32.
            cells: `c h' w'` from `smooth`.
            strength: Share of the residual that `frame` contains.
        """
        rows = torch.matmul(self.spread_rows, cells)
        columns = self.spread_columns.expand(len(frame), -1, -1)
        frame.baddbmm_(rows, columns, alpha=-strength)


def _axis_matrices(length: int, cell_px: int) -> tuple[Tensor, Tensor]:
    """Pooling `cells length` and spreading `length cells` along one axis, float32."""
    num_cells = max(1, round(length / cell_px))
    edges = torch.linspace(0, length, num_cells + 1, dtype=torch.float64)
    pixels = torch.arange(length, dtype=torch.float64)
    covered = torch.minimum(pixels + 1, edges[1:, None]) - torch.maximum(pixels, edges[:-1, None])
    pool = covered.clamp(min=0) * num_cells / length
    position = ((pixels + 0.5) * num_cells / length - 0.5).clamp(0, num_cells - 1)
    cells = torch.arange(num_cells, dtype=torch.float64)
    interpolate = (1 - (position[:, None] - cells).abs()).clamp(min=0)
    spread = interpolate @ torch.linalg.inv(pool @ interpolate)
    return pool.to(torch.float32), spread.to(torch.float32)
