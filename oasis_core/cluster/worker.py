"""A worker: holds the model once and does one segment after the other, of any film."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import torch

from .. import load
from ..digests import file_sha256
from ..families.restorer import Traits
from ..malloc import keep_freed_memory
from ..upscale.job import Job
from ..upscale.journal import MANIFEST, SegmentRecord, segment_name
from ..upscale.look import STAGES
from ..upscale.plan import Plan
from ..upscale.run import LocalRun
from ..upscale.segment import StageClock
from ..version import __version__
from ..video import VideoError
from .spans import ScanEnd, Span, read_span, scan

FILMS_KEPT = 4
"""Films of which a worker remembers that their paths were checked."""


class ClusterError(ValueError):
    """The cluster cannot do the work; one sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """What every worker must have."""

    model: str
    """Name of a bundled model or path of an oasis checkpoint."""
    device: str
    """Where the model runs."""
    dtype: str
    """Its arithmetic; "auto" is decided by what the device is, and the plan keeps it."""
    decoder: str | None
    """Of a model with two."""
    transformer: bool
    """Whether it is used."""
    detail: float | None
    """Share of the vivid end; None for the model's own."""
    num_threads: int
    """CPU threads of one worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker says of itself."""

    host: str
    pid: int
    device: str
    dtype: str
    traits: Traits
    """What the model is like."""
    model_hash: str
    """What tells its results apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One film, as workers need it."""

    film: str
    """Tells films apart."""
    job: Job
    """Without the model."""
    plan: Plan
    folder: Path
    """Of the journal."""
    source: dict[str, Any]
    """Fingerprint of the source."""
    manifest_sha256: str
    """Of the journal's manifest, which proves that the folder is shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A segment is done."""

    record: SegmentRecord
    path: Path
    """Where its file lies until the driver gives it its name; on the worker's own disk, and gone,
    if it travels in `content`."""
    content: bytes | None
    """The file itself, from a worker that does not see the driver's folder."""
    seconds: dict[str, float]
    """Per stage."""
    warnings: tuple[str, ...]
    """What was worth a warning."""
    host: str
    num_held_frames: int = 0
    """Frames that were known and not computed."""


def versions_here() -> dict[str, str]:
    """Versions that decide the bytes of a segment."""
    return {"oasis": __version__, "torch": torch.__version__, "av": av.__version__}


