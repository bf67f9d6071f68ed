"""How an option is declared: what the shell, the nodes and the journals make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

USUAL = "most used"
PICTURE = "the picture"
PIECE = "a piece, a comparison, pictures"
FILE = "the file"
RUN = "the run"
MACHINE = "model and machine"
HEADINGS = (USUAL, PICTURE, PIECE, FILE, RUN, MACHINE)
"""Headings of the shell's help that options stand under."""


NodeKind = Literal["video", "images"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """How the shell spells an option."""

    heading: str
    """One of `HEADINGS`."""
    help: str
    """What it does, in half a line of its help."""
    flag: str = ""
    """Such as "--tile"; empty: the field's name with dashes."""
    read: Callable[[str], Any] | None = None
    """Makes a value of the user's word, or raises ValueError with a sentence; None keeps text."""
    metavar: str | None = None
    """What stands for the value in the help; None: argparse's choice."""
    choices: tuple[str, ...] | None = None
    """Words that are allowed; None: any."""
    bare: Any = None
    """Value of the option without a word behind it; None: there must be one."""
    words: Mapping[str, Any] | None = None
    """Allowed words and the values that they mean; None: the value itself is given."""
    switches_to: bool | None = None
    """What the option, which then takes no value, sets the field to; None: it takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widget:
    """How ComfyUI's nodes show an option.

    What kind of input it is follows from its default, its choices and its limits. Where the default
    is None, 0 or the empty text stands for it, which the tooltip says.
    """

    tooltip: str
    """What it is, its unit, the effect of raising it."""
    nodes: tuple[NodeKind, ...] = ("video", "images")
    """Nodes that list it by themselves if it is a later one: Upscale Video, Upscale Images."""
    low: float | None = None
    """Least number."""
    high: float | None = None
    """Greatest number."""
    step: float | None = None
    """What one click adds to a number."""
    socket: str = ""
    """Such as "MASK", where the option is a socket and nothing is typed in; empty: a widget."""
    choices: tuple[str, ...] | None = None
    """Words to choose from; the first stands for None where the option may be that."""
    is_advanced: bool = True
    """Whether it hides among the advanced inputs."""
    is_later: bool = True
    """Whether it came after the first nodes: then it stands last and may be missing, so that older
    workflows run as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What stands beside a field of `UpscaleOptions`."""

    name: str
    """The field's."""
    default: Any
    """The field's value where nobody asked."""
    shell: Argument | None
    """How the shell spells it; None: it does not."""
    node: Widget | None
    """How nodes show it; None: they do not, or with words of their own."""
    identity: Literal["always", "when set", "elsewhere"]
    """Whether it tells unfinished runs apart. "always": it is in every journal. "when set": only
    where it is not the default, so that runs begun before there was such an option continue.
    "elsewhere": the job notes what follows from it (size, encoding, piece, fields), or no byte of a
    segment depends on it."""
    identify: Callable[[Any], Any]
    """Makes of the option's value what a journal says, such as a fingerprint of a path."""


def option(
    default: Any,
    *,
    shell: Argument | None = None,
    node: Widget | None = None,
    identity: Literal["always", "when set", "elsewhere"] = "elsewhere",
    identify: Callable[[Any], Any] = lambda value: value,
) -> Any:
    """A field of `UpscaleOptions`; arguments as of `Option`."""
    beside = {"shell": shell, "node": node, "identity": identity, "identify": identify}
    return field(default=default, metadata=beside)
