"""The workers of a cluster: who is idle, who has what, and what happens when one dies."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

from .connect import Share
from .spans import ScanEnd, Span
from .worker import (
    ClusterError,
    SegmentWorker,
    Ticket,
    WorkerFacts,
    WorkerSetup,
    scan_film,
    versions_here,
)

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 4
"""Times that a segment is tried before its film is given up: its frames may be what kills."""
IN_FLIGHT_PER_WORKER = 2
"""Segments handed out or about to be: enough that no worker waits for the driver."""
SCAN_AHEAD = 8
"""Spans that a scan may be ahead of the driver."""
START_S = 180.0
"""How long the first worker may take to load the model."""
ASK_AGAIN_S = 0.5


@dataclass(order=True, slots=True)
class _Task:
    order: tuple[int, int]
    ticket: Any = field(compare=False)
    span: Span = field(compare=False)
    tile: tuple[int, int] = field(compare=False)
    future: Future = field(compare=False)
    attempts: int = field(compare=False, default=0)


@dataclass(slots=True)
class _Member:
    actor: Any
    facts: WorkerFacts | None = None
    task: _Task | None = None
    is_dead: bool = False


class Pool:
    """Hands segments to workers, one each, those of earlier films first.

    Calls to Ray are answered on a thread of its own, so nothing is polled, however many workers.

    Args:
        ray: Connected.
        setup: What every worker must have.
        share: How many workers, and what each gets.
        start_s: Seconds that the first worker may take to be ready.

    Raises:
        ClusterError: No worker gets ready in time.
        ValueError: A worker cannot load the model.
    """

    def __init__(
        self, ray: Any, setup: WorkerSetup, share: Share, *, start_s: float = START_S
    ) -> None:
        self._ray = ray
        self._setup = setup
        self._share = share
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: list[_Task] = []
        self._idle: list[_Member] = []
        self._failure: BaseException | None = None
        self._said: set[str] = set()
        self._film_numbers = itertools.count()
        self._room = threading.BoundedSemaphore(IN_FLIGHT_PER_WORKER * share.num_workers)
        self._is_ready = threading.Event()
        self.num_retries = 0
        """Segments that were handed out again because a worker died."""
        actor = ray.remote(
            num_cpus=share.num_cpus, num_gpus=share.num_gpus, max_restarts=-1, max_task_retries=0
        )(SegmentWorker)
        self._scan = ray.remote(
            num_cpus=0,
            num_returns="streaming",
            scheduling_strategy="SPREAD",
            _generator_backpressure_num_objects=SCAN_AHEAD,
        )(scan_film)
        self._thread = threading.Thread(target=self._answer, name="oasis-pool", daemon=True)
        self._thread.start()
        self._members = [_Member(actor.remote()) for _ in range(share.num_workers)]
        for member in self._members:
            self._ask(member)
        try:
            self._wait_for_first(start_s)
        except BaseException:
            self.close()
            raise

    def _wait_for_first(self, start_s: float) -> None:
        if not self._is_ready.wait(start_s):
            has = self._ray.cluster_resources()
            raise ClusterError(
                f"a worker must be ready within {start_s:g} s and none is: each asks for "
                f"{self._share.num_cpus} CPU and {self._share.num_gpus:g} GPU, the cluster has "
                f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g} in all, or is busy; ask for "
                "less, or wait"
            )
        self._check()

    @property
    def facts(self) -> WorkerFacts:
        """Of the worker that was ready first; the others have the same model."""
        return self._facts

    def plan(self, sizes: Any, options: dict[str, Any]) -> Any:
        """Plan a job on a worker; see `VideoUpscaler.plan`."""
        member = next(m for m in self._members if m.facts is not None and not m.is_dead)
        return self._value(member.actor.plan.remote(sizes, options))

    def upscale_clip(self, video: Any, options: dict[str, Any]) -> Any:
        """Upscale a clip on a worker; see `VideoUpscaler.upscale`."""
        member = next(m for m in self._members if m.facts is not None and not m.is_dead)
        return self._value(member.actor.upscale_clip.remote(video, options))

    def put(self, ticket: Ticket) -> tuple[int, Any]:
        """Make a film known; returns its number and what `scan` and `submit` take."""
        return next(self._film_numbers), self._ray.put(ticket)

    def scan(self, ticket: Any) -> Iterator[Span | ScanEnd | str]:
        """Read a film on some machine of the cluster, only a little ahead of who asks."""
        refs = self._scan.remote(ticket)
        while True:
            # Waiting inside `next` could not be interrupted.
            while not self._ray.wait([refs], timeout=1.0)[0]:
                self._check()
            ref = next(refs, None)
            if ref is None:
                return
            yield self._value(ref)

    def submit(self, film: int, ticket: Any, span: Span, tile: tuple[int, int]) -> Future:
        """Have a segment done; waits while enough others are on their way.

        Returns:
            A future with the `Outcome`.
        """
        while not self._room.acquire(timeout=0.5):
            self._check()
        task = _Task((film, span.index), ticket, span, tile, Future())
        task.future.add_done_callback(lambda _: self._room.release())
        with self._lock:
            if self._failure is None:
                heapq.heappush(self._pending, task)
                self._hand_out()
                return task.future
        task.future.set_exception(self._failure)
        return task.future

    def say_once(self, text: str) -> None:
        """Warn, unless the same was said before."""
        with self._lock:
            is_new = text not in self._said
            self._said.add(text)
        if is_new:
            logger.warning("%s", text)

    def forget(self, film: int) -> None:
        """Begin nothing more of a film."""
        with self._lock:
            mine = [task for task in self._pending if task.order[0] == film]
            self._pending = [task for task in self._pending if task.order[0] != film]
            heapq.heapify(self._pending)
        for task in mine:
            task.future.cancel()

    def close(self, failure: BaseException | None = None) -> None:
        """Stop the workers; what is on its way fails. Calling it twice is harmless."""
        self._fail(failure or ClusterError("the cluster was closed; the same command continues"))
        self._events.put(("stop",))
        for member in self._members:
            self._ray.kill(member.actor, no_restart=True)

    # Answers, all on one thread

    def _answer(self) -> None:
        while True:
            event, *rest = self._events.get()
            if event == "stop":
                return
            try:
                self._ready(*rest) if event == "ready" else self._done(*rest)
            except Exception as error:  # whatever it is, nobody may wait for ever
                logger.exception("the pool failed")
                self._fail(error)

    def _ask(self, member: _Member) -> None:
        if self._failure is not None:
            return
        future = member.actor.prepare.remote(versions_here(), asdict(self._setup)).future()
        future.add_done_callback(lambda f: self._events.put(("ready", member, f)))

    def _ready(self, member: _Member, future: Future) -> None:
        error = future.exception()
        if error is None:
            self._welcome(member, future.result())
        elif isinstance(error, self._ray.exceptions.ActorUnavailableError):
            threading.Timer(ASK_AGAIN_S, self._ask, (member,)).start()
        elif isinstance(error, self._ray.exceptions.RayActorError):
            self._bury(member, error)
        else:
            self._fail(_cause(error))

    def _welcome(self, member: _Member, facts: WorkerFacts) -> None:
        if not self._is_ready.is_set():
            self._facts = facts
        mine, first = (facts.model_hash, facts.dtype), (self._facts.model_hash, self._facts.dtype)
        if mine[0] != first[0]:
            self._fail(
                ClusterError(
                    f"all workers must have the same model file: {facts.host} has "
                    f"{mine[0][:12]} and {self._facts.host} {first[0][:12]}; copy one to both"
                )
            )
            return
        if mine[1] != first[1] and facts.traits.arithmetic == "own":
            self._fail(
                ClusterError(
                    f"all workers must hold the model in one dtype: {facts.host} chose {mine[1]} "
                    f"and {self._facts.host} {first[1]}; fix it with --dtype"
                )
            )
            return
        with self._lock:
            member.facts, member.task = facts, None
            self._idle.append(member)
            self._hand_out()
        self._is_ready.set()

    def _done(self, member: _Member, task: _Task, future: Future) -> None:
        error = future.exception()
        if not isinstance(error, self._ray.exceptions.RayActorError):
            with self._lock:
                member.task = None
                self._idle.append(member)
                self._hand_out()
            if error is None:
                task.future.set_result(future.result())
            else:
                task.future.set_exception(_cause(error))
            return
        self._retry(task, member)
        member.task = None
        self._ask(member)

    def _retry(self, task: _Task, member: _Member) -> None:
        host = member.facts.host if member.facts else "a machine"
        if task.attempts >= MOST_ATTEMPTS:
            task.future.set_exception(
                ClusterError(
                    f"segment {task.span.index} (from frame {task.span.first_frame}) ended "
                    f"{task.attempts} workers, the last on {host}; most often memory is short: "
                    "use a smaller --tile or --segment, or fewer workers"
                )
            )
            return
        logger.warning("a worker on %s died; segment %d is done again", host, task.span.index)
        with self._lock:
            self.num_retries += 1
            if self._failure is None:
                heapq.heappush(self._pending, task)
                self._hand_out()
                return
        task.future.set_exception(self._failure)

    def _bury(self, member: _Member, error: BaseException) -> None:
        member.is_dead = True
        if all(m.is_dead for m in self._members):
            self._fail(ClusterError(f"no worker is left ({str(error).splitlines()[0]})"))

    def _hand_out(self) -> None:
        """Give waiting segments to idle workers; the lock is held."""
        while self._pending and self._idle:
            task, member = heapq.heappop(self._pending), self._idle.pop()
            member.task = task
            task.attempts += 1
            future = member.actor.upscale.remote(task.ticket, task.span, task.tile).future()
            future.add_done_callback(
                lambda f, m=member, t=task: self._events.put(("done", m, t, f))
            )

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
            waiting = [*self._pending, *(m.task for m in self._members if m.task is not None)]
            self._pending.clear()
        for task in waiting:
            if not task.future.done():
                task.future.set_exception(self._failure)
        self._is_ready.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _value(self, ref: Any) -> Any:
        """What a call returned, or its own error without Ray's wrapping."""
        while True:
            try:
                return self._ray.get(ref, timeout=1.0)
            except self._ray.exceptions.GetTimeoutError:
                self._check()
            except self._ray.exceptions.RayError as error:
                raise _cause(error) from error


def _cause(error: BaseException) -> BaseException:
    """The error as the worker raised it; Ray's own as one sentence."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return cause
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return error
    return ClusterError(f"the cluster failed ({(str(error).splitlines() or [''])[0]})")
