"""Upscaling clips that are in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..families.catalog import restorer_of
from ..families.restorer import Restorer, Traits
from ..geometry import Segment, plan_segments, shots_from_cuts
from ..options import HALO_FRAMES
from ..sizes import target_size
from ..video import VideoFrame
from ..video.pixels import tensor_to_frame
from .assemble import SegmentAssembler
from .find_grain import grain_of, grain_of_clip
from .memory import free_host_bytes
from .model_bytes import measure_model_bytes
from .plan import Plan, make_plan
from .precision import DTYPES, choose_device, choose_dtype, dtype_name
from .progress import BlockCounter, OnStage, stage_of
from .segment import Look, SegmentUpscaler, StageClock
from .shots import find_cuts
from .workload import workload

MODEL_SHARE = 0.95
"""Of a segment's time in memory; the rest is the resize and the blending of its frames."""
OnProgress = Callable[[float, float], None]
"""Called with (frames done, frames in all) after each tile; never goes back; may raise to stop."""


class VideoUpscaler:
    """A model, ready to upscale clips of any size and length.

    Args:
        model: A restorer of any family; or a network: one of a family, or any module with `config`
            and `model(video) -> residual`, both `b 3 t h w`. Weights stay float32, but for those of
            a restorer that computes in its own arithmetic, which are held in `dtype`.
        device: "auto" (CUDA, then MPS, then the CPU), or a device.
        dtype: "auto" (bfloat16 or float16 where the device computes in it and the model comes close
            to float32), "float32", "bfloat16" or "float16".
        model_hash: What identifies the model in reports and unfinished runs, best the hash of its
            file; None asks the restorer.

    Raises:
        ValueError: The device or dtype cannot be used.
    """

    def __init__(
        self,
        model: nn.Module | Restorer,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        model_hash: str | None = None,
    ) -> None:
        self.restorer = restorer_of(model)
        self.device = choose_device(device)
        if self.traits.arithmetic == "probe":
            self.restorer.prepare(self.device, torch.float32)
        # Chosen first: a large model in float32 may not fit where it does in half of it.
        chosen = choose_dtype(self.restorer, self.device, dtype)
        self.dtype, self.dtype_reason = chosen.dtype, chosen.reason
        self.prepare()
        self.requested_dtype = str(dtype).removeprefix("torch.")
        self._model_bytes: float | None = None
        self._model_hash = model_hash

    def prepare(self) -> None:
        """Make the network this model's again: restorers that share it may have run meanwhile."""
        is_own = self.traits.arithmetic == "own"
        self.restorer.prepare(self.device, self.dtype if is_own else torch.float32)

    @property
    def traits(self) -> Traits:
        """What the model is like."""
        return self.restorer.traits

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.restorer.network

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.traits.name

    @property
    def model_hash(self) -> str:
        """Identifies the model in reports and journals: as given, or as its restorer says."""
        return self.restorer.identity if self._model_hash is None else self._model_hash

    def plan(
        self,
        source_size: tuple[int, int],
        size: tuple[int, int],
        *,
        num_frames: int | None = None,
        bytes_per_channel: int = 1,
        tile_px: int | None = None,
        segment_frames: int | None = None,
        halo_frames: int = HALO_FRAMES,
        frames_beyond: int = 0,
    ) -> Plan:
        """Plan a job from free memory and one measured tile.

        Args:
            source_size: (width, height) of the source in pixels.
            size: (width, height) of the result in pixels.
            num_frames: Frames of the clip, if known.
            bytes_per_channel: Of a source sample.
            tile_px: Fixes the tile side, in output pixels.
            segment_frames: Fixes the segment length.
            halo_frames: Frames read on both sides of a segment.
            frames_beyond: Further finished frames that what follows the model looks at.

        Raises:
            ValueError: A fixed value is out of range, or the result does not fit into memory.
        """
        _check_enlarges(self.traits, source_size, size)
        wanted = workload(
            self.restorer,
            source_size,
            size,
            dtype=dtype_name(self.dtype),
            bytes_per_channel=bytes_per_channel,
            measure=self.measured_bytes,
        )
        plan = make_plan(
            wanted,
            self.device,
            num_frames=num_frames,
            tile_px=tile_px,
            segment_frames=segment_frames,
            halo_frames=halo_frames,
            frames_beyond=frames_beyond,
        )
        return replace(plan, dtype_reason=self.dtype_reason)

    def measured_bytes(self) -> float:
        """Working memory of the model per pixel and frame that it reads, from one small run."""
        if self._model_bytes is None:
            self._model_bytes = measure_model_bytes(self.restorer, self.device, self.dtype)
        return self._model_bytes

    def segment_upscaler(
        self, look: Look, plan: Plan, clock: StageClock | None = None
    ) -> SegmentUpscaler:
        """What upscales the segments of one job."""
        self.prepare()
        return SegmentUpscaler(
            self.restorer,
            self.device,
            DTYPES[plan.dtype],
            look,
            tile=plan.tile,
            overlap_px=plan.overlap_px,
            on_host=plan.on_host,
            clock=clock,
            grain=plan.grain,
        )

    def upscale(
        self,
        video: Tensor,
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        strength: float = 1.0,
        color_anchor: bool = True,
        shots: bool = True,
        tile_px: int | None = None,
        segment_frames: int | None = None,
        halo_frames: int = HALO_FRAMES,
        on_progress: OnProgress | None = None,
        **look: Any,
    ) -> Tensor:
        """Upscale a clip.

        Args:
            video: `b 3 t h w`, floating point, in [0, 1], on any device.
            scale: Factor for both sides; or `size`.
            size: Exact (width, height) in pixels.
            strength: Share of the model's work: 0 is the plain resize, 1 the full model.
            color_anchor: Keep the low frequencies of the input.
            shots: Find shot cuts and keep shots apart.
            tile_px: Tile side in output pixels, instead of the planned one.
            segment_frames: Frames per segment, instead of the planned number.
            halo_frames: Frames read on both sides of a segment.
            on_progress: Called after each tile with (frames done, frames in all).
            **look: Further fields of `Look`.

        Returns:
            `b 3 t h w` float32 in [0, 1] on the CPU, with exactly the frames of the input.

        Raises:
            ValueError: An argument is out of range, the result does not fit into memory, or the
                model's result is not finite.
        """
        _check_video(video)
        batch, _, num_frames, height, width = video.shape
        size = target_size(width, height, scale=scale, size=size)
        look |= {"strength": strength, "color_anchor": color_anchor}
        wanted = Look(width=size[0], height=size[1], **look).with_fitted_mask(num_frames)
        _check_host_memory(batch * num_frames, wanted)
        plan = self.plan(
            (width, height),
            size,
            num_frames=num_frames,
            bytes_per_channel=4,
            tile_px=tile_px,
            segment_frames=segment_frames,
            halo_frames=halo_frames,
            frames_beyond=wanted.frames_beyond,
        )
        plan = replace(plan, grain=grain_of_clip(wanted, video, self.upscale))
        upscaler = self.segment_upscaler(wanted, plan)
        on_stage = upscaler.on_stage = stage_of(on_progress)
        out = torch.empty(batch, 3, num_frames, size[1], size[0])
        progress = FrameProgress(on_progress, batch * num_frames)
        for clip, result in zip(video, out, strict=True):
            frames = list(clip.unbind(1))
            for segment in _segments(frames, plan, has_shots=shots, on_stage=on_stage):
                _upscale_segment(upscaler, frames, segment, result, progress)
        return out

    def upscale_frames(
        self,
        frames: Iterable[np.ndarray],
        *,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        strength: float = 1.0,
        color_anchor: bool = True,
        shots: bool = True,
        tile_px: int | None = None,
        segment_frames: int | None = None,
        halo_frames: int = HALO_FRAMES,
        clock: StageClock | None = None,
        **look: Any,
    ) -> Iterator[np.ndarray]:
        """Upscale frames as they come; about one segment of them is held.

        Args:
            frames: `h w 3` uint8 or uint16 of full scale, all of one size.
            scale: See `upscale`, as are the arguments below.
            size: (width, height) in pixels.
            strength: Share of the model's work.
            color_anchor: Keep the low frequencies of the input.
            shots: Keep shots apart.
            tile_px: Tile side in output pixels.
            segment_frames: Frames per segment.
            halo_frames: Frames read on both sides of a segment.
            clock: Receives the seconds of each stage.
            **look: Further fields of `Look`.

        Yields:
            `h w 3` of the same dtype, one per frame.
        """
        iterator = iter(frames)
        first = next(iterator, None)
        if first is None:
            return
        height, width = first.shape[:2]
        size = target_size(width, height, scale=scale, size=size)
        look |= {"strength": strength, "color_anchor": color_anchor}
        wanted = Look(width=size[0], height=size[1], **look).with_fitted_mask(None)
        if wanted.grain == "auto":
            raise ValueError(
                "grain auto is measured in all of a film, which is not there yet when its frames "
                "come one by one; give an amount from 0 to 1"
            )
        plan = self.plan(
            (width, height),
            size,
            bytes_per_channel=first.dtype.itemsize,
            tile_px=tile_px,
            segment_frames=segment_frames,
            halo_frames=halo_frames,
            frames_beyond=wanted.frames_beyond,
        )
        plan = replace(
            plan, grain=None if wanted.grain is None else grain_of(wanted, (), size, None)
        )
        upscaler = self.segment_upscaler(wanted, plan, clock)
        assembler = SegmentAssembler.of(plan, has_shots=shots)
        numbered = enumerate(itertools.chain([first], iterator))
        stream = (VideoFrame(pixels=pixels, pts=index, duration=1) for index, pixels in numbered)
        for segment in assembler.segments(stream):
            pixels = [frame.pixels for frame in segment.frames]
            results = upscaler.run(
                pixels,
                segment.keep,
                first=segment.first_frame,
                opening=segment.opening.pixels,
            )
            for result in results:
                yield tensor_to_frame(result, first.dtype)


