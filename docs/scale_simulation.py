"""A discrete simulation of the engine: what limits it from one worker to ten thousand.

It follows the engine's rules, not its code: a scan of each open film makes segments known, one
driver hands them out one at a time and joins each film at its end, workers share a storage.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

SCAN, READY, DONE, DEATH, BACK, JOINED = range(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything that the simulation assumes, in seconds and bytes."""

    num_workers: int
    num_films: int
    segments_per_film: int
    segment_s: float
    """Of a worker, without waiting for storage."""
    segment_bytes: int
    """Read and written by a worker for one segment."""
    scan_s: float
    """Of the scan of one film, for one segment."""
    driver_s: float = 0.01
    """Of the driver for one segment."""
    join_bytes: int = 0
    """Moved by the driver for one segment when its film is joined; 0: as the segment."""
    storage_bytes_per_s: float = 10e9
    driver_bytes_per_s: float = 1e9
    open_films: int = 256
    """Films in work at once."""
    speed_spread: float = 0.1
    """Standard deviation of the workers' speeds, relative."""
    straggler_share: float = 0.01
    """Segments that take `straggler_factor` as long."""
    straggler_factor: float = 5.0
    worker_mtbf_s: float = 24 * 3600.0
    """Mean time to the death of a worker."""
    restart_s: float = 60.0
    """Until it is back, the model loaded."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out."""

    seconds: float
    """Until the last film was joined."""
    efficiency: float
    """Useful work over what the workers, at their speeds, could have done meanwhile."""
    driver_busy: float
    """Share of the time that the driver handed out segments."""
    storage_busy: float
    """Share of the time that the storage was moving segments."""
    join_busy: float
    """Share of the time that the driver was joining."""
    num_deaths: int
    most_known: int
    """Most segments known to the driver and not done at once: its memory."""


class _Line:
    """Serves one after the other."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.busy_s = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a request that comes now is done."""
        self.free_at = max(now, self.free_at) + seconds
        self.busy_s += seconds
        return self.free_at


class _Simulation:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.random = random.Random(fleet.seed)
        spread = fleet.speed_spread
        self.speeds = [max(0.3, self.random.gauss(1.0, spread)) for _ in range(fleet.num_workers)]
        self.events: list[tuple[float, int, int, int, int]] = []
        self.driver, self.storage, self.join = _Line(), _Line(), _Line()
        self.idle = list(range(fleet.num_workers))
        self.epoch = [0] * fleet.num_workers
        self.task: dict[int, tuple[int, float]] = {}
        self.pending: list[tuple[int, int]] = []  # (film, segments of it that are waiting)
        self.left = [fleet.segments_per_film] * fleet.num_films
        self.next_film = 0
        self.num_joined = 0
        self.num_deaths = 0
        self.num_known = self.most_known = 0
        # The driver holds two segments a worker; a scan stops when it is that far ahead.
        self.room = 2 * fleet.num_workers
        self.stalled: list[tuple[int, int]] = []
        self.now = 0.0

    def at(self, seconds: float, kind: int, a: int = 0, b: int = 0) -> None:
        self._count = getattr(self, "_count", 0) + 1
        heapq.heappush(self.events, (seconds, self._count, kind, a, b))

    def run(self) -> Outcome:
        fleet = self.fleet
        for _ in range(min(fleet.open_films, fleet.num_films)):
            self.open_film()
        for worker in range(fleet.num_workers):
            self.at(self.random.expovariate(1 / fleet.worker_mtbf_s), DEATH, worker)
        handlers = {
            SCAN: self.scanned, READY: self.handed_out, DONE: self.done,
            DEATH: self.died, BACK: self.is_back, JOINED: self.joined,
        }  # fmt: skip
        while self.num_joined < fleet.num_films:
            self.now, _, kind, a, b = heapq.heappop(self.events)
            handlers[kind](a, b)
        work = fleet.num_films * fleet.segments_per_film * fleet.segment_s
        return Outcome(
            seconds=self.now,
            efficiency=work / (self.now * sum(self.speeds)),
            driver_busy=self.driver.busy_s / self.now,
            storage_busy=self.storage.busy_s / self.now,
            join_busy=self.join.busy_s / self.now,
            num_deaths=self.num_deaths,
            most_known=self.most_known,
        )

    def open_film(self) -> None:
        if self.next_film < self.fleet.num_films:
            self.at(self.now + self.fleet.scan_s, SCAN, self.next_film, 1)
            self.next_film += 1

    def scanned(self, film: int, number: int) -> None:
        if self.num_known >= self.room:
            self.stalled.append((film, number))
            return
        self.num_known += 1
        self.most_known = max(self.most_known, self.num_known)
        heapq.heappush(self.pending, (film, number))
        if number < self.fleet.segments_per_film:
            self.at(self.now + self.fleet.scan_s, SCAN, film, number + 1)
        self.hand_out()

    def hand_out(self) -> None:
        while self.pending and self.idle:
            worker, (film, _) = self.idle.pop(), heapq.heappop(self.pending)
            self.task[worker] = (film, 0.0)
            self.at(
                self.driver.serve(self.now, self.fleet.driver_s), READY, worker, self.epoch[worker]
            )

    def handed_out(self, worker: int, epoch: int) -> None:
        if self.epoch[worker] != epoch:
            return
        fleet = self.fleet
        moved = self.storage.serve(self.now, fleet.segment_bytes / fleet.storage_bytes_per_s)
        slow = fleet.straggler_factor if self.random.random() < fleet.straggler_share else 1.0
        self.at(moved + fleet.segment_s * slow / self.speeds[worker], DONE, worker, epoch)

    def done(self, worker: int, epoch: int) -> None:
        if self.epoch[worker] != epoch:
            return
        film, _ = self.task.pop(worker)
        self.idle.append(worker)
        self.num_known -= 1
        if self.stalled:
            self.scanned(*self.stalled.pop(0))
        self.left[film] -= 1
        if not self.left[film]:
            moved = self.fleet.join_bytes or self.fleet.segment_bytes
            seconds = moved * self.fleet.segments_per_film / self.fleet.driver_bytes_per_s
            self.at(self.join.serve(self.now, seconds), JOINED, film)
        self.hand_out()

    def joined(self, film: int, _: int) -> None:
        del film
        self.num_joined += 1
        self.open_film()

    def died(self, worker: int, _: int) -> None:
        self.num_deaths += 1
        self.epoch[worker] += 1
        if worker in self.task:
            film, _ = self.task.pop(worker)
            heapq.heappush(self.pending, (film, 0))
        else:
            self.idle.remove(worker)
        self.at(self.now + self.fleet.restart_s, BACK, worker)
        self.hand_out()

    def is_back(self, worker: int, _: int) -> None:
        self.idle.append(worker)
        self.at(self.now + self.random.expovariate(1 / self.fleet.worker_mtbf_s), DEATH, worker)
        self.hand_out()


def simulate(fleet: Fleet) -> Outcome:
    """Simulate an archive on a fleet, event by event.

    Raises:
        ValueError: Something is not positive.
    """
    for name in ("num_workers", "num_films", "segments_per_film", "segment_s"):
        if getattr(fleet, name) <= 0:
            raise ValueError(f"{name} must be more than 0, got {getattr(fleet, name)}")
    return _Simulation(fleet).run()
