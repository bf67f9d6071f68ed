"""Progress and cancelling of a node at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.utils

from .._status import Status

PROGRESS_STEPS = 1000
"""ComfyUI shows shares; frames are counted in fractions while a segment is at work."""
STATUS_EVENT = "oasis.progress"


class Progress:
    """Moves the running node's progress bar, tells the page what it does, and heeds cancelling.

    To be called with (units done, units in all), by default of frames; its `stage` with what is
    being done.
    """

    def __init__(self, unit: str = "frames") -> None:
        self._server = server()
        self._node = getattr(self._server, "last_node_id", None)  # None where nobody listens
        self._bar = comfy.utils.ProgressBar(PROGRESS_STEPS)
        self._status = Status(self._send, unit)

    def __call__(self, done: float, total: float) -> None:
        """Report."""
        # The bar's own check is throttled and may never come.
        check()
        if total:
            self._bar.update_absolute(round(PROGRESS_STEPS * done / total), PROGRESS_STEPS)
        self._status.report(done, total)

    def stage(self, name: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done: a word of web/text.js, and which step of how many."""
        check()
        self._status.stage(name, done, total)

    def check(self) -> None:
        """Stop here if the user has cancelled."""
        check()

    def step(self, name: str) -> Callable[[], None]:
        """A function that says that a stage is at work, for loops that cannot say how far."""
        return lambda: self.stage(name)

    def found(self) -> None:
        """Say that an earlier run has left the result."""
        self._bar.update_absolute(PROGRESS_STEPS, PROGRESS_STEPS)
        self._status.kept()

    def finish(self) -> None:
        """Say that all is done."""
        self._bar.update_absolute(PROGRESS_STEPS, PROGRESS_STEPS)
        self._status.finish()

    def begin_segment(self, shot: int, segment: int) -> None:
        """Say where the run is, both from 0."""
        self._status.place(shot=shot + 1, segment=segment + 1)

    def _send(self, values: dict[str, Any]) -> None:
        if self._node is not None:
            values = {"node": self._node, **values}
            self._server.send_sync(STATUS_EVENT, values, self._server.client_id)


@contextmanager
def progress(unit: str = "frames") -> Iterator[Progress]:
    """Progress from the first moment of a node, finished when the block ends well."""
    report = Progress(unit)
    yield report
    report.finish()


def server() -> Any:
    """ComfyUI's server; None where there is none, as in tests."""
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def check(*_: object) -> None:
    """Stop here if the user has cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()
