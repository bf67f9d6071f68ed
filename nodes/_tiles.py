"""OASIS_TILES values as lists of IMAGE and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from . import _adapters

if TYPE_CHECKING:
    from ..oasis_core.upscale.tile_clips import TiledClip


def tile_images(tiles: TiledClip, check: Callable[[], None] = _adapters.check) -> list[Tensor]:
    """A list of IMAGE, one batch of frames for each tile.

    Args:
        tiles: Where they are.
        check: Called before each; may raise to stop.
    """
    images = []
    for clip in tiles.clips:
        check()
        images.append(_adapters.to_images(clip))
    return images


def tiles_with(tiles: TiledClip, images: list[Tensor] | None) -> TiledClip:
    """Tiles whose pictures other nodes may have changed.

    Args:
        tiles: As they were split.
        images: One IMAGE for each tile, one with the frames of all of them, or None.

    Raises:
        ValueError: A tile or frame is missing, or the tiles were not scaled alike.
    """
    if images is None:
        return tiles
    if len(images) == 1 and len(images[0]) == tiles.num_frames * len(tiles.clips):
        images = list(images[0].split(tiles.num_frames))
    return tiles.with_clips([_adapters.to_clip(batch) for batch in images])


def tiles_for_model(tiles: TiledClip) -> TiledClip:
    """Tiles in colour, float32 in [0, 1].

    Raises:
        ValueError: They have fewer than 3 channels.
    """
    return tiles.with_clips([_adapters.to_video(batch) for batch in tile_images(tiles)])
