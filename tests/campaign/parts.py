"""The parts of the campaign by name, in the order they run."""

from __future__ import annotations

from collections.abc import Callable

from .damage import mutation, mutation_of_data, truncation
from .disk import full_disk, journals, places
from .every_call import every_call
from .golden import golden
from .inputs import zoo
from .kill import held_twice, kill
from .memory import flat, huge, not_finite, out_of_memory
from .security import isolated
from .shell import shell
from .tally import Campaign
from .wild import wild

PARTS: dict[str, Callable[[Campaign], None]] = {
    "kill": kill,
    "two-processes": held_twice,
    "every-call": every_call,
    "journal": journals,
    "disk": full_disk,
    "places": places,
    "shell": shell,
    "zoo": zoo,
    "wild": wild,
    "truncation": truncation,
    "mutation": mutation,
    "mutation-of-data": mutation_of_data,
    "memory": flat,
    "out-of-memory": out_of_memory,
    "not-finite": not_finite,
    "huge": huge,
    "security": isolated,
    "golden": golden,
}
