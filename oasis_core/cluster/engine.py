"""Films on a cluster: each as `upscale_file` does it, with the segments done elsewhere."""

from __future__ import annotations

import logging
import queue
import uuid
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ..upscale import UpscaleReport, forecast_file, upscale_file
from ..upscale.job import Job
from ..upscale.journal import Journal
from ..upscale.plan import Plan
from ..upscale.run import JobRun
from ..upscale.segment import StageClock
from ..upscale.upscaler import OnProgress
from .connect import connect, import_ray, share_out
from .handover import publish
from .pool import START_S, Pool
from .spans import ScanEnd, Span
from .worker import Outcome, Ticket, WorkerSetup, manifest_sha256

logger = logging.getLogger(__name__)


class Cluster:
    """Workers with a model, ready for films; use as a context manager.

    Several threads may call `upscale_file` at once: that is how many films share the workers.

    Args:
        model: Name of a bundled model or path of an oasis checkpoint, the same on every machine.
        device: As for `oasis_core.load`, on the workers.
        dtype: Likewise.
        decoder: Likewise.
        transformer: Likewise.
        detail: Likewise.
        address: None starts a cluster on this machine, "auto" joins its own, HOST[:PORT] the one
            with this head.
        num_workers: None is one for each GPU, or for two CPUs.
        gpus_per_worker: None is one where there are GPUs.
        start_s: Seconds that the first worker may take to be ready.

    Raises:
        ValueError: Ray is missing, the cluster does not answer, or a worker cannot load the model.
    """

    def __init__(
        self,
        model: str = "oasis-tiny",
        device: str = "auto",
        dtype: str = "auto",
        decoder: str | None = None,
        *,
        transformer: bool = True,
        detail: float | None = None,
        address: str | None = None,
        num_workers: int | None = None,
        gpus_per_worker: float | None = None,
        start_s: float = START_S,
    ) -> None:
        self._ray = import_ray()
        self._is_ours = connect(self._ray, address, num_workers)
        try:
            self.share = share_out(
                self._ray,
                num_workers=num_workers,
                gpus_per_worker=gpus_per_worker,
                device=device,
            )
            setup = WorkerSetup(
                model=str(Path(model).absolute()) if Path(model).exists() else model,
                device=_device(device, self.share.num_gpus),
                dtype=dtype,
                decoder=decoder,
                transformer=transformer,
                detail=detail,
                num_threads=self.share.num_cpus,
            )
            self.pool = Pool(self._ray, setup, self.share, start_s=start_s)
        except BaseException:
            self._disconnect()
            raise
        self._upscaler = RemoteUpscaler(self.pool, dtype)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers; films that are not done can be continued, here or elsewhere."""
        self.pool.close()
        self._disconnect()

    def upscale_file(self, source: str | Path, destination: str | Path, **options: Any) -> Any:
        """Upscale one film; arguments, result and errors are `upscale.upscale_file`'s."""

        def engine(job: Job, plan: Plan, journal: Journal, on_progress: OnProgress | None) -> Any:
            return ClusterRun(self.pool, job, plan, journal, on_progress)

        report: UpscaleReport = upscale_file(
            source, destination, upscaler=self._upscaler, engine=engine, **options
        )
        return report

    def forecast_file(self, source: str | Path, destination: str | Path, **options: Any) -> Any:
        """Say what `upscale_file` would do; see `upscale.forecast_file`."""
        return forecast_file(source, destination, upscaler=self._upscaler, **options)

    def _disconnect(self) -> None:
        if self._is_ours:
            self._ray.shutdown()


class RemoteUpscaler:
    """What a job wants to know of its upscaler, told by a worker.

    Args:
        pool: The workers.
        requested_dtype: As the user said it.
    """

    def __init__(self, pool: Pool, requested_dtype: str) -> None:
        facts = pool.facts
        self._pool = pool
        self.traits, self.model_hash = facts.traits, facts.model_hash
        self.name = facts.traits.name
        self.device = torch.device(facts.device)
        self.requested_dtype = requested_dtype

    def plan(self, source_size: tuple[int, int], size: tuple[int, int], **options: Any) -> Plan:
        """Plan a job on a worker; see `VideoUpscaler.plan`."""
        return self._pool.plan((source_size, size), options)

    def upscale(self, video: torch.Tensor, **options: Any) -> torch.Tensor:
        """Upscale a clip on a worker; see `VideoUpscaler.upscale`."""
        return self._pool.upscale_clip(video, options)


class ClusterRun(JobRun):
    """Has the segments of a job done by the workers of a pool.

    Args:
        pool: The workers.
        job: What to do.
        plan: How it is cut up.
        journal: Where finished segments are noted, by this process alone.
        on_progress: Called with (frames done, frames in all).
    """

    def __init__(
        self,
        pool: Pool,
        job: Job,
        plan: Plan,
        journal: Journal,
        on_progress: OnProgress | None,
    ) -> None:
        super().__init__(job, plan, journal, on_progress)
        self._pool = pool
        self._answers: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._num_waiting = 0

    def upscale(self) -> None:
        """Do every segment that is not done yet."""
        film, ticket = self._pool.put(self._ticket())
        try:
            for item in self._pool.scan(ticket):
                if isinstance(item, str):
                    logger.warning("%s", item)
                elif isinstance(item, ScanEnd):
                    self.num_corrupt_frames = item.num_corrupt_frames
                else:
                    self._take(item, film, ticket)
                while not self._answers.empty():
                    self._finish(self._answers.get())
            while self._num_waiting:
                self._finish(self._answers.get())
        finally:
            self._pool.forget(film)

    def _ticket(self) -> Ticket:
        job, folder = self.job, self.journal.folder.absolute()
        # An absolute path: workers have another current folder.
        alone = replace(job, source=job.source.absolute(), upscaler=None, clock=StageClock())
        if job.look.mask is not None:
            alone = replace(alone, look=replace(job.look, mask=job.look.mask.absolute()))
        return Ticket(
            film=uuid.uuid4().hex,
            job=alone,
            plan=self.plan,
            folder=folder,
            source=job.identity()["source"],
            manifest_sha256=manifest_sha256(folder),
        )

    def _take(self, span: Span, film: int, ticket: Any) -> None:
        self.num_frames += span.num_frames
        self.num_segments += 1
        self.num_shots = span.shot + 1
        if self.is_finished(span.index, span.first_frame, span.num_frames):
            self.num_resumed += 1
            self.num_resumed_frames += span.num_frames
            self.progress.finish(span.num_frames)
            return
        self._num_waiting += 1
        self._pool.submit(film, ticket, span, self.tile).add_done_callback(self._answers.put)

    def _finish(self, answer: Future) -> None:
        self._num_waiting -= 1
        outcome: Outcome = answer.result()
        for text in outcome.warnings:
            logger.warning("%s", text)
        if outcome.content is not None:
            self._pool.say_once(
                f"{outcome.host} does not see {str(self.journal.folder.parent)!r}: its results "
                "travel over the network to this process, which writes them"
            )
        publish(outcome, self.journal.segment_path(outcome.record.index))
        self.journal.record(outcome.record)
        self.tile = outcome.record.tile
        for stage, seconds in outcome.seconds.items():
            self.job.clock.add(stage, seconds)
        self.num_held_frames += outcome.num_held_frames
        self.progress.finish(outcome.record.num_frames)


def _device(wanted: str, num_gpus: float) -> str:
    """What a worker calls its device: Ray shows it only its own GPU."""
    if num_gpus and wanted in ("auto", "cuda"):
        return "cuda"
    return "cpu" if wanted == "auto" else wanted