class FrameProgress:
    """Turns tiles of segments into frames of the job, never going back.

    Args:
        on_progress: Who wants to know.
        num_frames: Frames of the job, as far as known.
    """

    def __init__(self, on_progress: OnProgress | None, num_frames: int) -> None:
        self._on_progress = on_progress
        self.num_frames = num_frames
        self._finished = 0
        self._reported = 0.0

    def report(self, segment_frames: int, share: float) -> None:
        """Say how much of the segment at hand is done."""
        done = max(self._reported, self._finished + segment_frames * share)
        self._reported = done
        self.num_frames = max(self.num_frames, self._finished + segment_frames)
        if self._on_progress is not None:
            self._on_progress(done, self.num_frames)

    def finish(self, segment_frames: int) -> None:
        """Say that a segment is done."""
        self.report(segment_frames, 1.0)
        self._finished += segment_frames

    def complete(self) -> None:
        """Say that the job is done: what was known before may have been wrong."""
        self.num_frames = self._finished
        if self._on_progress is not None and self._finished:
            self._on_progress(self._finished, self._finished)


def _upscale_segment(
    upscaler: SegmentUpscaler,
    frames: Sequence[Tensor],
    segment: Segment,
    out: Tensor,
    progress: FrameProgress,
) -> None:
    """Upscale one segment into `out`, `3 t h w`."""
    read, tiles = frames[segment.read_start : segment.read_stop], [0, 1]

    def report(share: float) -> None:
        done = min(1.0, (tiles[0] + share) / tiles[1])
        progress.report(segment.num_frames, MODEL_SHARE * done)

    def on_tile(done: int, total: int) -> None:
        tiles[:] = done, total
        blocks.tile_done()
        report(0)

    blocks = BlockCounter(upscaler.model, report, upscaler.on_stage)
    with blocks.watching():
        results = upscaler.run(
            read,
            segment.keep,
            on_tile=on_tile,
            first=segment.start,
            opening=frames[segment.shot_start],
        )
    rest = (1 - MODEL_SHARE) / segment.num_frames
    for index, result in enumerate(results, start=segment.start):
        out[:, index] = result
        progress.report(segment.num_frames, MODEL_SHARE + rest * (index - segment.start + 1))
    progress.finish(segment.num_frames)


