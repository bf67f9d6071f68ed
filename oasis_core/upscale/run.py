"""Working through a job segment by segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from ..digests import file_sha256
from ..video import ChangeError, MuxReport, SegmentWriter, VideoFrame
from ..video.alpha import bleed
from ..video.linear_light import decode_light, to_half_bits
from ..video.pixels import frame_to_tensor, resize, tensor_to_frame
from .assemble import SegmentAssembler, SegmentFrames
from .background import Background
from .job import Job
from .journal import Journal, SegmentRecord
from .look import StageClock
from .memory import peak_cuda_bytes, peak_rss_bytes
from .partial import stopped_at_change
from .plan import Plan
from .progress import BlockCounter, OnStage, stage_of
from .report import UpscaleReport
from .upscaler import FrameProgress, OnProgress

ENCODES_BESIDE = ("cuda", "mps")
"""Devices that leave the CPU to the encoder."""
MOST_WAITING_BYTES = 512 << 20
"""Of finished pictures that wait for the encoder."""
# Share of a segment's time that the model takes, until it has been measured.
MODEL_SHARE = 0.8


class JobRun:
    """What is known of a job while its segments are done, wherever that is.

    Args:
        job: What to do.
        plan: How it is cut up.
        journal: Where finished segments are noted.
        on_progress: Called with (frames done, frames in all).
    """

    def __init__(
        self,
        job: Job,
        plan: Plan,
        journal: Journal,
        on_progress: OnProgress | None,
    ) -> None:
        self.job = job
        self.plan = plan
        self.journal = journal
        self.finished = {record.index: record for record in journal.records}
        self.progress = FrameProgress(on_progress, job.num_frames or 0)
        # Out of memory once is out of memory again: go on with the tile that worked.
        self.tile = journal.records[-1].tile if self.finished else plan.tile
        self.is_done = False
        """Whether an earlier run finished the result, so that there is only to count."""
        self.num_frames = 0
        self.num_segments = 0
        self.num_shots = 0
        self.num_resumed = 0
        self.num_resumed_frames = 0
        self.num_corrupt_frames = 0
        self.num_held_frames = 0

    def is_finished(self, index: int, first_frame: int, num_frames: int) -> bool:
        """Whether an earlier run has done exactly this segment."""
        if self.is_done:
            return True
        record = self.finished.get(index)
        place = (first_frame, num_frames)
        return record is not None and (record.first_frame, record.num_frames) == place

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
            tile=self.tile,
            device=str(upscaler.device),
            dtype=self.plan.dtype,
            model=upscaler.name,
            model_hash=upscaler.model_hash,
            codec=job.spec.codec,
            num_shots=self.num_shots,
            num_segments=self.num_segments,
            num_resumed_segments=self.num_resumed,
            num_corrupt_frames=self.num_corrupt_frames,
            num_held_frames=self.num_held_frames,
            kept=muxed.kept,
            dropped=muxed.dropped,
        )


class LocalRun(JobRun):
    """Does the segments of a job that are not done yet, in this process.

    Args:
        job: What to do.
        plan: How it is cut up.
        journal: Where finished segments are noted.
        on_progress: Called with (frames done, frames in all).
    """

    def __init__(
        self,
        job: Job,
        plan: Plan,
        journal: Journal,
        on_progress: OnProgress | None,
    ) -> None:
        super().__init__(job, plan, journal, on_progress)
        self.segments = job.upscaler.segment_upscaler(job.look, plan, job.clock)
        self.segments.tile = self.tile
        self._on_stage = self.segments.on_stage = stage_of(on_progress)
        self.blocks = BlockCounter(job.upscaler.model, self._on_block, self._on_stage)
        self._tiles = (0, plan.num_tiles)
        self._num_kept = 0
        self._background: Background | None = None
        self._open_writers: list[SegmentWriter] = []
        self._change: ChangeError | None = None

    def upscale(self) -> None:
        """Do every segment that is not done yet."""
        assembler = SegmentAssembler.of(self.plan, has_shots=self.job.options.shots)
        with self.job.open() as reader, self.blocks.watching(), self._encoding():
            decoded = told(timed(reader, self.job.clock, "decode"), self._on_stage, self.job)
            frames = (visible(frame) for frame in self._until_change(decoded))
            for segment in timed(assembler.segments(frames), self.job.clock, "shots"):
                if self.is_finished(segment.index, segment.first_frame, len(segment.kept)):
                    self.num_resumed += 1
                    self.num_resumed_frames += len(segment.kept)
                else:
                    self.do(segment)
                self.progress.finish(len(segment.kept))
                self.num_frames += len(segment.kept)
                self.num_segments += 1
                self.num_shots = segment.shot + 1
            self.num_corrupt_frames = reader.num_corrupt_frames
        # Time spent waiting for frames is the decoder's, not the detector's.
        self.job.clock.add("shots", -self.job.clock.seconds["decode"])
        if self._change is not None:
            raise stopped_at_change(self.job, self._change, self.num_frames)

    def _until_change(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """End where the source goes on as another film, so that what comes before is done."""
        try:
            yield from frames
        except ChangeError as error:
            self._change = error

    def do(self, segment: SegmentFrames) -> None:
        """Upscale and encode one segment and note it in the journal."""
        if self.job.on_segment is not None:
            self.job.on_segment(segment.shot, segment.index)
        self._num_kept = len(segment.kept)
        self._tiles = (0, self._tiles[1])
        self.blocks.begin_tile()
        model_share = self._model_share()
        results = self.segments.run(
            [frame.pixels for frame in segment.frames],
            segment.keep,
            on_tile=self._on_tile,
            first=segment.first_frame,
            opening=segment.opening.pixels,
        )
        self.tile, self.num_held_frames = self.segments.tile, self.segments.num_held
        path = self.journal.segment_path(segment.index)
        record = SegmentRecord(
            index=segment.index,
            first_frame=segment.first_frame,
            num_frames=self._num_kept,
            sha256="",
            tile=self.tile,
            shot=segment.shot,
        )
        writer = SegmentWriter(path, self.job.spec)
        self._open_writers.append(writer)
        try:
            for index, (frame, result) in enumerate(zip(segment.kept, results, strict=True)):
                self._on_stage("encode", index, self._num_kept)
                self._write(writer, frame, result)
                share = model_share + (1 - model_share) * (index + 1) / (self._num_kept + 1)
                self.progress.report(self._num_kept, share)
            self._do(partial(self._close, writer, record))
        except BaseException:
            if self._background is None:  # nobody else will
                self._discard_writers()
            raise

    def _discard_writers(self) -> None:
        """Leave nothing of segments that are not complete."""
        while self._open_writers:
            self._open_writers.pop().discard()

    def _close(self, writer: SegmentWriter, record: SegmentRecord) -> None:
        with self.job.clock("encode"):
            self._open_writers.remove(writer)
            writer.close()
            self.journal.record(replace(record, sha256=file_sha256(writer.path)))

    def _encode(self, writer: SegmentWriter, *picture: Any) -> None:
        with self.job.clock("encode"):
            writer.write(*picture)

    def _do(self, call: Callable[[], None]) -> None:
        """Call now, or beside the device's work where it leaves the CPU free."""
        if self._background is None:
            call()
        else:
            self._background.put(call)

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        """Encode beside a GPU while it does the next segment; on a CPU both want the same cores."""
        job = self.job
        try:
            if job.upscaler.device.type in ENCODES_BESIDE:
                picture = 6 * job.look.width * job.look.height
                with Background(max(4, MOST_WAITING_BYTES // picture)) as self._background:
                    yield
            else:
                yield
        finally:
            self._background = None
            self._discard_writers()

    def _write(self, writer: SegmentWriter, frame: VideoFrame, result: torch.Tensor) -> None:
        job = self.job
        # Deep sources stay deep up to the encoder, which dithers where it has only 8 bits.
        is_deep = max(job.spec.bit_depth, job.info.bit_depth) > 8
        dtype = np.dtype(np.uint16 if is_deep else np.uint8)
        with job.clock("blend"):
            if job.stores_light:
                pixels = to_half_bits(decode_light(self._coded(frame, result)))
            else:
                pixels = tensor_to_frame(result, dtype)
            alpha = None
            if job.spec.has_alpha and frame.alpha is not None:
                plane = frame_to_tensor(frame.alpha[..., None], result.device)
                plane = resize(plane, job.look.height, job.look.width)
                alpha = tensor_to_frame(plane, dtype)[..., 0]
        self._do(partial(self._encode, writer, pixels, frame.pts, frame.duration, alpha))

    def _coded(self, frame: VideoFrame, result: torch.Tensor) -> np.ndarray:
        """Coded values `h w 3` float32 of a result, without bounds."""
        if frame.excess is not None:
            look = self.job.look
            result = result + resize_excess(frame.excess, look.height, look.width, result.device)
        return np.stack(tuple(result.cpu().numpy()), axis=-1)

    # Progress

    def _model_share(self) -> float:
        """Share of a segment's time until its first frame is finished, as measured so far."""
        seconds = self.job.clock.seconds
        model, rest = seconds["model"], seconds["blend"] + seconds["encode"]
        return min(0.98, max(0.2, model / (model + rest))) if model else MODEL_SHARE

    def _on_tile(self, done: int, total: int) -> None:
        self._tiles = (done, total)
        self.blocks.tile_done()
        self.progress.report(self._num_kept, self._model_share() * done / total)

    def _on_block(self, share: float) -> None:
        done, total = self._tiles
        share = min(1.0, (done + share) / max(1, total))
        self.progress.report(self._num_kept, self._model_share() * share)


def visible(frame: VideoFrame) -> VideoFrame:
    """The frame with colours under its transparent parts that neither model nor resize can leak."""
    if frame.alpha is None:
        return frame
    excess = None if frame.excess is None else bleed(frame.excess, frame.alpha)
    return replace(frame, pixels=bleed(frame.pixels, frame.alpha), excess=excess)


@torch.inference_mode()
def resize_excess(
    excess: np.ndarray, height: int, width: int, device: torch.device
) -> torch.Tensor:
    """Resize what lies outside [0, 1], without ringing beyond what its neighbours hold.

    The code is logarithmic there, so that the bicubic's small overshoot would be much light.

    Args:
        excess: `h w 3` float32.
        height: Of the result, pixels.
        width: Likewise.
        device: Where to.

    Returns:
        `3 height width` float32.
    """
    video = rearrange(torch.from_numpy(excess).to(device), "h w c -> 1 c h w")
    if video.shape[2:] == (height, width):
        return video[0]
    most = F.max_pool2d(video, 3, stride=1, padding=1)
    least = -F.max_pool2d(-video, 3, stride=1, padding=1)
    bounds = (F.interpolate(b, (height, width), mode="nearest-exact") for b in (least, most))
    larger = F.interpolate(video, (height, width), mode="bicubic", antialias=True)
    return larger.clamp(*bounds)[0]


def told(frames: Iterator[VideoFrame], on_stage: OnStage, job: Job) -> Iterator[VideoFrame]:
    """Pass frames on and say that they are read."""
    for index, frame in enumerate(frames):
        on_stage("read", index, job.num_frames or 0)
        yield frame


def timed(items: Iterator[Any], clock: StageClock, stage: str) -> Iterator[Any]:
    """Pass items on and count the time they take to arrive."""
    iterator = iter(items)
    while True:
        with clock(stage):
            item = next(iterator, None)
        if item is None:
            return
        yield item
