"""The node that puts tiles together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import schema, tile_inputs
from ._tiles import tiles_with

if TYPE_CHECKING:
    from ..oasis_core.upscale.tile_clips import TiledClip


class OASISStitchTiles(io.ComfyNode):
    """Tiles in, whole frames out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISStitchTiles",
            display_name="OASIS Stitch Tiles",
            description="Put tiles together without seams, whatever worked on them, as long as it "
            "kept their size or scaled all of them alike. Untouched tiles give back the input.",
            search_aliases=["merge tiles", "join tiles", "untile", "blend tiles"],
            is_input_list=True,
            inputs=tile_inputs(),
            outputs=[
                io.Image.Output(
                    "stitched",
                    display_name="images",
                    tooltip="Whole frames, as much larger as the tiles have become.",
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(cls, tiles: list[TiledClip], images: list[Tensor] | None = None) -> io.NodeOutput:
        """Blend the tiles."""
        from ..oasis_core.upscale.tile_clips import stitch_tiles

        current = tiles_with(tiles[0], images)
        width, height = (round(side * current.scale) for side in (current.width, current.height))
        _adapters.check_memory(current.num_frames, (width, height))
        with _adapters.progress("tiles") as report:
            return io.NodeOutput(_adapters.to_images(stitch_tiles(current, report.stage)))
