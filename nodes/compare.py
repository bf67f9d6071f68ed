"""The node that compares two versions of a clip."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import Input, InputImpl, io
from torch import Tensor

from . import _adapters
from ._compared_clips import clip_file, read_clip, viewer_facts
from ._errors import plain_errors
from ._results import SHELF
from ._schema import LAYOUTS, check_choice, check_number, schema, widget

PICTURES = [io.Image, io.Video]


class OASISCompare(io.ComfyNode):
    """Two clips in; measures, a picture of both and an interactive viewer out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What ComfyUI shows."""
        return schema(
            node_id="OASISCompare",
            display_name="OASIS Compare",
            description="Compare two versions of a clip or image: PSNR, SSIM and flicker as "
            "numbers, both in one picture, and a viewer with a split to drag on the node.",
            search_aliases=["before after", "psnr", "ssim", "quality", "slider", "viewer"],
            inputs=[
                io.MultiType.Input(
                    "before", PICTURES, tooltip="Images or video: the left side, e.g. the original."
                ),
                io.MultiType.Input(
                    "after", PICTURES, tooltip="Images or video: the right side, e.g. the result."
                ),
                *_view_inputs(),
                io.MultiType.Input(
                    "truth",
                    PICTURES,
                    optional=True,
                    tooltip="Images or video: the true clip. With it before and after are both "
                    "measured against it, else after against before.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "comparison", display_name="images", tooltip="Both in one picture, as frames."
                ),
                io.Video.Output(
                    "comparison_video", display_name="video", tooltip="The same as a video."
                ),
                io.String.Output(
                    "metrics",
                    display_name="metrics",
                    tooltip="JSON: PSNR in dB and SSIM (higher is better), warping error (lower is "
                    "better).",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        """Changes when the files of these settings were removed from the temporary folder."""
        return SHELF.num_lost(inputs)

    @classmethod
    @plain_errors
    def execute(
        cls,
        before: Tensor | Input.Video,
        after: Tensor | Input.Video,
        layout: str,
        max_frames: int,
        fps: float,
        flicker: bool,
        truth: Tensor | Input.Video | None = None,
    ) -> io.NodeOutput:
        """Measure and show."""
        from ..oasis_core.evaluation import clip_scores
        from ..oasis_core.video import nearest_rate

        inputs = {"layout": layout, "max_frames": max_frames, "fps": fps, "flicker": flicker}
        check_choice("layout", layout, LAYOUTS)
        check_number("fps", fps)
        with _adapters.progress() as report:
            given = [value for value in (before, after, truth) if value is not None]
            read = [read_clip(value, max_frames, report.step("read")) for value in given]
            clips, rates = zip(*read, strict=True)
            clips = clip_scores.match_clips(*clips, check=report.step("resize"))
            metrics = clip_scores.compare_clips(*clips, has_motion=flicker, on_progress=report)
            rate = next((rate for rate in rates if rate), None) or nearest_rate(fps)
            view = clip_scores.LAYOUTS[layout](clips[0], clips[1])
            encoding = report.step("encode")
            path = clip_file(view, rate, "oasis_compare", encoding)
            facts = {**viewer_facts(*clips[:2], rate, encoding), "metrics": metrics}
            beside = (path.with_name(facts["filename"]),)
        _adapters.keep_result(path, inputs, beside=beside)
        text = json.dumps(metrics, indent=1)
        video = InputImpl.VideoFromFile(str(path))
        images = _adapters.to_images(view[:, :, None])
        return io.NodeOutput(images, video, text, ui={"oasis_compare": [facts]})


def _view_inputs() -> list[io.Input]:
    return [
        widget(
            io.Combo.Input,
            "layout",
            options=list(LAYOUTS),
            default=LAYOUTS[0],
            tooltip="Of the outputs: both pictures next to each other, or one picture "
            "whose left half is before and whose right half is after.",
        ),
        widget(
            io.Int.Input,
            "max_frames",
            default=120,
            min=1,
            max=10000,
            tooltip="Frames compared, from the first one on. More needs more memory; a "
            "video file is read no further.",
        ),
        widget(
            io.Float.Input,
            "fps",
            default=24.0,
            min=1.0,
            max=240.0,
            step=0.01,
            tooltip="Frames per second of the viewer and the output video when both inputs "
            "are images; a video brings its own.",
        ),
        widget(
            io.Boolean.Input,
            "flicker",
            default=False,
            tooltip="Also measure the warping error: what changes from frame to frame "
            "apart from motion. Takes far longer than the other numbers.",
        ),
    ]
