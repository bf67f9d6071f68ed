"""The node that reads a model file."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..oasis_core.choices import DEFAULT_DETAIL
from . import _adapters
from ._errors import plain_errors
from ._schema import OasisModel, check_choice, dtype_input, schema, widget

OWN, ALL_GLOBAL, NO_TRANSFORMER = ROUTINGS = ("own", "all global", "no transformer")


class OASISLoadModel(io.ComfyNode):
    """A model file in, a model that ComfyUI manages out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISLoadModel",
            display_name="OASIS Load Model",
            description="Load an OASIS model: the bundled one, or a .safetensors file from "
            "models/oasis. Nothing is downloaded.",
            search_aliases=["super resolution model", "upscale model", "vsr", "detail", "seedvr2"],
            inputs=[
                widget(
                    io.Combo.Input,
                    "model_name",
                    options=_adapters.model_names(),
                    tooltip="oasis-tiny comes with the pack and runs anywhere. Further models "
                    "belong into models/oasis as .safetensors; of the public files of InfVSR or "
                    "FlashVSR v1.1 there one is made on the first run, which takes some minutes "
                    "and 3.5 GB of disk.",
                ),
                dtype_input(),
                widget(
                    io.Combo.Input,
                    "routing",
                    options=list(ROUTINGS),
                    default=ROUTINGS[0],
                    advanced=True,
                    tooltip="Which tokens the attention heads see. own: what each head was "
                    "measured to need, as stored in the file. all global: everything, far slower; "
                    "to judge what the routing costs. no transformer: the convolutions of "
                    "oasis-tiny alone, which are faster.",
                ),
                widget(
                    io.Float.Input,
                    "detail",
                    default=DEFAULT_DETAIL,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="From the model's faithful end to its vivid one. 0: no more than the "
                    "source shows; 1: sharp, with texture that may not have been there, and a "
                    "little less steady. At its default a model with one end only is used as it "
                    "is.",
                ),
                *_speed_inputs(),
            ],
            outputs=[
                OasisModel.Output(
                    "model", display_name="model", tooltip="For the other OASIS nodes."
                ),
                io.String.Output(
                    "facts",
                    display_name="facts",
                    tooltip="JSON: file, SHA-256, number of parameters, licence and source.",
                ),
            ],
            # Shows its facts when the result comes from the cache, too.
            has_intermediate_output=True,
        )

    @classmethod
    @plain_errors
    def fingerprint_inputs(cls, model_name: str, **others: Any) -> str:
        """Changes when the file does."""
        path = _adapters.model_path(model_name)
        if not path.exists():
            return f"to be converted {sorted(others.items())}"
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns} {sorted(others.items())}"

    @classmethod
    @plain_errors
    def execute(
        cls,
        model_name: str,
        dtype: str,
        routing: str,
        detail: float,
        compiled: bool,
        int8: bool,
    ) -> io.NodeOutput:
        """Read the file."""
        check_choice("routing", routing, ROUTINGS)
        # The default is each model's own choice, so that one without a vivid end loads, too.
        wanted = None if detail == DEFAULT_DETAIL else detail
        options = {"detail": wanted, "compiled": compiled, "int8": int8}
        path = _adapters.make_model(model_name)
        model, facts = _adapters.load_model(path, dtype, **options)
        if routing == ALL_GLOBAL:
            model = model.all_global()
        if routing == NO_TRANSFORMER:
            model = model.without_transformer()
        return io.NodeOutput(model, json.dumps(facts, indent=1), ui={"oasis_model": [facts]})


def _speed_inputs() -> list[io.Input]:
    return [
        widget(
            io.Boolean.Input,
            "compiled",
            default=False,
            advanced=True,
            tooltip="Let torch.compile join the steps of a large model's blocks: the first tile "
            "takes minutes longer, those after it less time. Needs a compiler (Triton on a GPU); "
            "where it fails the model runs as before. Small models are left as they are.",
        ),
        widget(
            io.Boolean.Input,
            "int8",
            default=False,
            advanced=True,
            tooltip="Hold the matrices of a large model in 8 bits, a quarter of float32 and half "
            "of bfloat16. Refused where it would change the result visibly, and by small models.",
        ),
    ]
