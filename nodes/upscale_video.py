"""The node that upscales a video from file to file."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import Input, InputImpl, io

from . import _adapters
from ._encoding import codec_input, encoding, quality_inputs
from ._errors import plain_errors
from ._results import SHELF
from ._schema import (
    check_number,
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
from ._sources import opened
from ._video_files import upscale_on_disk


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
            search_aliases=[
                "super resolution",
                "video upscale",
                "vsr",
                "restore video",
                "enhance video",
                "seedvr2",
                "flashvsr",
                "relayvsr",
                "deflicker",
                "detail",
                "1080p",
                "4k",
            ],
            inputs=[
                model_input(),
                io.Video.Input("video", tooltip="The video, from Load Video or any other node."),
                *size_inputs(),
                option_input("strength"),
                _preview_input(),
                codec_input(),
                _file_name_input(),
                *exact_size_inputs(),
                option_input("shots"),
                option_input("tile_px"),
                option_input("segment_frames"),
                option_input("color_anchor"),
                *quality_inputs(),
                *later_inputs("video"),
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
            is_output_node=True,
        )

    @classmethod
    @plain_errors
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        """Changes when the result of these settings was removed from the temporary folder."""
        return SHELF.num_lost(inputs)

    @classmethod
    @plain_errors
    def execute(
        cls,
        model: _adapters.LoadedModel,
        video: Input.Video,
        target: str,
        scale: float,
        strength: float,
        preview_s: float,
        codec: str,
        file_name: str,
        width: int,
        height: int,
        shots: bool,
        tile_px: int,
        segment_frames: int,
        color_anchor: bool,
        quality: str,
        crf: float,
        bit_depth: str,
        **later: Any,
    ) -> io.NodeOutput:
        """Upscale the file behind the video."""
        inputs = {name: value for name, value in locals().items() if name not in ("cls", "later")}
        inputs |= later
        check_number("preview_s", preview_s)
        report = _adapters.Progress()
        with opened(video, report.step("open")) as source:
            lengths_s = [length_s for length_s in (source.duration_s, preview_s) if length_s]
            settings = {
                "size": requested_size(source.size, target, scale, width, height, later),
                "strength": strength,
                "shots": shots,
                "tile_px": tile_px or None,
                "segment_frames": segment_frames or None,
                "color_anchor": color_anchor,
                **encoding(codec, quality, crf, bit_depth),
                **later_values("video", later),
                "start_s": source.start_s,
                "duration_s": min(lengths_s, default=None),
            }
            path, facts = upscale_on_disk(
                source, model, settings, inputs=inputs, report=report, file_name=file_name
            )
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), json.dumps(facts, indent=1))


def _file_name_input() -> io.Input:
    return widget(
        io.String.Input,
        "file_name",
        default="",
        tooltip="Name in the output folder, such as video/film; the file is kept there as it was "
        "encoded, with a number added. Empty leaves it to Save Video.",
    )


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
