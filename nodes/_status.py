"""What the page shows of a node at work: stage, how far, how fast, how much longer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..oasis_core.choices import BEFORE_WORK

EVERY_S = 0.25
"""Between two messages, but for those that say something new."""
SPEED_OVER_S = 30.0
"""The time left follows from the speed of so many last seconds."""
LEAST_SHARE = 0.05
"""Done since the first sign of progress before a time left is told; less says too little."""
LEAST_SAMPLES = 3


class Status:
    """Turns what a run tells into messages.

    Args:
        send: Takes a message, a dict of JSON values.
        unit: What is counted, a word of web/text.js.
        clock: Gives seconds.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._unit, self._clock = send, unit, clock
        self._start_s = self._sent_s = clock()
        self._samples: deque[tuple[float, float]] = deque()
        self._place: dict[str, int] = {}
        self._stage: tuple[str, int, int] = ("start", 0, 0)
        self._done = self._total = 0.0
        self._taken_over = 0.0
        self._has_begun = False
        self._tell(is_new=True)

    def stage(self, name: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done, and which step of it."""
        if not self._has_begun and name not in BEFORE_WORK:
            self._has_begun, self._taken_over = True, self._done
        is_new = name != self._stage[0]
        self._stage = (name, done, total)
        self._tell(is_new=is_new)

    def place(self, **numbers: int) -> None:
        """Say where the run is, such as shot and segment."""
        self._place = numbers

    def report(self, done: float, total: float) -> None:
        """Say how much is done of how much."""
        self._done, self._total = done, total
        if self._stage[0] == "start":  # it has no stages of its own
            self.stage("work")
        now_s, samples = self._clock(), self._samples
        if self._has_begun and (not samples or now_s - samples[-1][0] >= EVERY_S):
            samples.append((now_s, done))
            while len(samples) > 2 and now_s - samples[0][0] > SPEED_OVER_S:
                samples.popleft()
        self._tell(is_new=False)

    def finish(self) -> None:
        """Say that all is done, how long it took and how fast it was."""
        seconds = self._clock() - self._start_s
        values = {**self._counts(), "seconds": seconds, "finished": True}
        if self._total and seconds > 0:
            values |= {"done": self._total, "fps": (self._total - self._taken_over) / seconds}
        self._send(values)

    def kept(self) -> None:
        """Say that the result is that of an earlier run."""
        self._send({"kept": True})

    def _tell(self, *, is_new: bool) -> None:
        now_s = self._clock()
        if not is_new and now_s - self._sent_s < EVERY_S:
            return
        self._sent_s = now_s
        name, done, total = self._stage
        values = {**self._counts(), "stage": name, "seconds": now_s - self._start_s, **self._place}
        if total:
            values |= {"step": min(done + 1, total), "steps": total}
        speed = self._speed()
        if speed:
            # As of the last report; once that is over, nothing is known.
            left_s = (self._total - self._done) / speed - (now_s - self._samples[-1][0])
            values |= {"eta_s": left_s} if left_s > 0 else {}
        self._send(values)

    def _counts(self) -> dict[str, Any]:
        return {"unit": self._unit, "done": self._done, "total": self._total}

    def _speed(self) -> float | None:
        """Units per second, once enough was seen of them."""
        samples = self._samples
        if len(samples) < LEAST_SAMPLES or self._done >= self._total:
            return None
        seen = samples[-1][1] - samples[0][1]
        seconds = samples[-1][0] - samples[0][0]
        is_enough = self._done - self._taken_over >= LEAST_SHARE * self._total and seconds > 0
        return seen / seconds if is_enough and seen > 0 else None
