"""Schemas that every supported ComfyUI accepts, and inputs that several nodes share.

ComfyUI refuses keyword arguments that it does not know yet (0.3.64 has no `advanced` and no
`search_aliases`), so they are dropped there. Remove the filters once 0.11 is the oldest one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..oasis_core import choices

CATEGORY = "OASIS"
OasisModel = io.Custom("OASIS_MODEL")
OasisTiles = io.Custom("OASIS_TILES")
OasisRouting = io.Custom("OASIS_ROUTING")

DEFAULT_SCALE = 4.0
MAX_SCALE = 8.0
DTYPES = ("auto", *choices.DTYPES)
CODECS = choices.SOFTWARE_CODECS
LAYOUTS = ("side by side", "split")
PRESETS = choices.DEGRADATIONS
SCALE = "by scale"
SHORT_SIDES_PX = {"720p": 720, "1080p": 1080, "1440p": 1440, "4K (2160p)": 2160}
TARGETS = (SCALE, *SHORT_SIDES_PX)
AUTO = 0
"""Value of a whole-number input that means: decide for me."""


def schema(**values: Any) -> io.Schema:
    """A node's schema in the category of this pack."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    named = {name: value for name, value in values.items() if name in known}
    return io.Schema(category=CATEGORY, **named)


def widget(kind: type[io.Input], name: str, **values: Any) -> io.Input:
    """An input that may use keyword arguments of newer versions."""
    known = inspect.signature(kind.__init__).parameters
    return kind(name, **{key: value for key, value in values.items() if key in known})


def model_input() -> io.Input:
    """The socket for a loaded model."""
    return OasisModel.Input(
        "model", tooltip="The model, from OASIS Load Model or From Upscale Model."
    )


def scale_input(tooltip: str) -> io.Input:
    """How many times larger each side becomes."""
    return widget(
        io.Float.Input,
        "scale",
        default=DEFAULT_SCALE,
        min=0.25,
        max=MAX_SCALE,
        step=0.25,
        tooltip=tooltip,
    )


def size_inputs() -> list[io.Input]:
    """How large the result is, by name or by scale."""
    return [
        widget(
            io.Combo.Input,
            "target",
            options=list(TARGETS),
            default=TARGETS[0],
            tooltip="How large the result is. 1080p makes its shorter side 1080 pixels, whichever "
            "way up it is; the other follows from the shape of the picture.",
        ),
        scale_input(
            "Factor for both sides, with target by scale. 1 restores without enlarging; "
            "time and memory grow with its square."
        ),
    ]


def exact_size_inputs() -> list[io.Input]:
    """Width and height in pixels."""
    return [
        widget(
            io.Int.Input,
            side,
            default=AUTO,
            min=0,
            max=32768,
            step=2,
            advanced=True,
            tooltip=f"Exact {side} of the result in pixels, instead of target and scale. 0 "
            f"follows from the {other}, or from target and scale when both are 0.",
        )
        for side, other in (("width", "height"), ("height", "width"))
    ]


def strength_input() -> io.Input:
    """How strongly the model acts."""
    return widget(
        io.Float.Input,
        "strength",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="Share of the model's work: 0 is the plain resize, 1 the full model. Lower it "
        "when the result looks too sharp or invented.",
    )


def shots_input() -> io.Input:
    """How cuts are treated."""
    return widget(
        io.Boolean.Input,
        "shots",
        default=True,
        advanced=True,
        tooltip="Find cuts and never mix frames of different shots. Off treats everything as "
        "one shot.",
    )


def expert_inputs() -> list[io.Input]:
    """What the plan decides by itself."""
    return [
        widget(
            io.Int.Input,
            "tile_px",
            default=AUTO,
            min=0,
            max=8192,
            step=32,
            advanced=True,
            tooltip="Side of a tile in output pixels; 0 lets free memory decide. Smaller needs "
            "less memory and takes longer.",
        ),
        widget(
            io.Int.Input,
            "segment_frames",
            default=AUTO,
            min=0,
            max=1024,
            advanced=True,
            tooltip="Frames upscaled together; 0 lets free memory decide. More needs more memory "
            "and wastes less on the frames that neighbouring segments share.",
        ),
        anchor_input(),
    ]


def anchor_input() -> io.Input:
    """Whether colours are the source's."""
    return widget(
        io.Boolean.Input,
        "color_anchor",
        default=True,
        advanced=True,
        tooltip="Keep colours and brightness of the input: only detail may change.",
    )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a choice that is not offered, which ComfyUI before 0.8 lets through.

    Raises:
        ValueError: It is not one of the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_number(name: str, value: float) -> None:
    """Refuse NaN, which passes every limit of a schema.

    Raises:
        ValueError: It is NaN.
    """
    if value != value:
        raise ValueError(f"{name} must be a number, got {value}")


def tile_inputs() -> list[io.Input]:
    """Tiles, and what other nodes made of their images."""
    return [
        OasisTiles.Input(
            "tiles", tooltip="The tiles, from OASIS Split Tiles or OASIS Upscale Tiles."
        ),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="The tile images after other nodes worked on them; replace those in tiles. "
            "All must come back in order, with their frames. They may be resized alike, but not "
            "cropped, shifted or flipped: what is missing cannot be seen from their size.",
        ),
    ]


def requested_size(
    source_size: tuple[int, int], target: str, scale: float, width: int, height: int
) -> tuple[int, int]:
    """Size of the result for the widgets of `size_inputs` and `exact_size_inputs`.

    Args:
        source_size: (width, height) of the source in pixels.
        target: One of `TARGETS`.
        scale: Factor for both sides.
        width: Exact width in pixels or 0.
        height: Exact height in pixels or 0.

    Returns:
        (width, height) in pixels.

    Raises:
        ValueError: Source or result is outside the supported range.
    """
    from fractions import Fraction

    from ..oasis_core.geometry import short_side_size, target_size

    check_choice("target", target, TARGETS)
    if width and height:
        return target_size(*source_size, size=(width, height))
    if width or height:
        exact = Fraction(width, source_size[0]) if width else Fraction(height, source_size[1])
        return target_size(*source_size, scale=exact)
    if target in SHORT_SIDES_PX:
        return short_side_size(*source_size, SHORT_SIDES_PX[target])
    return target_size(*source_size, scale=scale)