class SegmentWorker:
    """Does segments; made a Ray actor by the pool."""

    def __init__(self) -> None:
        self._upscaler = None
        self._runs: OrderedDict[str, LocalRun] = OrderedDict()

    def prepare(self, versions: dict[str, str], settings: dict[str, Any]) -> WorkerFacts:
        """Load the model, unless it is there.

        Args:
            versions: Of the driver: other ones may give other pixels.
            settings: Fields of `WorkerSetup`; as plain values, since another version of this
                program may have other fields, which is for `check_versions` to say.

        Raises:
            ClusterError: Versions differ.
            ValueError: The model, device or dtype cannot be used here.
        """
        if self._upscaler is None:
            check_versions(versions)
            setup = WorkerSetup(**settings)
            keep_freed_memory()
            torch.set_num_threads(setup.num_threads)
            try:
                self._upscaler = load(
                    setup.model,
                    setup.device,
                    setup.dtype,
                    setup.decoder,
                    transformer=setup.transformer,
                    detail=setup.detail,
                )
            except (ValueError, OSError) as error:
                raise ClusterError(f"worker on {socket.gethostname()}: {error}") from error
        upscaler = self._upscaler
        return WorkerFacts(
            host=socket.gethostname(),
            pid=os.getpid(),
            device=str(upscaler.device),
            dtype=str(upscaler.dtype).removeprefix("torch."),
            traits=upscaler.traits,
            model_hash=upscaler.model_hash,
        )

    def plan(self, sizes: tuple[tuple[int, int], tuple[int, int]], options: dict[str, Any]) -> Plan:
        """Plan a job from this worker's free memory; see `VideoUpscaler.plan`."""
        return self._upscaler.plan(*sizes, **options)

    def upscale_clip(self, video: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """Upscale a clip; see `VideoUpscaler.upscale`."""
        return self._upscaler.upscale(video, **options)

    def upscale(self, ticket: Ticket, span: Span, tile: tuple[int, int]) -> Outcome:
        """Do one segment and leave its file in the journal's folder under a name of its own.

        Nobody else writes that name, so a worker that was given up and is still alive does no
        harm. Where this machine does not see that folder, the file travels in the answer.

        Raises:
            ClusterError: The source is not the driver's.
            VideoError: The source cannot be read or the segment not be written.
            ValueError: The model's result is not finite, or memory does not suffice.
        """
        with _collected_warnings() as warnings:
            run = self._run_of(ticket)
            run.job.clock.seconds = dict.fromkeys(STAGES, 0.0)
            held_before = run.num_held_frames
            run.segments.tile = min(run.segments.tile, tile, key=lambda sides: sides[0] * sides[1])
            with run.job.clock("decode"):
                segment = read_span(ticket.job, span)
            run.do(segment)
        loose: _LooseSegments = run.journal
        path = loose.segment_path(span.index)
        return Outcome(
            record=loose.records[-1],
            path=path,
            content=None if loose.folder == ticket.folder else _taken(path),
            seconds=dict(run.job.clock.seconds),
            warnings=tuple(warnings),
            host=socket.gethostname(),
            num_held_frames=run.num_held_frames - held_before,
        )

    def _run_of(self, ticket: Ticket) -> LocalRun:
        if ticket.film not in self._runs:
            check_source(ticket)
            job = replace(ticket.job, upscaler=self._upscaler, clock=StageClock())
            folder = ticket.folder if sees_folder(ticket) else Path(tempfile.gettempdir())
            self._runs[ticket.film] = LocalRun(job, ticket.plan, _LooseSegments(folder), None)
            if len(self._runs) > FILMS_KEPT:
                self._runs.popitem(last=False)
        run = self._runs[ticket.film]
        run.journal = _LooseSegments(run.journal.folder)
        return run


class _LooseSegments:
    """Stands where a run writes into its journal: the driver alone keeps the real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[SegmentRecord] = []
        self._token = uuid.uuid4().hex[:12]

    def segment_path(self, index: int) -> Path:
        return self.folder / segment_name(index, self._token)

    def record(self, record: SegmentRecord) -> None:
        self.records.append(record)


def scan_film(ticket: Ticket) -> Iterator[Span | ScanEnd | str]:
    """Yield the spans of a film; a string is a warning."""
    with _collected_warnings() as warnings:
        check_source(ticket)
        for item in scan(ticket.job, ticket.plan):
            yield from warnings
            warnings.clear()
            yield item
    yield from warnings


def check_versions(expected: dict[str, str]) -> None:
    """Refuse to work where results might differ.

    Raises:
        ClusterError: A version differs from the driver's.
    """
    here = versions_here()
    wrong = [
        f"{name} {here[name]} (driver: {v})" for name, v in expected.items() if here[name] != v
    ]
    if wrong:
        raise ClusterError(
            f"worker on {socket.gethostname()} must have the driver's versions and has "
            f"{', '.join(wrong)}; install the same everywhere"
        )


def sees_folder(ticket: Ticket) -> bool:
    """Whether the journal's folder is the driver's here too, not one that has its name."""
    manifest = ticket.folder / MANIFEST
    return manifest.is_file() and file_sha256(manifest) == ticket.manifest_sha256


def check_source(ticket: Ticket) -> None:
    """See the source as the driver does.

    Raises:
        ClusterError: It is missing here or something else.
    """
    host = socket.gethostname()
    remedy = (
        "put sources on a file system that every machine mounts at the same path, or name their URL"
    )
    try:
        seen = ticket.job.source.again().fingerprint()
    except (OSError, VideoError) as error:
        raise ClusterError(
            f"{str(ticket.job.source)!r} cannot be read on {host} ({error}); {remedy}"
        ) from error
    if seen != ticket.source:
        raise ClusterError(
            f"{str(ticket.job.source)!r} is another file on {host} than on the driver; {remedy}"
        )


def _taken(path: Path) -> bytes:
    content = path.read_bytes()
    path.unlink()
    return content


def manifest_sha256(folder: Path) -> str:
    """What proves to a worker that it sees the driver's folder."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Gather warnings of this package, to be said by the driver: a worker has no terminal."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector, log = Collector(logging.WARNING), logging.getLogger(__package__.split(".")[0])
    log.addHandler(collector)
    try:
        yield found
    finally:
        log.removeHandler(collector)
