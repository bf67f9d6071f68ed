"""Upscaling a file into a file: streaming both ways, resumable at every segment."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from .. import __version__
from ..checkpoint import file_sha256
from ..geometry import target_size
from ..video import (
    EncodeSpec,
    MuxReport,
    SegmentWriter,
    VideoError,
    VideoInfo,
    VideoReader,
    check_destination,
    check_encoder,
    mux,
    probe,
)
from ..video.errors import write_error
from .assemble import SegmentAssembler, SegmentFrames
from .journal import (
    Journal,
    SegmentRecord,
    file_fingerprint,
    journal_path,
    sync_folder,
)
from .memory import peak_cuda_bytes, peak_rss_bytes
from .plan import HALO_FRAMES, Plan
from .report import UpscaleReport
from .segment import Look, StageClock, to_pixels
from .upscaler import FrameProgress, OnProgress, VideoUpscaler

logger = logging.getLogger(__name__)

DEFAULT_CODEC = "h264"
STAGES = ("decode", "shots", "resize", "model", "blend", "encode", "mux")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One run, once everything that can be checked beforehand is checked."""

    source: Path
    destination: Path
    info: VideoInfo
    look: Look
    spec: EncodeSpec
    upscaler: VideoUpscaler
    shots: bool
    requested: dict[str, Any]
    """Plan values that the user fixed."""
    overwrite: bool
    clock: StageClock


def upscale_file(
    source: str | Path,
    destination: str | Path,
    *,
    upscaler: VideoUpscaler,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    strength: float = 1.0,
    color_anchor: bool = True,
    shots: bool = True,
    tile_px: int | None = None,
    segment_frames: int | None = None,
    halo_frames: int = HALO_FRAMES,
    codec: str | None = None,
    crf: float | None = None,
    preset: str | None = None,
    bit_depth: int | None = None,
    overwrite: bool = False,
    fresh: bool = False,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress | None = None,
) -> UpscaleReport:
    """Upscale a video file, with its sound and everything else that the new file can hold.

    Frames are decoded, upscaled and encoded segment by segment, so memory does not depend on the
    length. Finished segments are kept in `DESTINATION.oasis`; the same call continues there after
    the process was stopped in whatever way, and the result is the same. The destination appears
    complete or not at all.

    Args:
        source: Video file.
        destination: File to write; its ending chooses the container.
        upscaler: Model, device and arithmetic.
        scale: Factor for both sides; or `size`.
        size: Exact (width, height) in pixels.
        strength: Share of the model's work: 0 is the plain resize, 1 the full model.
        color_anchor: Keep the low frequencies of the input.
        shots: Find shot cuts and keep shots apart.
        tile_px: Tile side in output pixels, instead of the planned one.
        segment_frames: Frames per segment, instead of the planned number.
        halo_frames: Frames read on both sides of a segment.
        codec: "h264", "h265" or "ffv1".
        crf: Constant rate factor, lower is better; None is the codec's default.
        preset: Speed preset of the encoder.
        bit_depth: Bits per sample of the output; None keeps the source's.
        overwrite: Replace an existing destination.
        fresh: Start over instead of continuing an unfinished run.
        on_plan: Called with the plan before the first frame is upscaled.
        on_progress: Called with (frames done, frames in all), never going back; may raise to stop,
            which leaves a run that can be continued.

    Returns:
        What was done, how long it took and what could not be kept.

    Raises:
        VideoError: The source cannot be read, the destination cannot be written, or an unfinished
            run does not match.
        ValueError: An argument is out of range, the result does not fit into memory, or the
            model's result is not finite.
    """
    start = time.perf_counter()
    codec = codec or DEFAULT_CODEC
    paths = _check_paths(Path(source), Path(destination), codec)
    # A journal may belong to exactly this output, complete but for its last step.
    may_be_finished = journal_path(paths[1]).exists() and not fresh
    if paths[1].exists() and not overwrite and not may_be_finished:
        raise _exists(paths[1])
    info = probe(paths[0])
    width, height = target_size(info.width, info.height, scale=scale, size=size)
    spec = EncodeSpec.from_source(
        info,
        codec=codec,
        width=width,
        height=height,
        crf=crf,
        preset=preset,
        bit_depth=bit_depth,
    )
    check_encoder(spec)
    job = _Job(
        source=paths[0],
        destination=paths[1],
        info=info,
        look=Look(width=width, height=height, strength=strength, color_anchor=color_anchor),
        spec=spec,
        upscaler=upscaler,
        shots=shots,
        requested={
            "tile_px": tile_px,
            "segment_frames": segment_frames,
            "halo_frames": halo_frames,
        },
        overwrite=overwrite,
        clock=StageClock(dict.fromkeys(STAGES, 0.0)),
    )
    plan = upscaler.plan(
        (info.width, info.height),
        (width, height),
        num_frames=info.num_frames,
        bytes_per_channel=2 if info.bit_depth > 8 else 1,
        **job.requested,
    )
    with Journal(journal_path(job.destination), _identity(job), is_fresh=fresh) as journal:
        is_done = _is_finished(job, journal)
        if not is_done and job.destination.exists() and not overwrite:
            raise _exists(job.destination)
        if journal.plan is not None:
            plan = plan.following(journal.plan)
        if on_plan is not None:
            on_plan(plan)
        journal.start(plan.to_json())
        run = _Run(job, plan, journal, on_progress)
        run.upscale()
        muxed = _finish(job, journal, is_done=is_done)
        journal.remove()
    return run.report(muxed, time.perf_counter() - start)


