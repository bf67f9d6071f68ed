"""A clip as tiles that anything may work on, and their exact, seamless way back.

Tiles lie on a grid of 16 pixels and neighbours overlap. Whatever keeps the size of the tiles, or
scales all of them by the same sixteenths, can be undone to one picture: places stay whole pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from ..geometry import TileAxis, padding_indices, round_up, shots_from_cuts
from .progress import OnStage, Part, tell_nobody
from .shots import find_cuts
from .tiles import TileGrid, plan_tiles

if TYPE_CHECKING:
    from .upscaler import VideoUpscaler

TILE_GRID_PX = 16
"""Scales in sixteenths keep tiles on whole pixels."""
LEAST_TILE_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TiledClip:
    """Tiles of one clip and where they belong."""

    height: int
    """Of the picture that was split, in pixels."""
    width: int
    """Of the picture that was split, in pixels."""
    grid: TileGrid
    """Where the tiles lie in that picture, padded to the grid."""
    cuts: tuple[int, ...]
    """First frames of all shots but the first."""
    clips: tuple[Tensor, ...]
    """Tiles in raster order, all `1 c t h w`."""

    def __repr__(self) -> str:
        _, _, num_frames, height, width = self.clips[0].shape
        return f"{len(self.clips)} tiles of {num_frames} frames, {width}x{height} px"

    @property
    def num_frames(self) -> int:
        """Frames of each tile."""
        return self.clips[0].shape[2]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Row and column of the padded picture at which each tile begins."""
        return list(itertools.product(self.grid.vertical.starts, self.grid.horizontal.starts))

    @property
    def scale(self) -> Fraction:
        """How many times larger each side of a tile has become."""
        return Fraction(self.clips[0].shape[3], self.grid.vertical.tile)

    def with_clips(self, clips: Sequence[Tensor]) -> TiledClip:
        """The same tiles after something worked on them.

        Args:
            clips: All tiles in the same order, `1 c t h w`.

        Raises:
            ValueError: A tile or a frame is missing, or the tiles were not scaled alike by
                sixteenths.
        """
        if len(clips) != len(self.clips):
            raise ValueError(
                f"all {len(self.clips)} tiles must come back, got {len(clips)}; connect a node "
                "that gives one batch for each tile"
            )
        for index, clip in enumerate(clips):
            self._check(index, clip, clips[0])
        return replace(self, clips=tuple(clips))

    def _check(self, index: int, clip: Tensor, first: Tensor) -> None:
        if clip.shape[2] != self.num_frames:
            raise ValueError(
                f"tile {index} must have {self.num_frames} frames, got {clip.shape[2]}; the nodes "
                "between may not add or drop frames"
            )
        size, tile = clip.shape[3:], (self.grid.vertical.tile, self.grid.horizontal.tile)
        scales = [Fraction(now, before) for now, before in zip(size, tile, strict=True)]
        if clip.shape != first.shape or scales[0] != scales[1] or (scales[0] * TILE_GRID_PX) % 1:
            raise ValueError(
                f"tile {index} must keep its size of {tile[1]}x{tile[0]} or be scaled like the "
                f"others by a multiple of 1/{TILE_GRID_PX}, got {size[1]}x{size[0]}; use a factor "
                "such as 1.5, 2 or 4"
            )


def split_tiles(
    video: Tensor, *, tile_px: int, overlap_px: int, on_stage: OnStage = tell_nobody
) -> TiledClip:
    """Cut a clip into overlapping tiles.

    Args:
        video: `1 c t h w`, floating point.
        tile_px: Side of a tile in pixels, rounded down to 16; a shorter picture side gets one tile.
        overlap_px: Pixels that neighbours share, rounded up to 16, at most half a tile.
        on_stage: Told which frame is looked at for cuts; may raise to stop.

    Raises:
        ValueError: The tile is too small or the overlap negative.
    """
    if tile_px < LEAST_TILE_PX or overlap_px < 0:
        raise ValueError(
            f"tile_px must be at least {LEAST_TILE_PX} and overlap_px at least 0, got {tile_px} "
            f"and {overlap_px}"
        )
    height, width = video.shape[3:]
    padded = round_up(height, TILE_GRID_PX), round_up(width, TILE_GRID_PX)
    grid = plan_tiles(*padded, (tile_px, tile_px), overlap_px, (TILE_GRID_PX, TILE_GRID_PX))
    rows = torch.tensor([*range(height), *padding_indices(height, padded[0])], device=video.device)
    columns = torch.tensor([*range(width), *padding_indices(width, padded[1])], device=video.device)
    clips = tuple(
        video.index_select(3, rows[top : top + grid.vertical.tile]).index_select(
            4, columns[left : left + grid.horizontal.tile]
        )
        for top, left in itertools.product(grid.vertical.starts, grid.horizontal.starts)
    )
    cuts = tuple(find_cuts(_thumbnails(video, on_stage)))
    return TiledClip(height=height, width=width, grid=grid, cuts=cuts, clips=clips)


