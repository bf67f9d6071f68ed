"""Counts and choices as a person would write them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

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


def one_of(names: Sequence[str]) -> str:
    """Names to choose from: "a", "a or b", "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def meant(word: str, names: Iterable[str]) -> str:
    """The words "; did you mean 'NAME'?" for the name nearest to a mistyped one, "" without one."""
    likely = difflib.get_close_matches(word, list(names), n=1, cutoff=LEAST_LIKENESS)
    return f"; did you mean {likely[0]!r}?" if likely else ""
