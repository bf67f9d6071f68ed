"""Gathering what a restorer gives for the tiles of a segment."""

from __future__ import annotations

import torch
from torch import Tensor

from .color_anchor import ColorAnchor
from .progress import OnStage, tell_nobody
from .tiles import Tile, TileGrid


class TileCanvas:
    """Gathers the residual, or the picture, of a segment tile by tile.

    The anchor needs all frames of the segment but only their cell means, so full pictures are
    kept for the kept frames alone.

    Args:
        size: (height, width) of the picture without padding.
        grid: Where its tiles lie.
        num_frames: Frames of the clip.
        kept: The frames whose pictures are wanted.
        anchor: What measures the cells of all frames; None measures none.
        device: Where the tiles come from.
        store: Where the picture is gathered.
        dtype: How it is held while it is gathered.
    """

    def __init__(
        self,
        size: tuple[int, int],
        grid: TileGrid,
        num_frames: int,
        kept: range,
        anchor: ColorAnchor | None,
        device: torch.device,
        *,
        store: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.size = size
        self.is_whole = grid.num_tiles == 1
        self.kept = kept
        self.anchor = anchor
        self.num_frames = num_frames
        if anchor is not None:
            self.cells = torch.zeros(num_frames, 3, *anchor.shape, device=device)
        else:
            self.sums = torch.zeros(len(kept), device=device)
        if not self.is_whole:
            self.content = torch.zeros(3, len(kept), *self.size, dtype=dtype, device=store)

    def add(self, content: Tensor, tile: Tile, on_stage: OnStage = tell_nobody) -> None:
        """Add what one tile gave, `3 t h w`."""
        height, width = self.size
        num_rows = min(tile.height, height - tile.top)
        num_columns = min(tile.width, width - tile.left)
        content = content[..., :num_rows, :num_columns]
        if self.is_whole:
            self.content = content[:, self.kept.start : self.kept.stop]
        weight = tile.weight_rows[:num_rows] * tile.weight_columns[:, :num_columns]
        rows = slice(tile.top, tile.top + num_rows)
        columns = slice(tile.left, tile.left + num_columns)
        for index in range(self.num_frames):
            on_stage("blend", index, self.num_frames)
            is_kept = index in self.kept
            if self.anchor is None and not is_kept:
                continue
            frame = content[:, index].to(torch.float32)
            if not self.is_whole:
                frame = frame * weight
                if is_kept:
                    part = self.content[:, index - self.kept.start, rows, columns]
                    part += frame.to(part.device)
            if self.anchor is not None:
                self.cells[index] += self.anchor.measure(frame, tile.top, tile.left)
            if is_kept and self.anchor is None:
                self.sums[index - self.kept.start] += frame.sum()

    def result(self) -> tuple[Tensor, Tensor | None, list[int]]:
        """What was gathered.

        Returns:
            `3 t h w` of the kept frames; cells to remove from them, if there is an anchor; and the
            frames that are not finite, counted from the first kept.
        """
        kept = slice(self.kept.start, self.kept.stop)
        # NaN and infinity survive any sum, so a few numbers per frame tell. Those of the halo
        # count too: smoothing in time would carry them into kept frames.
        sums = self.sums if self.anchor is None else self.cells.sum(dim=(1, 2, 3))
        bad = not_finite(sums, 0 if self.anchor is None else self.kept.start)
        cells = None if self.anchor is None else self.anchor.smooth(self.cells, kept)
        return self.content, cells, bad


def not_finite(sums: Tensor, before: int) -> list[int]:
    """Which of some sums `t` are NaN or infinite, counted from number `before` of them."""
    return [int(index) - before for index in (~torch.isfinite(sums)).nonzero().flatten()]


def canvas_dtype(dtype: torch.dtype) -> torch.dtype:
    """How what many tiles give is held while it is gathered.

    Half precision is a hundred times finer than what a model in bfloat16 or float16 resolves.
    """
    return torch.float32 if dtype == torch.float32 else torch.float16