class _Run:
    """Works through the segments of a job and counts."""

    def __init__(
        self, job: _Job, plan: Plan, journal: Journal, on_progress: OnProgress | None
    ) -> None:
        self.job = job
        self.plan = plan
        self.journal = journal
        self.finished = {record.index: record for record in journal.records}
        self.segments = job.upscaler.segment_upscaler(job.look, plan, job.clock)
        self.progress = FrameProgress(on_progress, job.info.num_frames or 0)
        self.num_frames = 0
        self.num_segments = 0
        self.num_shots = 0
        self.num_resumed = 0
        self.num_resumed_frames = 0
        self.num_corrupt_frames = 0
        if self.finished:
            # Out of memory once is out of memory again: go on with the tile that worked.
            self.segments.tile = journal.records[-1].tile

    def upscale(self) -> None:
        """Do every segment that is not done yet."""
        assembler = SegmentAssembler(
            self.plan.segment_frames, self.plan.halo_frames, has_shots=self.job.shots
        )
        with VideoReader(self.job.source) as reader:
            frames = timed(reader, self.job.clock, "decode")
            for segment in timed(assembler.segments(frames), self.job.clock, "shots"):
                if self._is_finished(segment):
                    self.num_resumed += 1
                    self.num_resumed_frames += len(segment.kept)
                else:
                    self._do(segment)
                self.progress.finish(len(segment.kept))
                self.num_frames += len(segment.kept)
                self.num_segments += 1
                self.num_shots = segment.shot + 1
            self.num_corrupt_frames = reader.num_corrupt_frames
        # Time spent waiting for frames is the decoder's, not the detector's.
        self.job.clock.add("shots", -self.job.clock.seconds["decode"])

    def _is_finished(self, segment: SegmentFrames) -> bool:
        record = self.finished.get(segment.index)
        return record is not None and (record.first_frame, record.num_frames) == (
            segment.first_frame,
            len(segment.kept),
        )

    def _do(self, segment: SegmentFrames) -> None:
        job, num_kept = self.job, len(segment.kept)
        results = self.segments.run(
            [frame.pixels for frame in segment.frames],
            segment.keep,
            # The last bit is finishing and encoding.
            on_tile=lambda done, total: self.progress.report(num_kept, 0.95 * done / total),
            first=segment.first_frame,
        )
        dtype = np.uint16 if job.spec.bit_depth > 8 else np.uint8
        path = self.journal.segment_path(segment.index)
        with SegmentWriter(path, job.spec) as writer:
            for frame, result in zip(segment.kept, results, strict=True):
                with job.clock("blend"):
                    pixels = to_pixels(result, dtype)
                with job.clock("encode"):
                    writer.write(pixels, frame.pts, frame.duration)
            closing = time.perf_counter()
        self.journal.record(
            SegmentRecord(
                index=segment.index,
                first_frame=segment.first_frame,
                num_frames=num_kept,
                sha256=file_sha256(path),
                tile=self.segments.tile,
                shot=segment.shot,
            )
        )
        job.clock.add("encode", time.perf_counter() - closing)

    def report(self, muxed: MuxReport, total_s: float) -> UpscaleReport:
        """The facts of the run, now that it is over."""
        job, upscaler = self.job, self.job.upscaler
        seconds = {stage: round(max(0.0, s), 3) for stage, s in job.clock.seconds.items()}
        return UpscaleReport(
            source=str(job.source),
            destination=str(job.destination),
            frames=self.num_frames,
            source_width=job.info.width,
            source_height=job.info.height,
            width=job.look.width,
            height=job.look.height,
            seconds=seconds | {"total": round(total_s, 3)},
            fps=round((self.num_frames - self.num_resumed_frames) / total_s, 3),
            peak_rss_bytes=peak_rss_bytes(),
            peak_cuda_bytes=peak_cuda_bytes(upscaler.device),
            plan=self.plan,
            tile=self.segments.tile,
            device=str(upscaler.device),
            dtype=self.plan.dtype,
            model=upscaler.name,
            model_hash=upscaler.model_hash,
            codec=job.spec.codec,
            num_shots=self.num_shots,
            num_segments=self.num_segments,
            num_resumed_segments=self.num_resumed,
            num_corrupt_frames=self.num_corrupt_frames,
            kept=muxed.kept,
            dropped=muxed.dropped,
        )


