"""The node that upscales a video from file to file."""

from __future__ import annotations

import json

from comfy_api.latest import Input, InputImpl, io

from . import _adapters
from ._schema import (
    CODECS,
    check_number,
    expert_inputs,
    look_inputs,
    model_input,
    requested_size,
    schema,
    size_inputs,
    widget,
)
from ._video_files import on_disk, upscale_on_disk

DEFAULT_CRF = 16.0


class OASISUpscaleVideo(io.ComfyNode):
    """A small video in, a large one out, streaming from file to file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISUpscaleVideo",
            display_name="OASIS Upscale Video",
            description="Upscale a video of any length with flat memory: frames stream through, "
            "sound and timing are kept, and a cancelled run goes on where it stopped. Save Video "
            "then copies the result without encoding it again.",
            search_aliases=["super resolution", "video upscale", "vsr", "restore video"],
            inputs=[
                model_input(),
                io.Video.Input("video", tooltip="The video, from Load Video or any other node."),
                *size_inputs(),
                *look_inputs(),
                *expert_inputs(),
                *_encoding_inputs(),
                _preview_input(),
            ],
            outputs=[
                io.Video.Output(
                    "upscaled",
                    display_name="video",
                    tooltip="The upscaled video with the sound of the input; for Save Video.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="JSON: sizes, shots, tiles, seconds per stage, what could not be kept.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: _adapters.LoadedModel,
        video: Input.Video,
        scale: float,
        width: int,
        height: int,
        strength: float,
        shots: bool,
        tile_px: int,
        segment_frames: int,
        color_anchor: bool,
        codec: str,
        crf: float,
        preview_s: float,
    ) -> io.NodeOutput:
        """Upscale the file behind the video."""
        check_number("preview_s", preview_s)
        with on_disk(video) as source:
            lengths_s = [length_s for length_s in (source.duration_s, preview_s) if length_s]
            settings = {
                "size": requested_size(source.size, scale, width, height),
                "strength": strength,
                "shots": shots,
                "tile_px": tile_px or None,
                "segment_frames": segment_frames or None,
                "color_anchor": color_anchor,
                "codec": codec,
                "crf": None if codec == "ffv1" else crf,
                "start_s": source.start_s,
                "duration_s": min(lengths_s, default=None),
            }
            path, report = upscale_on_disk(source, model, settings)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), json.dumps(report, indent=1))


def _encoding_inputs() -> list[io.Input]:
    return [
        widget(
            io.Combo.Input,
            "codec",
            options=list(CODECS),
            default=CODECS[0],
            advanced=True,
            tooltip="h264 plays everywhere; h265 is smaller and slower; ffv1 is lossless, "
            "very large, and goes into Matroska.",
        ),
        widget(
            io.Float.Input,
            "crf",
            default=DEFAULT_CRF,
            min=0.0,
            max=51.0,
            step=1.0,
            advanced=True,
            tooltip="Constant rate factor of the encoder: lower is better and larger, 16 "
            "is visually lossless. Not used by ffv1.",
        ),
    ]


def _preview_input() -> io.Input:
    return widget(
        io.Float.Input,
        "preview_s",
        default=0.0,
        min=0.0,
        max=3600.0,
        step=0.5,
        tooltip="Seconds from the start to upscale, for trying settings out; 0 "
        "upscales the whole video.",
    )
