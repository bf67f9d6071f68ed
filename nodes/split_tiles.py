"""The node that cuts frames into tiles."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import OasisTiles, schema, widget
from ._tiles import tile_images


class OASISSplitTiles(io.ComfyNode):
    """Frames in, overlapping tiles out, each of which other nodes may work on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISSplitTiles",
            display_name="OASIS Split Tiles",
            description="Cut a clip into overlapping tiles. Nodes connected to the images run once "
            "for each tile; OASIS Stitch Tiles puts the tiles together again without seams.",
            search_aliases=["tile", "split image", "crop tiles", "tiled upscale"],
            inputs=[
                io.Image.Input("images", tooltip="Frames of one clip in order, or one image."),
                widget(
                    io.Int.Input,
                    "tile_px",
                    default=512,
                    min=64,
                    max=8192,
                    step=16,
                    tooltip="Side of a tile in pixels of the input. Smaller needs less memory in "
                    "the nodes between; larger shows them more of the picture.",
                ),
                widget(
                    io.Int.Input,
                    "overlap_px",
                    default=64,
                    min=0,
                    max=4096,
                    step=16,
                    tooltip="Pixels that neighbours share, at most half a tile. The middle half is "
                    "where one fades into the other; raise it when seams show.",
                ),
            ],
            outputs=[
                OasisTiles.Output(
                    "tiles",
                    display_name="tiles",
                    tooltip="The tiles and where they belong, for the other tile nodes.",
                ),
                io.Image.Output(
                    "tile_images",
                    display_name="tile images",
                    tooltip="A list with one batch of frames for each tile, row by row: any node "
                    "connected here runs once for each tile.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(cls, images: Tensor, tile_px: int, overlap_px: int) -> io.NodeOutput:
        """Cut the clip."""
        from ..oasis_core.upscale.tile_clips import split_tiles

        clip = _adapters.to_clip(images)
        with _adapters.progress("tiles") as report:
            tiles = split_tiles(clip, tile_px=tile_px, overlap_px=overlap_px, on_stage=report.stage)
            return io.NodeOutput(tiles, tile_images(tiles, report.check))
