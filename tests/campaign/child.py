"""One piece of work in a process of its own: forked, limited, killable.

Forking a process that has torch and the model loaded takes milliseconds; starting one, seconds.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 60.0
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a piece of work ended."""

    kind: str
    """"done", "refused" (an error a user may see), "crashed" (any other), "killed" or "hung"."""
    value: Any = None
    """What the work returned, as JSON values."""
    text: str = ""
    """The sentence it was refused with, or the traceback."""
    signal: int = 0
    """What killed it."""

    @property
    def is_clean(self) -> bool:
        """Whether a user would have seen a result or one sentence."""
        is_sentence = bool(self.text.strip()) and "Traceback" not in self.text
        return self.kind == "done" or (self.kind == "refused" and is_sentence)


def run_in_child(
    work: Callable[[], Any],
    *,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int | None = None,
    file_bytes: int | None = None,
    user: int | None = None,
) -> Outcome:
    """Do something in a forked process and say how it ended.

    Args:
        work: What to do; returns JSON values.
        timeout_s: It is killed after so long.
        memory_bytes: Address space it may add to what it inherits.
        file_bytes: No file may become longer.
        user: Becomes this user first, who may write less than root.
    """
    child = Child(
        work, timeout_s=timeout_s, memory_bytes=memory_bytes, file_bytes=file_bytes, user=user
    )
    return child.wait()


class Child:
    """A forked process; see `run_in_child`."""

    def __init__(
        self,
        work: Callable[[], Any],
        *,
        timeout_s: float = TIMEOUT_S,
        memory_bytes: int | None = None,
        file_bytes: int | None = None,
        user: int | None = None,
    ) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._read_end)
                _limit(memory_bytes, file_bytes, user)
                _send(write_end, _outcome_of(work))
            finally:  # not even a late Ctrl-C may lead back into the campaign's own work
                os._exit(0)
        os.close(write_end)

    def wait(self) -> Outcome:
        """Wait for the end."""
        data, is_hung = b"", False
        while True:
            left = self._deadline - time.monotonic()
            if not select.select([self._read_end], [], [], max(0.0, left))[0]:
                os.kill(self.pid, signal.SIGKILL)
                is_hung = True
                break
            piece = os.read(self._read_end, 1 << 16)
            if not piece:
                break
            data += piece
        os.close(self._read_end)
        _, status = os.waitpid(self.pid, 0)
        if is_hung:
            return Outcome(kind="hung", text="it did not end in time")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return Outcome(kind="killed", signal=number, text=signal.Signals(number).name)
        if not data:
            return Outcome(kind="crashed", text="the process ended without a word")
        return Outcome(**json.loads(data))


def _limit(memory_bytes: int | None, file_bytes: int | None, user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if memory_bytes is not None:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a user's file
            used = int(file.read().split()[0]) * _PAGE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, resource.RLIM_INFINITY))
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))


def _outcome_of(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"kind": "done", "value": work()}
    except (ValueError, OSError) as error:  # what the shell command turns into one sentence
        return {"kind": "refused", "text": str(error)}
    except BaseException:
        return {"kind": "crashed", "text": traceback.format_exc()[-700:]}


def _send(write_end: int, outcome: dict[str, Any]) -> None:
    data = json.dumps(outcome).encode()
    while data:
        data = data[os.write(write_end, data) :]
