"""Marks that a forked run leaves in shared memory, so that its killer knows where it was."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

STAGES = (
    "start",
    "decode",
    "resize",
    "model",
    "blend",
    "encode",
    "segment close",
    "journal write",
    "mux",
    "rename",
    "clean up",
)
MAX_SEGMENTS = 64
_ENTRY = struct.Struct("<Id")  # times entered, seconds inside
_SEGMENTS_AT = 64 + _ENTRY.size * len(STAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """When to kill."""

    stage: str
    entry: int
    """Which time the stage is entered, from 1."""
    delay_s: float
    """How long after that; 0 is at once."""


class Marks:
    """Shared memory of a process and the child that does the work."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)

    @property
    def stage(self) -> str:
        """Where the child is, or was when it ended."""
        return STAGES[self._memory[0]]

    def entries(self, stage: str) -> tuple[int, float]:
        """How often a stage was entered, and seconds inside."""
        return _ENTRY.unpack_from(self._memory, 64 + _ENTRY.size * STAGES.index(stage))

    def segments_begun(self) -> int:
        """How many times work on a segment began."""
        return sum(self._memory[_SEGMENTS_AT : _SEGMENTS_AT + MAX_SEGMENTS])

    def forget_stages(self) -> None:
        """Begin counting entries anew; begun segments stay."""
        self._memory[:_SEGMENTS_AT] = bytes(_SEGMENTS_AT)

    def begin_segment(self, index: int) -> None:
        """Count that work on a segment begins."""
        self._memory[_SEGMENTS_AT + index] += 1

    @contextmanager
    def inside(self, stage: str, trigger: Trigger | None) -> Iterator[None]:
        """Mark a stage, and be killed in it if so ordered."""
        number = STAGES.index(stage)
        outer, self._memory[0] = self._memory[0], number
        count, seconds = self.entries(stage)
        _ENTRY.pack_into(self._memory, 64 + _ENTRY.size * number, count + 1, seconds)
        if trigger is not None and (trigger.stage, trigger.entry) == (stage, count + 1):
            die_after(trigger.delay_s)
        begun = time.perf_counter()
        try:
            yield
        finally:
            count, seconds = self.entries(stage)
            seconds += time.perf_counter() - begun
            _ENTRY.pack_into(self._memory, 64 + _ENTRY.size * number, count, seconds)
            self._memory[0] = outer


def die_after(delay_s: float) -> None:
    """End this process by SIGKILL; from a thread, so at whatever it does then."""
    if delay_s <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    timer = threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def install(marks: Marks, trigger: Trigger | None) -> None:
    """Have the engine of this (forked) process leave marks; what it does stays the same."""
    from oasis_core.upscale.journal import Journal
    from oasis_core.upscale.run import LocalRun
    from oasis_core.upscale.segment import StageClock
    from oasis_core.video import SegmentWriter

    def marked(owner: type, name: str, stage: str) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with marks.inside(stage, trigger):
                return original(*args, **kwargs)

        setattr(owner, name, wrapper)

    marked(SegmentWriter, "close", "segment close")
    marked(Journal, "_append", "journal write")
    marked(Journal, "_write_atomically", "journal write")
    marked(Journal, "remove", "clean up")
    marked(Path, "replace", "rename")
    clock, do = StageClock.__call__, LocalRun.do

    @contextmanager
    def marked_clock(self: StageClock, stage: str) -> Iterator[None]:
        if stage not in STAGES:
            with clock(self, stage):
                yield
            return
        with marks.inside(stage, trigger), clock(self, stage):
            yield

    def counted(self: LocalRun, segment: Any) -> None:
        marks.begin_segment(segment.index)
        do(self, segment)

    StageClock.__call__ = marked_clock
    LocalRun.do = counted
