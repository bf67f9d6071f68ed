"""Counts and choices as a person would write them."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 frame", "2 frames", "0 shots".

    Args:
        number: How many, at least 0.
        noun: Of one.
        plural: Of several; None adds an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def one_of(names: Sequence[str]) -> str:
    """Names to choose from: "a", "a or b", "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
