"""Upscaling one segment: resize, pad, tile, model, blend, anchor; and what to do when it fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..families.restorer import Restorer
from ..finish.grain import Grain, GrainLayer
from ..finish.mask import MaskFrames
from ..finish.steady import SteadyFilter
from ..video.pixels import Frame, equal
from .clip_runner import ClipRunner, OnTile, Restored
from .look import Look, StageClock
from .progress import OnStage
from .workload import least_tile_px, padded_size

logger = logging.getLogger(__name__)

OUT_OF_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory")
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Done:
    """A segment that was done, kept until the next is seen."""

    frames: Sequence[Frame]
    """All that the model saw."""
    key: tuple[tuple[int, int], slice]
    """Tile, and the frames wanted of it."""
    restored: Restored


class SegmentUpscaler:
    """Upscales segments of one job, one after the other.

    What it learns while running (a smaller tile after running out of memory) holds for the
    segments that follow; each result depends on its own frames and the tile side only.

    Args:
        restorer: The model, prepared for the device.
        device: Where the model and the pixels are.
        dtype: Arithmetic of the model.
        look: What the result should look like.
        tile: (height, width) of a tile in pixels that the model reads.
        overlap_px: Pixels that neighbouring tiles share.
        on_host: Keep the segment in main memory and only the tile at hand on the device.
        clock: Receives the seconds of each stage.
        grain: What grain is laid on the result; None lays none.
    """

    def __init__(
        self,
        restorer: Restorer,
        device: torch.device,
        dtype: torch.dtype,
        look: Look,
        *,
        tile: tuple[int, int],
        overlap_px: int,
        on_host: bool = False,
        clock: StageClock | None = None,
        grain: Grain | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.look = look
        self.tile = tile
        self.clock = clock or StageClock()
        self.traits = restorer.traits
        self._grain = None if grain is None or grain.profile.is_none else grain
        self._grain_layer = None if self._grain is None else GrainLayer(self._grain, device)
        self._masks = None
        if look.mask is not None:
            self._masks = MaskFrames(look.mask, look.height, look.width, device)
        self._runner = ClipRunner(
            restorer,
            device,
            look,
            overlap_px=overlap_px,
            store=torch.device("cpu") if on_host else device,
            clock=self.clock,
            # Taking flicker out looks at other frames, whose mask may be another.
            masks=None if look.frames_beyond else self._masks,
        )
        self._latest: _Done | None = None
        self._num_held = 0
        self._steady: SteadyFilter | None = None
        if look.frames_beyond:
            share = look.steady * look.strength
            self._steady = SteadyFilter(look.height, look.width, device, share)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._runner.restorer.network

    @property
    def on_stage(self) -> OnStage:
        """Told what is being done, frame by frame; may raise to stop."""
        return self._runner.on_stage

    @on_stage.setter
    def on_stage(self, on_stage: OnStage) -> None:
        self._runner.on_stage = on_stage

    def run(
        self,
        frames: Sequence[Frame],
        keep: slice,
        on_tile: OnTile | None = None,
        first: int = 0,
        opening: Frame | None = None,
    ) -> Iterator[Tensor]:
        """Upscale a segment.

        The model runs before the first frame is returned, so that whatever can fail has failed by
        then; frames are finished one at a time, because a whole segment of float frames is large.

        Args:
            frames: Low-resolution frames, halo included.
            keep: The frames wanted.
            on_tile: Called after each tile.
            first: Number of the first kept frame in the clip, for messages and for models that
                draw noise.
            opening: First frame of the shot, for models that are guided by it; None: the first of
                these.

        Returns:
            Kept frames in order: `3 h w` float32 in [0, 1], on the job's device. The memory of one
            is reused by nobody: they may be changed in place.

        Raises:
            ValueError: The model's result is not finite, or memory does not suffice for any tile.
        """
        if self._masks is not None:
            self._masks.forget(before=first - range(len(frames))[keep].start)
        if self.look.strength == 0:
            results = (self._runner.resize(frame) for frame in frames[keep])
        else:
            results = self._steadied(frames, keep, on_tile, first, opening)
            if self._masks is not None:
                results = self._masked(frames[keep], results, first)
        return results if self._grain is None else self._grained(results, first)

    def _steadied(
        self,
        frames: Sequence[Frame],
        keep: slice,
        on_tile: OnTile | None,
        first: int,
        opening: Frame | None,
    ) -> Iterator[Tensor]:
        """The finished pictures of the model, flicker taken out where that was asked for."""
        kept, beyond = range(len(frames))[keep], self.look.frames_beyond
        start, stop = max(0, kept.start - beyond), min(len(frames), kept.stop + beyond)
        wide = slice(start, stop)
        shown = [*frames] if opening is None else [*frames, opening]
        restored = self._recall(shown, wide)
        if restored is None:
            number = first - (kept.start - start)
            restored = self._restored(frames, wide, on_tile, number, opening)
            if self._runner.may_hold and not self.traits.is_per_frame:
                key = (self.tile, wide)
                self._latest = _Done(frames=shown, key=key, restored=restored)
        else:
            self._num_held += len(kept)
        finished = self._finish(frames[wide], restored)
        if self._steady is None:
            return finished
        inner = slice(kept.start - start, kept.stop - start)
        return self._told(self._steady.run(finished, frames[wide], inner), len(kept))

    @property
    def num_held(self) -> int:
        """Frames that were not computed because what the model would have seen is known."""
        return self._num_held + self._runner.num_held

    def _recall(self, frames: Sequence[Frame], wide: slice) -> Restored | None:
        """What the model made of the segment before, if it is shown the very same again."""
        latest = self._latest
        if latest is not None and latest.key == (self.tile, wide):
            pairs = zip(latest.frames, frames, strict=False)
            if len(latest.frames) == len(frames) and all(equal(*pair) for pair in pairs):
                return latest.restored
        self._latest = None  # its memory is needed for this one
        return None

    def _told(self, pictures: Iterator[Tensor], count: int) -> Iterator[Tensor]:
        """Take steady pictures, say so and count the time they take."""
        for index in range(count):
            self.on_stage("steady", index, count)
            before = self.clock.seconds.copy()
            with self.clock("steady"):
                picture = next(pictures)
            # What they are made of is finished meanwhile.
            inside = sum(self.clock.seconds.values()) - sum(before.values())
            own = self.clock.seconds["steady"] - before.get("steady", 0.0)
            self.clock.add("steady", own - inside)
            yield picture

    @torch.inference_mode()
    def _masked(
        self, frames: Sequence[Frame], results: Iterator[Tensor], first: int
    ) -> Iterator[Tensor]:
        """The plain resize where the mask is 0, the result where it is 1, between them both."""
        for number, (frame, result) in enumerate(zip(frames, results, strict=True), start=first):
            plain, mask = self._runner.resize(frame), self._masks.at(number)
            with self.clock("blend"):
                # Exact at both ends, whatever the arithmetic between them does.
                mixed = torch.lerp(plain, result, mask)
                result = torch.where(mask >= 1, result, torch.where(mask <= 0, plain, mixed))
            yield result

    @torch.inference_mode()
    def _grained(self, results: Iterator[Tensor], first: int) -> Iterator[Tensor]:
        for number, result in enumerate(results, start=first):
            mask = None if self._masks is None else self._masks.at(number)
            with self.clock("blend"):
                share = self._grain.share(self.look.strength, mask)
                self._grain_layer.lay_(result, number, share)
            yield result

    @torch.inference_mode()
    def _finish(self, frames: Sequence[Frame], restored: Restored) -> Iterator[Tensor]:
        strength = self.look.strength
        for index, frame in enumerate(frames):
            content = restored.content[:, index]
            if restored.is_picture:
                with self.clock("blend"):
                    video = content.to(self.device, torch.float32, copy=True)
                if strength < 1:
                    plain = self._runner.resize(frame)
                    video = plain.add_(video.sub_(plain), alpha=strength)
            else:
                # The resize costs less than holding a float copy of the whole segment would.
                video = self._runner.resize(frame)
                with self.clock("blend"):
                    video.add_(content.to(video.device), alpha=strength)
            with self.clock("blend"):
                if restored.cells is not None:
                    self._runner.anchor.remove_(video, restored.cells[index], strength)
                video.clamp_(0, 1)
            yield video

    def _restored(
        self,
        frames: Sequence[Frame],
        keep: slice,
        on_tile: OnTile | None,
        first: int,
        opening: Frame | None,
    ) -> Restored:
        """What the model makes of the kept frames, with both retries."""
        dtype, is_repeated = self.dtype, False
        while True:
            try:
                restored, bad = self._runner.run(
                    frames, keep, self.tile, dtype, first, on_tile, opening
                )
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            else:
                if not bad:
                    return restored
                self._refuse_bad_frames(bad, dtype, first, is_repeated=is_repeated)
                dtype, is_repeated = torch.float32, True
                continue
            # Outside the handler: the exception's traceback holds the failed run's tensors.
            self._shrink_tile(reason, frames)

    def _refuse_bad_frames(
        self, bad: list[int], dtype: torch.dtype, first: int, *, is_repeated: bool
    ) -> None:
        names = ", ".join(str(first + index) for index in bad[:8])
        if is_repeated:
            raise ValueError(
                f"the model's result must be finite, got NaN or infinity in frame(s) {names}"
                f"{' ...' if len(bad) > 8 else ''} even in float32; its weights or this input are "
                "broken, check the model file"
            )
        logger.warning("frame(s) %s are not finite in %s; repeating in float32", names, dtype)

    def _shrink_tile(self, reason: str, frames: Sequence[Frame]) -> None:
        padded = padded_size(self.traits, *self._runner.read_size(frames[0]))
        height, width = (min(pair) for pair in zip(self.tile, padded, strict=True))
        smaller = (height, width // 2) if width >= height else (height // 2, width)
        is_least = max(height, width) // 2 < least_tile_px(self.traits)
        if is_least or self.traits.tiling == "never":
            num_frames = 1 if self.traits.is_per_frame else len(frames)
            raise ValueError(
                f"memory must hold one tile of {height}x{width} px and {num_frames} frames, but it "
                f"does not ({reason}); use shorter segments or a smaller result"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        sides = f"{smaller[1]}x{smaller[0]}"
        logger.warning("out of memory (%s); repeating this segment in %s tiles", reason, sides)
        self.tile = smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on any device."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(t in text for t in OUT_OF_MEMORY_TEXTS)