def _segments(
    frames: Sequence[Tensor], plan: Plan, *, has_shots: bool, on_stage: OnStage
) -> list[Segment]:
    """Segments of a clip, numbered in the clip; none crosses a cut."""

    def arrays() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames):
            on_stage("shots", index, len(frames))
            yield _to_array(frame)

    cuts = find_cuts(arrays()) if has_shots else ()
    return [
        Segment(
            start=first + segment.start,
            stop=first + segment.stop,
            read_start=first + segment.read_start,
            read_stop=first + segment.read_stop,
            shot_start=first,
        )
        for first, last in shots_from_cuts(len(frames), list(cuts))
        for segment in plan_segments(
            last - first,
            plan.segment_frames,
            plan.halo_frames,
            lead_frames=plan.lead_frames,
            multiple=plan.segment_multiple,
        )
    ]


def _to_array(frame: Tensor) -> np.ndarray:
    """A frame `3 h w` in [0, 1] as `h w 3` uint8."""
    return (frame.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _check_video(video: Tensor) -> None:
    if video.ndim != 5 or video.shape[1] != 3 or 0 in video.shape:
        raise ValueError(f"video must be b 3 t h w with no empty axis, got {tuple(video.shape)}")
    if not video.is_floating_point():
        raise ValueError(
            f"video must be floating point in [0, 1], got {video.dtype}; divide by 255"
        )
    if not torch.isfinite(video).all():
        raise ValueError("video must be finite, got NaN or infinity; clean the frames first")


def _check_enlarges(traits: Traits, source_size: tuple[int, int], size: tuple[int, int]) -> None:
    restores_only = traits.reads == "source" and traits.native_scale == 1
    if restores_only and (size[0] > source_size[0] or size[1] > source_size[1]):
        raise ValueError(
            f"{traits.name} restores at 1x and enlarges nothing, got {size[0]}x{size[1]} from "
            f"{source_size[0]}x{source_size[1]}; ask for scale 1, and enlarge by another model"
        )


def _check_host_memory(num_frames: int, look: Look) -> None:
    needed, free = num_frames * 3 * 4 * look.width * look.height, free_host_bytes()
    if needed > free:
        raise ValueError(
            f"{num_frames} frames of {look.width}x{look.height} need {needed / 2**30:.1f} GiB of "
            f"main memory as one tensor and {free / 2**30:.1f} GiB are free; upscale from file to "
            "file instead, which streams"
        )