def timed(items: Iterator[Any], clock: StageClock, stage: str) -> Iterator[Any]:
    """Pass items on and count the time they take to arrive."""
    iterator = iter(items)
    while True:
        with clock(stage):
            item = next(iterator, None)
        if item is None:
            return
        yield item


# Before


def _check_paths(source: Path, destination: Path, codec: str) -> tuple[Path, Path]:
    check_destination(destination, codec)
    if not source.exists():
        raise VideoError(f"{str(source)!r} does not exist; check the name")
    if destination.exists() and destination.samefile(source):
        raise VideoError(
            f"output {str(destination)!r} is the input itself; name another file, the input is "
            "never replaced"
        )
    if not os.access(destination.absolute().parent, os.W_OK | os.X_OK):
        raise VideoError(
            f"the folder {str(destination.parent)!r} must be writable and is not; choose another"
        )
    return source, destination


def _exists(destination: Path) -> VideoError:
    return VideoError(
        f"{str(destination)!r} exists already; give --overwrite to replace it or another name"
    )


def _identity(job: _Job) -> dict[str, dict[str, Any]]:
    """Everything that the bytes of a segment depend on, as JSON values."""
    spec = {
        name: value if isinstance(value, (int, float, str, dict)) or value is None else str(value)
        for name, value in asdict(job.spec).items()
    }
    upscaler = job.upscaler
    return {
        "source": file_fingerprint(job.source),
        "setting": {
            **asdict(job.look),
            "shots": job.shots,
            **job.requested,
            "device": upscaler.device.type,
            # A probe may decide otherwise next time: the plan keeps what it decided first.
            "dtype": upscaler.requested_dtype,
        },
        "encoding": spec,
        "model": {"name": upscaler.name, "hash": upscaler.model_hash},
        "version": {"oasis": __version__, "torch": torch.__version__, "av": av.__version__},
    }


# After


def _is_finished(job: _Job, journal: Journal) -> bool:
    """Whether an earlier run got as far as naming the result, and only its journal is left."""
    if journal.result is None or not job.destination.is_file():
        return False
    return file_fingerprint(job.destination) == journal.result


def _finish(job: _Job, journal: Journal, *, is_done: bool) -> MuxReport:
    """Join the segments, copy the rest of the source, give the file its name."""
    if is_done:
        return MuxReport(kept=(), dropped=())
    # Inside the journal's folder, so that a crash leaves nothing beside the destination.
    result = journal.folder / ("result" + job.destination.suffix)
    paths = [journal.segment_path(record.index) for record in journal.records]
    with job.clock("mux"):
        muxed = mux(paths, job.source, result, job.spec)
        journal.record_result(result)
        if job.destination.exists() and not job.overwrite:
            raise _exists(job.destination)
        try:
            result.replace(job.destination)
            sync_folder(job.destination.absolute().parent)
        except OSError as error:
            raise write_error(job.destination, error) from error
    return muxed
