"""Counting what was tried, what survived and what did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any


@dataclass(slots=True, kw_only=True)
class Fault:
    """One kind of fault."""

    name: str
    tried: int = 0
    survived: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    def count(self, problem: str | None) -> None:
        """Count one case; None is survived."""
        self.tried += 1
        if problem is None:
            self.survived += 1
        else:
            self.failures.append(problem)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, failures shortened."""
        return {
            "fault": self.name,
            "tried": self.tried,
            "survived": self.survived,
            "failed": len(self.failures),
            "note": self.note,
            "seconds": round(self.seconds, 1),
            "failures": [text[:600] for text in self.failures[:99]],
        }


@dataclass(slots=True, kw_only=True)
class Campaign:
    """What all parts share."""

    upscaler: Any
    """The bundled model in float32 on the CPU."""
    scratch: Path
    """An empty folder."""
    is_long: bool
    """Whether to take the time for many cases."""
    seed: int
    only: str = ""
    """Name of the one fault to try; empty is all."""
    share: float = 1.0
    """Of the number of cases."""
    on_fault: Callable[[Fault], None] | None = None
    """Called with each kind of fault when it is over."""
    faults: list[Fault] = field(default_factory=list)

    def random(self, name: str) -> Random:
        """Randomness of one fault, the same whatever else is tried."""
        return Random(f"{self.seed} {name}")

    def cases(self, short: int, long: int) -> int:
        """How many cases to try."""
        return max(1, round((long if self.is_long else short) * self.share))

    @contextmanager
    def fault(self, name: str) -> Iterator[tuple[Fault, Path]]:
        """Count one kind of fault in a folder of its own."""
        fault = Fault(name=name)
        folder = self.scratch / f"{len(self.faults):02d}"
        folder.mkdir()
        begun = time.perf_counter()
        try:
            yield fault, folder
        finally:
            fault.seconds = time.perf_counter() - begun
            self.faults.append(fault)
            if self.on_fault is not None:
                self.on_fault(fault)
