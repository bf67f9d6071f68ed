"""The node that makes good frames bad."""

from __future__ import annotations

import json

from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import PRESETS, schema, widget


class OASISDegrade(io.ComfyNode):
    """Sharp frames in, small and damaged frames out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISDegrade",
            display_name="OASIS Degrade",
            description="Blur, shrink, add noise and compress, as real cameras and platforms do. "
            "For testing an upscaler on your own footage, and to take the plastic look off "
            "generated video before upscaling it.",
            search_aliases=["low quality", "compression", "noise", "de-plastic", "test clip"],
            inputs=[
                io.Image.Input("images", tooltip="Frames of one clip, in order."),
                widget(
                    io.Combo.Input,
                    "preset",
                    options=list(PRESETS),
                    default=PRESETS[0],
                    tooltip="light: blur, downscale and noise. consistent: two rounds of blur, "
                    "resize, noise, JPEG and video compression, the same for all frames. "
                    "inconsistent: the same, changing from frame to frame. "
                    "clean: hardly more than shrunk, like good or generated video. "
                    "web: shrunk, slightly soft and noisy, compressed once, like phone and web "
                    "video.",
                ),
                widget(
                    io.Float.Input,
                    "scale",
                    default=4.0,
                    min=1.0,
                    max=16.0,
                    step=0.5,
                    tooltip="How many times smaller each side becomes. 1 keeps the size; higher "
                    "loses more detail.",
                ),
                widget(
                    io.Int.Input,
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Decides all parameters and the noise; the same number gives the same "
                    "result.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "degraded", display_name="images", tooltip="The damaged frames, without alpha."
                ),
                io.String.Output(
                    "parameters",
                    display_name="parameters",
                    tooltip="JSON: every step that was done, in order, with the numbers drawn.",
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(cls, images: Tensor, preset: str, scale: float, seed: int) -> io.NodeOutput:
        """Degrade the clip."""
        from ..oasis_core import degrade

        frames = _adapters.to_video(images, is_clip=False).squeeze(2)
        with _adapters.progress("steps") as report:
            degraded, steps = degrade(
                frames, preset=preset, scale=scale, seed=seed, on_progress=report
            )
        parameters = {"preset": preset, "scale": scale, "seed": seed, "steps": steps}
        return io.NodeOutput(
            _adapters.to_images(degraded.unsqueeze(2)), json.dumps(parameters, indent=1)
        )
