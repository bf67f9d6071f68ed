"""The node that gives a model another routing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import _adapters
from ._errors import plain_errors
from ._schema import OasisModel, OasisRouting, model_input, schema, widget

if TYPE_CHECKING:
    from ..oasis_core.model.routing import HeadRouting


class OASISApplyRouting(io.ComfyNode):
    """A model in, the same model with another routing out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISApplyRouting",
            display_name="OASIS Apply Routing",
            description="Route the attention heads of a model as OASIS Calibrate Routing found. "
            "Takes no memory and no time; switch it off or bypass the node to undo it.",
            search_aliases=["attention routing", "sparse attention"],
            inputs=[
                model_input(),
                OasisRouting.Input("routing", tooltip="From OASIS Calibrate Routing."),
                widget(
                    io.Boolean.Input,
                    "enabled",
                    default=True,
                    tooltip="Off gives the model its own routing back.",
                ),
            ],
            outputs=[
                OasisModel.Output(
                    "routed",
                    display_name="model",
                    tooltip="The model with this routing; the one that came in keeps its own.",
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(
        cls, model: _adapters.LoadedModel, routing: HeadRouting, enabled: bool
    ) -> io.NodeOutput:
        """Attach the routing."""
        return io.NodeOutput(model.routed(routing if enabled else None))
