"""Schemas that every supported ComfyUI accepts, and inputs that several nodes share.

ComfyUI refuses keyword arguments that it does not know yet (0.3.64 has no `advanced` and no
`search_aliases`), so they are dropped there. Remove the filters once 0.11 is the oldest one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..oasis_core import choices
from ..oasis_core.option_kinds import NodeKind, Option
from ..oasis_core.options import OPTIONS

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
SIZE_NAMES = {"720p": "720p", "1080p": "1080p", "1440p": "1440p", "4K (2160p)": "2160p"}
TARGETS = (SCALE, *SIZE_NAMES)
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


def dtype_input() -> io.Input:
    """Arithmetic of a model."""
    return widget(
        io.Combo.Input,
        "dtype",
        options=list(DTYPES),
        default=DTYPES[0],
        advanced=True,
        tooltip="Arithmetic of the model. auto takes a lower precision only where the device "
        "computes in it and it looks the same; float32 is exact and slowest.",
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


def option_input(name: str) -> io.Input:
    """An option of the engine, in the words of `oasis_core.options`."""
    choice = OPTIONS[name]
    shown = choice.node
    assert shown is not None
    if shown.socket:
        kind = io.Custom(shown.socket).Input
        return widget(kind, name, tooltip=shown.tooltip, optional=True, advanced=True)
    kind, default = _kind_of(choice), choice.default
    settings = {"min": shown.low, "max": shown.high, "step": shown.step}
    if kind is io.Combo.Input:
        default, settings["options"] = default or shown.choices[0], list(shown.choices)
    elif default is None:
        default = "" if kind is io.String.Input else AUTO
    return widget(
        kind,
        name,
        default=default,
        tooltip=shown.tooltip,
        optional=shown.is_later,
        advanced=shown.is_advanced or None,
        **{key: value for key, value in settings.items() if value is not None},
    )


def _kind_of(choice: Option) -> type[io.Input]:
    shown, default = choice.node, choice.default
    if shown.choices is not None:
        return io.Combo.Input
    if isinstance(default, bool):
        return io.Boolean.Input
    if shown.high is None:
        return io.String.Input
    return io.Float.Input if isinstance(shown.high, float) else io.Int.Input


def later_inputs(node: NodeKind) -> list[io.Input]:
    """The options that a node was given after it was first published; they stand last."""
    return [option_input(name) for name in _later(node)]


def later_values(node: NodeKind, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the inputs of `later_inputs` ask of the engine; what is at its default is left out.

    Raises:
        ValueError: One is no number, or is not offered.
    """
    values = {}
    for name in _later(node):
        if name in SIZE_OPTIONS:  # `requested_size` takes them
            continue
        choice, value = OPTIONS[name], inputs.get(name)
        if isinstance(value, float):
            check_number(name, value)
        if choice.node.choices is not None and value is not None:
            check_choice(name, value, choice.node.choices)
            is_first = value == choice.node.choices[0]
            value = None if is_first and choice.default is None else value
        if choice.default is None and not choice.node.socket:
            value = value or None
        if value is not None and (choice.node.socket or value != choice.default):
            values[name] = value
    return values


def _later(node: NodeKind) -> list[str]:
    shown = [(name, choice.node) for name, choice in OPTIONS.items() if choice.node is not None]
    return [name for name, widget in shown if widget.is_later and node in widget.nodes]


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


SIZE_OPTIONS = ("fit", "max_side", "even")
"""Later inputs that say how large the result is."""


def requested_size(
    source_size: tuple[int, int],
    target: str,
    scale: float,
    width: int,
    height: int,
    later: Mapping[str, Any],
) -> tuple[int, int]:
    """Size of the result for the widgets that decide it.

    Args:
        source_size: (width, height) of the source in pixels.
        target: One of `TARGETS`.
        scale: Factor for both sides.
        width: Exact width in pixels or 0.
        height: Exact height in pixels or 0.
        later: The inputs of `later_inputs`, of which `SIZE_OPTIONS` count here.

    Returns:
        (width, height) in pixels.

    Raises:
        ValueError: Source or result is outside the supported range, or two sizes are asked for.
    """
    from fractions import Fraction

    from ..oasis_core.sizes import wanted_size
    from ..oasis_core.words import read_size

    check_choice("target", target, TARGETS)
    limits = {"max_side": later.get("max_side") or None, "even": bool(later.get("even"))}
    wish: dict[str, Any] = {}
    if box := later.get("fit"):
        if width or height:
            raise ValueError("fit and width or height exclude each other; leave one of them empty")
        try:
            wish["fit"] = read_size(box)
        except ValueError as error:
            raise ValueError(f"fit {error}") from error
    elif width and height:
        wish["size"] = (width, height)
    elif width or height:
        wish["scale"] = Fraction(width or height, source_size[0 if width else 1])
    elif target in SIZE_NAMES:
        wish["size"] = SIZE_NAMES[target]
    else:
        wish["scale"] = scale
    return wanted_size(*source_size, **wish, **limits)