def _thumbnails(video: Tensor, on_stage: OnStage) -> Iterator:
    for index, frame in enumerate(video[0].unbind(1)):
        on_stage("shots", index, video.shape[2])
        pixels = (frame[:3].float().clamp(0, 1) * 255).round().to(torch.uint8)
        yield rearrange(pixels, "c h w -> h w c").cpu().numpy()


def upscale_tiles(
    upscaler: VideoUpscaler,
    tiles: TiledClip,
    *,
    scale: float,
    strength: float = 1.0,
    color_anchor: bool = True,
    shots: bool = True,
    on_progress: Callable[[float, float], None] | None = None,
) -> TiledClip:
    """Upscale each tile as a clip of its own.

    Args:
        upscaler: Model, device and arithmetic.
        tiles: RGB tiles.
        scale: Factor for both sides, a multiple of 1/16.
        strength: Share of the model's work.
        color_anchor: Keep the low frequencies of the input.
        shots: Keep shots apart; all tiles are cut at the same frames.
        on_progress: Called with (tiles done, tiles), in fractions; may raise to stop.

    Raises:
        ValueError: An argument is out of range.
    """
    if (Fraction(repr(float(scale))) * TILE_GRID_PX) % 1:
        raise ValueError(
            f"scale of tiles must be a multiple of 1/{TILE_GRID_PX}, got {scale}; use 1.5, 2 or 4"
        )
    runs = shots_from_cuts(tiles.num_frames, tiles.cuts if shots else ())
    num_frames, num_tiles = tiles.num_frames, len(tiles.clips)
    options = {"strength": strength, "color_anchor": color_anchor, "shots": False}
    results = []
    for index, clip in enumerate(tiles.clips):
        parts = []
        for start, stop in runs:
            first = index + start / num_frames
            report = Part(on_progress, lambda done, _, f=first: (f + done / num_frames, num_tiles))
            shot = clip[:, :, start:stop]
            parts.append(upscaler.upscale(shot, scale=scale, on_progress=report, **options))
        results.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2))
    return tiles.with_clips(results)


def stitch_tiles(tiles: TiledClip, on_stage: OnStage = tell_nobody) -> Tensor:
    """One clip from its tiles: `1 c t h w`, of the split picture's size times the tiles' scale.

    Neighbours fade into each other by a raised cosine over the middle half of their overlap.
    Where both agree the result is exactly theirs, so untouched tiles give back the very input, and
    any processing that sees no further than a quarter of the overlap gives what it would have
    given on the whole picture; but for what it sees beyond the last row and column, where a side is
    no multiple of 16: there the picture goes on mirrored, and not as that processing would have it.

    Args:
        tiles: As they came back.
        on_stage: Told which tile is laid down; may raise to stop.
    """
    scale, first = tiles.scale, tiles.clips[0]
    vertical, horizontal = tiles.grid.vertical, tiles.grid.horizontal
    out = _empty(first, int(vertical.length * scale), int(horizontal.length * scale))
    num_columns = len(horizontal.starts)
    for row, top in enumerate(vertical.starts):
        band = _empty(first, first.shape[3], out.shape[4])
        for column, left in enumerate(horizontal.starts):
            on_stage("blend", row * num_columns + column, len(tiles.clips))
            tile = tiles.clips[row * num_columns + column]
            seam = _seam(horizontal, column, scale)
            _fade_in(band, tile.to(band.device), 4, int(left * scale), seam)
        _fade_in(out, band, 3, int(top * scale), _seam(vertical, row, scale))
    half = Fraction(1, 2)
    height, width = (int(side * scale + half) for side in (tiles.height, tiles.width))
    return out[..., :height, :width].contiguous()


def _empty(like: Tensor, height: int, width: int) -> Tensor:
    return like.new_empty(*like.shape[:3], height, width)


def _seam(axis: TileAxis, index: int, scale: Fraction) -> tuple[int, int]:
    """Pixels [start, stop) of the scaled axis over which a tile replaces the one before it."""
    if index == 0:
        return 0, 0
    start, stop = axis.seams[index - 1]
    return round(start * scale), round(stop * scale)


def _fade_in(canvas: Tensor, piece: Tensor, dim: int, offset: int, seam: tuple[int, int]) -> None:
    """Lay a piece over the canvas from `offset` on, fading in over the seam."""
    start, stop = seam
    if start < stop:
        phases = (torch.arange(stop - start, device=piece.device) + 0.5) / (stop - start)
        weights = (0.5 - 0.5 * torch.cos(math.pi * phases)).to(piece.dtype)
        weights = weights[:, None] if dim == 3 else weights
        over = canvas.narrow(dim, start, stop - start)
        new = piece.narrow(dim, start - offset, stop - start)
        # `lerp` returns equal values unchanged, which a weighted sum would round.
        over.copy_(torch.lerp(over, new, weights))
    length = offset + piece.shape[dim] - stop
    canvas.narrow(dim, stop, length).copy_(piece.narrow(dim, stop - offset, length))
