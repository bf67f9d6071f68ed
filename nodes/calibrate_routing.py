"""The node that measures a model's attention heads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import OasisRouting, check_number, model_input, scale_input, schema, widget

if TYPE_CHECKING:
    from ..oasis_core.model.routing import HeadRouting

KEEP = -1
"""Number of heads that means: as many as the model has now."""


class OASISCalibrateRouting(io.ComfyNode):
    """A model and frames in, the pattern that each of its heads should have out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISCalibrateRouting",
            display_name="OASIS Calibrate Routing",
            description="Measure on your own footage what each attention head of a model looks at, "
            "and give the cheap patterns to those that lose least. The model is not changed.",
            search_aliases=["attention routing", "sparse attention", "calibrate heads"],
            inputs=[
                model_input(),
                io.Image.Input(
                    "images", tooltip="Frames of one clip in order, of the kind you upscale."
                ),
                scale_input(
                    "How many times larger you upscale: heads are measured on frames of that size."
                ),
                *_quota_inputs(),
                *_sampling_inputs(),
            ],
            outputs=[
                OasisRouting.Output(
                    "routing", display_name="routing", tooltip="For OASIS Apply Routing."
                ),
                io.Image.Output(
                    "heat_map",
                    display_name="heat map",
                    tooltip="A picture: layers x heads, patterns as colours, distances as numbers.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="JSON: patterns, distances, the rule, and the share of heads on which "
                    "it agrees with the model's own routing.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @plain_errors
    def execute(
        cls,
        model: _adapters.LoadedModel,
        images: Tensor,
        scale: float,
        window_heads: int,
        intra_heads: int,
        frames: int,
        crop_px: int,
        sample_seed: int,
    ) -> io.NodeOutput:
        """Measure and assign."""
        check_number("scale", scale)
        rerouter = model.routing.rerouter
        own = rerouter.own
        quotas = {
            "window": _num_heads(own, "WINDOW") if window_heads == KEEP else window_heads,
            "intra": _num_heads(own, "INTRA") if intra_heads == KEEP else intra_heads,
        }
        with _adapters.progress("clips") as report, _adapters.running(model, report):
            clips = _clips(model, images, scale, frames, crop_px, report.stage)
            report.stage("measure")
            routing = rerouter.calibrate(
                clips, seed=sample_seed, quotas=quotas, on_progress=lambda n: report(n, len(clips))
            )
        values = {**routing.to_json(), "agreement": routing.agreement(own)}
        return io.NodeOutput(
            routing,
            _picture(routing),
            json.dumps(values, indent=1),
            ui={"oasis_routing": [values]},
        )


def _quota_inputs() -> list[io.Input]:
    return [
        widget(
            io.Int.Input,
            f"{name}_heads",
            default=KEEP,
            min=KEEP,
            max=4096,
            tooltip=f"Heads of the whole network that {what}. More is faster and "
            "further from the model; -1 keeps the number it has.",
        )
        for name, what in (
            ("window", "see a small box around each token"),
            ("intra", "see their own frame"),
        )
    ]


def _sampling_inputs() -> list[io.Input]:
    return [
        widget(
            io.Int.Input,
            "frames",
            default=5,
            min=1,
            max=81,
            advanced=True,
            tooltip="Frames measured together; longer clips are cut into runs of so many. "
            "More shows what heads do over time and takes longer.",
        ),
        widget(
            io.Int.Input,
            "crop_px",
            default=256,
            min=64,
            max=2048,
            step=16,
            advanced=True,
            tooltip="Side of the centre crop that is measured, in pixels of the enlarged "
            "frames. More shows longer distances; time grows with its fourth power.",
        ),
        widget(
            io.Int.Input,
            "sample_seed",
            default=0,
            min=0,
            max=0xFFFFFFFF,
            advanced=True,
            tooltip="Decides which tokens are sampled; the same number gives the same routing.",
        ),
    ]


def _picture(routing: HeadRouting) -> Tensor:
    """The routing drawn, as IMAGE `1 h w 3`."""
    from ..oasis_core.model.routing_picture import draw_routing

    return torch.from_numpy(np.asarray(draw_routing(routing), dtype=np.float32) / 255)[None]


def _num_heads(routing: HeadRouting, name: str) -> int:
    return sum(pattern.name == name for row in routing.patterns for pattern in row)


def _clips(
    model: _adapters.LoadedModel,
    images: Tensor,
    scale: float,
    frames: int,
    crop_px: int,
    on_stage: Callable[[str, int, int], None],
) -> list[Tensor]:
    """The middle of the frames as the model would see it, in runs of `frames`."""
    from ..oasis_core.geometry import middle
    from ..oasis_core.model.rerouting import calibration_clips
    from ..oasis_core.video.pixels import resize

    video = _adapters.to_video(images)[0]
    sides = [min(n, math.ceil(crop_px / scale)) for n in video.shape[2:]]
    rows, columns = map(middle, video.shape[2:], sides)
    crop = video[..., rows, columns]
    size = [round(side * scale) for side in sides]
    resized = []
    for index, frame in enumerate(crop.unbind(1)):
        on_stage("resize", index, crop.shape[1])
        resized.append(resize(frame[None], *size))
    large = torch.stack(resized, dim=1)
    stride = model.restorer.traits.stride
    return calibration_clips(large[None], num_frames=frames, side_px=crop_px, stride=stride)
