"""The node that gives the bundled clip."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import InputImpl, io

from ._errors import plain_errors
from ._schema import schema

CLIP = Path(__file__).parents[1] / "workflows" / "example_inputs" / "hand_held.mp4"


class OASISExampleClip(io.ComfyNode):
    """Nothing in, a small low-quality video out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISExampleClip",
            display_name="OASIS Example Clip",
            description="The short hand-held clip that comes with the pack, so that the example "
            "workflows run as they are. Replace it by Load Video.",
            search_aliases=["test video", "sample clip"],
            inputs=[],
            outputs=[
                io.Video.Output(
                    "video",
                    display_name="video",
                    tooltip="320x180 pixels, 3 seconds, with sound.",
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(cls) -> io.NodeOutput:
        """Point to the file."""
        return io.NodeOutput(InputImpl.VideoFromFile(str(CLIP)))
