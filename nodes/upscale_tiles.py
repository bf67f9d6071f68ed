"""The node that upscales tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import (
    OasisTiles,
    check_number,
    model_input,
    option_input,
    scale_input,
    schema,
    tile_inputs,
)
from ._tiles import tile_images, tiles_for_model, tiles_with

if TYPE_CHECKING:
    from ..oasis_core.upscale.tile_clips import TiledClip


class OASISUpscaleTiles(io.ComfyNode):
    """Small tiles in, large tiles out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISUpscaleTiles",
            display_name="OASIS Upscale Tiles",
            description="Upscale the tiles of OASIS Split Tiles one after another, so that other "
            "nodes can work on each of them before or after.",
            search_aliases=["tiled upscale", "super resolution tiles"],
            is_input_list=True,
            inputs=[
                model_input(),
                *tile_inputs(),
                scale_input(
                    "Factor for both sides of each tile. 1 restores without enlarging; time and "
                    "memory grow with its square."
                ),
                option_input("strength"),
                option_input("shots"),
                option_input("color_anchor"),
            ],
            outputs=[
                OasisTiles.Output(
                    "upscaled",
                    display_name="tiles",
                    tooltip="The larger tiles and where they belong, without alpha.",
                ),
                io.Image.Output(
                    "tile_images",
                    display_name="tile images",
                    tooltip="A list with one batch of frames for each larger tile.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(
        cls,
        model: list[_adapters.LoadedModel],
        tiles: list[TiledClip],
        scale: list[float],
        strength: list[float],
        shots: list[bool],
        color_anchor: list[bool],
        images: list[Tensor] | None = None,
    ) -> io.NodeOutput:
        """Upscale each tile."""
        from ..oasis_core.upscale.tile_clips import upscale_tiles

        check_number("scale", scale[0])
        current = tiles_for_model(tiles_with(tiles[0], images))
        side = [round(side * scale[0]) for side in current.clips[0].shape[3:]]
        num_images = current.num_frames * len(current.clips)
        _adapters.check_memory(num_images, (side[1], side[0]), "hold the larger tiles")
        with (
            _adapters.progress("tiles") as report,
            _adapters.running(model[0], report) as upscaler,
        ):
            result = upscale_tiles(
                upscaler,
                current,
                scale=scale[0],
                strength=strength[0],
                color_anchor=color_anchor[0],
                shots=shots[0],
                on_progress=report,
            )
        return io.NodeOutput(result, tile_images(result))
