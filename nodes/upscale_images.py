"""The node that upscales frames in memory."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from . import _adapters
from ._errors import plain_errors
from ._schema import (
    check_choice,
    exact_size_inputs,
    later_inputs,
    later_values,
    model_input,
    option_input,
    requested_size,
    schema,
    size_inputs,
    widget,
)

CLIP, STILLS = "one clip", "independent stills"


class OASISUpscaleImages(io.ComfyNode):
    """Small frames or stills in, large ones out, in one diffusion step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISUpscaleImages",
            display_name="OASIS Upscale Images",
            description="Upscale a short clip or single images. All frames are held in memory: "
            "for anything longer use OASIS Upscale Video, which streams.",
            search_aliases=[
                "super resolution",
                "image upscale",
                "vsr",
                "restore",
                "detail",
                "upscale batch",
                "seedvr2",
            ],
            inputs=[
                model_input(),
                io.Image.Input("images", tooltip="Frames of one clip in order, or any images."),
                widget(
                    io.Combo.Input,
                    "frames_are",
                    options=[CLIP, STILLS],
                    default=CLIP,
                    tooltip="one clip: neighbouring frames help each other and stay consistent. "
                    "independent stills: each image on its own.",
                ),
                *size_inputs(),
                option_input("strength"),
                *exact_size_inputs(),
                option_input("shots"),
                option_input("tile_px"),
                option_input("segment_frames"),
                option_input("color_anchor"),
                *later_inputs("images"),
            ],
            outputs=[
                io.Image.Output(
                    "upscaled",
                    display_name="images",
                    tooltip="As many images as came in, larger; alpha is resized plainly.",
                ),
            ],
        )

    @classmethod
    @plain_errors
    def execute(
        cls,
        model: _adapters.LoadedModel,
        images: Tensor,
        frames_are: str,
        target: str,
        scale: float,
        strength: float,
        width: int,
        height: int,
        shots: bool,
        tile_px: int,
        segment_frames: int,
        color_anchor: bool,
        **later: Any,
    ) -> io.NodeOutput:
        """Upscale the batch."""
        check_choice("frames_are", frames_are, (CLIP, STILLS))
        video = _adapters.to_video(images, is_clip=frames_are == CLIP)
        sides = (video.shape[4], video.shape[3])
        size = requested_size(sides, target, scale, width, height, later)
        _adapters.check_memory(len(images), size)
        with _adapters.progress() as report, _adapters.running(model, report) as upscaler:
            result = upscaler.upscale(
                video,
                size=size,
                strength=strength,
                shots=shots,
                tile_px=tile_px or None,
                segment_frames=segment_frames or None,
                color_anchor=color_anchor,
                **later_values("images", later),
                on_progress=report,
            )
        return io.NodeOutput(_adapters.to_images(result, _adapters.alpha_of(images)))
