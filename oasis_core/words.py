"""Counts, choices, sizes and times as a person would write them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from .choices import SHORT_SIDES_PX

LEAST_LIKENESS = 0.65
"""Share of letters in common from which a name may have been meant: "--foo" is not "--fps"."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 frame", "2 frames", "0 shots".

    Args:
        number: How many, at least 0.
        noun: Of one.
        plural: Of several; None adds an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def lasting(seconds: float) -> str:
    """How long something takes, as exactly as a guess can be: "40 s", "12 min", "3 h 20 min".

    Args:
        seconds: At least 0.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest and hours < 24 else f"{round(seconds / 3600)} h"


def one_of(names: Sequence[str]) -> str:
    """Names to choose from: "a", "a or b", "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def meant(word: str, names: Iterable[str]) -> str:
    """The words "; did you mean 'NAME'?" for the name nearest to a mistyped one, "" without one."""
    likely = difflib.get_close_matches(word, list(names), n=1, cutoff=LEAST_LIKENESS)
    return f"; did you mean {likely[0]!r}?" if likely else ""


def read_size(text: str) -> tuple[int, int]:
    """Read "1280x720" as (1280, 720).

    Raises:
        ValueError: It is no size.
    """
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError as error:
        raise ValueError(f"must be WIDTHxHEIGHT, like 1280x720, got {text!r}") from error


def read_target(text: str) -> tuple[int, int] | str:
    """Read "1280x720" as (1280, 720), and "1080p" or "4K" as the name of a size, in small letters.

    Raises:
        ValueError: It is neither.
    """
    if text.lower() in SHORT_SIDES_PX:
        return text.lower()
    try:
        return read_size(text)
    except ValueError as error:
        raise ValueError(
            f"must be WIDTHxHEIGHT, like 1280x720, or {one_of([*SHORT_SIDES_PX])}, got {text!r}"
            f"{meant(text, SHORT_SIDES_PX)}"
        ) from error


def read_time(text: str) -> float:
    """Read "3s", "2.5", "500ms" or "1:02:03.5" as seconds.

    Raises:
        ValueError: It is no time.
    """
    number, factor = text.strip().lower(), 1.0
    for unit, seconds in (("ms", 0.001), ("min", 60.0), ("s", 1.0)):
        if number.endswith(unit):
            number, factor = number.removesuffix(unit), seconds
            break
    total = 0.0
    try:
        for part in number.split(":"):
            total = 60 * total + float(part)
    except ValueError as error:
        raise ValueError(
            f"must be a time, like 3s or 1:02:03.5, got {text!r}; options with a time go behind "
            "the files"
        ) from error
    return total * factor


def read_grain(value: str | float | None) -> float | str | None:
    """Read an amount of grain: a number from 0 to 1, or "auto", the source's own.

    Returns:
        The number or "auto"; None for none: 0 and "off".

    Raises:
        ValueError: It is neither.
    """
    if value in (None, "off", "auto"):
        return None if value == "off" else value
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = -1.0
    if not 0 <= amount <= 1:
        raise ValueError(f"grain must be a number from 0 to 1, or auto, got {value!r}")
    return amount or None
