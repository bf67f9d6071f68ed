"""Many small cases in one child, with a time limit for each; a crash costs only its own case."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .child import Outcome, _limit, _outcome_of


def run_batch(
    cases: Sequence[Callable[[], Any]], *, timeout_s: float, memory_bytes: int
) -> Iterator[Outcome]:
    """Do each case and yield how it ended, in order.

    Args:
        cases: What to do; what they return is not looked at.
        timeout_s: Of each.
        memory_bytes: Address space that the child may add to what it inherits.
    """
    index = 0
    while index < len(cases):
        for outcome in _run_until_it_dies(cases[index:], timeout_s, memory_bytes):
            yield outcome
            index += 1


def _run_until_it_dies(
    cases: Sequence[Callable[[], Any]], timeout_s: float, memory_bytes: int
) -> Iterator[Outcome]:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _limit(memory_bytes, None, None)
        for case in cases:
            outcome = _outcome_of(case)
            short = {"kind": outcome["kind"], "text": outcome.get("text", "")[-4000:]}
            try:
                os.write(write_end, json.dumps(short).encode() + b"\n")
            except OSError:  # nobody counts any more
                os._exit(1)
        os._exit(0)
    os.close(write_end)
    left, data, ending = len(cases), b"", None
    try:
        while left:
            is_ready = select.select([read_end], [], [], timeout_s)[0]
            piece = os.read(read_end, 1 << 16) if is_ready else b""
            if not piece:
                if not is_ready:
                    os.kill(pid, signal.SIGKILL)
                    ending = Outcome(kind="hung", text=f"more than {timeout_s:.0f} s")
                break
            *lines, data = (data + piece).split(b"\n")
            for line in lines:
                left -= 1
                yield Outcome(**json.loads(line))
    finally:
        os.close(read_end)
        status = _reap(pid)
    if left:
        if ending is None:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            name = signal.Signals(number).name if number else f"exit {status}"
            ending = Outcome(kind="killed", signal=number, text=name)
        yield ending


def _reap(pid: int) -> int:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]
