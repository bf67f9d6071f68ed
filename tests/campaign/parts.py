"""The parts of the campaign by name, in the order they run."""

from __future__ import annotations

from collections.abc import Callable

from .kill import held_twice, kill
from .tally import Campaign

PARTS: dict[str, Callable[[Campaign], None]] = {
    "kill": kill,
    "two-processes": held_twice,
}
