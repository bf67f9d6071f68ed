"""The node that takes a model from ComfyUI's own loader of upscale models."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from . import _adapters
from ._schema import OasisModel, dtype_input, schema


class OASISFromUpscaleModel(io.ComfyNode):
    """Any single-image upscaler in, a model for the other OASIS nodes out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISFromUpscaleModel",
            display_name="OASIS From Upscale Model",
            description="Use any single-image upscaler (ESRGAN, Compact, SPAN, DAT and so on) in "
            "the OASIS nodes: films of any length at flat memory with their sound, any size, "
            "exact tiles, runs that go on after a stop.",
            search_aliases=["esrgan video", "upscale video using model", "spandrel", "vsr"],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model", tooltip="From ComfyUI's Load Upscale Model."
                ),
                dtype_input(),
            ],
            outputs=[
                OasisModel.Output(
                    "model",
                    display_name="model",
                    tooltip="For Upscale Video, Upscale Images and Upscale Tiles.",
                ),
                io.String.Output(
                    "facts",
                    display_name="facts",
                    tooltip="JSON: architecture, the scale it was made for, number of parameters.",
                ),
            ],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, upscale_model: Any, dtype: str) -> io.NodeOutput:
        """Take the model over."""
        model, facts = _adapters.from_upscale_model(upscale_model, dtype)
        return io.NodeOutput(model, json.dumps(facts, indent=1), ui={"oasis_model": [facts]})
