"""Upscaling one segment: resize, pad, tile, model, blend, anchor; and what to do when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..geometry import next_valid_num_frames, padding_indices, round_up
from ..model.timing import synchronize
from ..video.pixels import Frame, frame_to_tensor, resize
from .color_anchor import ColorAnchor
from .precision import arithmetic
from .tiles import Tile, TileGrid, plan_tiles

logger = logging.getLogger(__name__)

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles) of the segment at hand; may raise to stop."""

OUT_OF_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory")
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


@dataclass(slots=True)
class StageClock:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the duration of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add a duration to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the result should look like."""

    width: int
    height: int
    strength: float = 1.0
    """Share of the model's residual: 0 is the plain resize, 1 the full model."""
    color_anchor: bool = True
    """Keep the low frequencies of the input."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be between 0 and 1, got {self.strength}")


class SegmentUpscaler:
    """Upscales segments of one job, one after the other.

    What it learns while running (a smaller tile after running out of memory) holds for the
    segments that follow; each result depends on its own frames and the tile side only.

    Args:
        model: Module of the engine's contract.
        device: Where the model and the pixels are.
        dtype: Arithmetic of the model.
        look: What the result should look like.
        tile: (height, width) of a tile in output pixels.
        overlap_px: Pixels that neighbouring tiles share.
        on_host: Keep the segment in main memory and only the tile at hand on the device.
        clock: Receives the seconds of each stage.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        look: Look,
        *,
        tile: tuple[int, int],
        overlap_px: int,
        on_host: bool = False,
        clock: StageClock | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.look = look
        self.tile = tile
        self.overlap_px = overlap_px
        self.store = torch.device("cpu") if on_host else device
        self.clock = clock or StageClock()
        self.stride = model.config.token_stride
        self.padded = (round_up(look.height, self.stride[1]), round_up(look.width, self.stride[2]))
        self.anchor = ColorAnchor(look.height, look.width, device) if look.color_anchor else None

    def run(
        self, frames: Sequence[Frame], keep: slice, on_tile: OnTile | None = None, first: int = 0
    ) -> Iterator[Tensor]:
        """Upscale a segment.

        The model runs before the first frame is returned, so that whatever can fail has failed by
        then; frames are finished one at a time, because a whole segment of float frames is large.

        Args:
            frames: Low-resolution frames, halo included.
            keep: The frames wanted.
            on_tile: Called after each tile.
            first: Number of the first kept frame in the clip, for messages.

        Returns:
            Kept frames in order: `3 h w` float32 in [0, 1], on the job's device. The memory of one
            is reused by nobody: they may be changed in place.

        Raises:
            ValueError: The model's result is not finite, or memory does not suffice for any tile.
        """
        if self.look.strength == 0:
            return (self._resize(frame) for frame in frames[keep])
        residual, cells = self._residual(frames, keep, on_tile, first)
        return self._finish(frames[keep], residual, cells)

    @torch.inference_mode()
    def _finish(
        self, frames: Sequence[Frame], residual: Tensor, cells: Tensor | None
    ) -> Iterator[Tensor]:
        strength = self.look.strength
        for index, frame in enumerate(frames):
            # The resize costs less than holding a float copy of the whole segment would.
            video = self._resize(frame)
            with self.clock("blend"):
                video.add_(residual[:, index].to(video.device), alpha=strength)
                if cells is not None:
                    self.anchor.remove_(video, cells[index], strength)
                video.clamp_(0, 1)
            yield video

    @torch.inference_mode()
    def _resize(self, frame: Frame) -> Tensor:
        """The plain resize of one frame: `3 h w` float32 in [0, 1] at the target size."""
        with self.clock("resize"):
            return resize(frame_to_tensor(frame, self.device), self.look.height, self.look.width)

    def _residual(
        self, frames: Sequence[Frame], keep: slice, on_tile: OnTile | None, first: int
    ) -> tuple[Tensor, Tensor | None]:
        """The model's residual of the kept frames, with both retries."""
        dtype, is_repeated = self.dtype, False
        while True:
            try:
                residual, cells, bad = self._run_model(frames, keep, dtype, on_tile)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            else:
                if not bad:
                    return residual, cells
                self._refuse_bad_frames(bad, dtype, first, is_repeated=is_repeated)
                dtype, is_repeated = torch.float32, True
                continue
            # Outside the handler: the exception's traceback holds the failed run's tensors.
            self._shrink_tile(reason, len(frames))

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

    def _shrink_tile(self, reason: str, num_frames: int) -> None:
        height, width = (min(pair) for pair in zip(self.tile, self.padded, strict=True))
        smaller = (height, width // 2) if width >= height else (height // 2, width)
        if max(height, width) // 2 < 2 * max(self.stride[1:]):
            raise ValueError(
                f"memory must hold one tile of {height}x{width} px and {num_frames} frames, but it "
                f"does not ({reason}); use shorter segments or a smaller result"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        sides = f"{smaller[1]}x{smaller[0]}"
        logger.warning("out of memory (%s); repeating this segment in %s tiles", reason, sides)
        self.tile = smaller

    @torch.inference_mode()
    def _run_model(
        self, frames: Sequence[Frame], keep: slice, dtype: torch.dtype, on_tile: OnTile | None
    ) -> tuple[Tensor, Tensor | None, list[int]]:
        """Residual `3 t h w` of the kept frames, anchor cells to remove, bad kept frames."""
        grid = plan_tiles(*self.padded, self.tile, self.overlap_px, self.stride[1:])
        clip = self._padded_clip(frames, dtype)
        kept = range(len(frames))[keep]
        canvas = TileCanvas(
            self.look,
            grid,
            len(frames),
            kept,
            self.anchor,
            self.device,
            store=self.store,
            dtype=canvas_dtype(dtype),
        )
        for index, tile in enumerate(grid.tiles(self.device)):
            piece = clip if grid.num_tiles == 1 else clip[..., tile.rows, tile.columns].contiguous()
            with self.clock("model"):
                piece = piece.to(self.device)
                with arithmetic(self.device, dtype):
                    residual = self.model(piece)
                synchronize(self.device)
            if residual.shape != piece.shape:
                raise ValueError(
                    f"the model must return its input's shape {tuple(piece.shape)}, got "
                    f"{tuple(residual.shape)}"
                )
            with self.clock("blend"):
                canvas.add(residual[0], tile)
            if on_tile is not None:
                on_tile(index + 1, grid.num_tiles)
        with self.clock("blend"):
            return canvas.result()

    def _padded_clip(self, frames: Sequence[Frame], dtype: torch.dtype) -> Tensor:
        """The resized segment, padded in space by reflection and in time by repetition."""
        height, width = self.look.height, self.look.width
        num_frames = next_valid_num_frames(len(frames), self.stride[0])
        clip = torch.empty(1, 3, num_frames, *self.padded, dtype=dtype, device=self.store)
        for index, frame in enumerate(frames):
            clip[0, :, index, :height, :width] = self._resize(frame)
        with self.clock("resize"):
            for row, source in enumerate(padding_indices(height, self.padded[0]), start=height):
                clip[..., row, :] = clip[..., source, :]
            for column, source in enumerate(padding_indices(width, self.padded[1]), start=width):
                clip[..., column] = clip[..., source]
            clip[:, :, len(frames) :] = clip[:, :, len(frames) - 1 : len(frames)]
        return clip


class TileCanvas:
    """Gathers the residual of a segment tile by tile.

    The anchor needs all frames of the segment but only their cell means, so full pictures are
    kept for the kept frames alone.
    """

    def __init__(
        self,
        look: Look,
        grid: TileGrid,
        num_frames: int,
        kept: range,
        anchor: ColorAnchor | None,
        device: torch.device,
        *,
        store: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.size = (look.height, look.width)
        self.is_whole = grid.num_tiles == 1
        self.kept = kept
        self.anchor = anchor
        self.num_frames = num_frames
        if anchor is not None:
            self.cells = torch.zeros(num_frames, 3, *anchor.shape, device=device)
        else:
            self.sums = torch.zeros(len(kept), device=device)
        if not self.is_whole:
            self.residual = torch.zeros(3, len(kept), *self.size, dtype=dtype, device=store)

    def add(self, residual: Tensor, tile: Tile) -> None:
        """Add the residual `3 t h w` of one tile."""
        height, width = self.size
        num_rows = min(tile.height, height - tile.top)
        num_columns = min(tile.width, width - tile.left)
        residual = residual[..., :num_rows, :num_columns]
        if self.is_whole:
            self.residual = residual[:, self.kept.start : self.kept.stop]
        weight = tile.weight_rows[:num_rows] * tile.weight_columns[:, :num_columns]
        rows = slice(tile.top, tile.top + num_rows)
        columns = slice(tile.left, tile.left + num_columns)
        for index in range(self.num_frames):
            is_kept = index in self.kept
            if self.anchor is None and not is_kept:
                continue
            frame = residual[:, index].to(torch.float32)
            if not self.is_whole:
                frame = frame * weight
                if is_kept:
                    part = self.residual[:, index - self.kept.start, rows, columns]
                    part += frame.to(part.device)
            if self.anchor is not None:
                self.cells[index] += self.anchor.measure(frame, tile.top, tile.left)
            if is_kept and self.anchor is None:
                self.sums[index - self.kept.start] += frame.sum()

    def result(self) -> tuple[Tensor, Tensor | None, list[int]]:
        """Residual `3 t h w` of kept frames, cells to remove, bad frames from the first kept."""
        kept = slice(self.kept.start, self.kept.stop)
        # NaN and infinity survive any sum, so a few numbers per frame tell. Those of the halo
        # count too: smoothing in time would carry them into kept frames.
        sums = self.sums if self.anchor is None else self.cells.sum(dim=(1, 2, 3))
        before = 0 if self.anchor is None else self.kept.start
        bad = [int(i) - before for i in (~torch.isfinite(sums)).nonzero().flatten()]
        cells = None if self.anchor is None else self.anchor.smooth(self.cells, kept)
        return self.residual, cells, bad


def canvas_dtype(dtype: torch.dtype) -> torch.dtype:
    """How the residual of many tiles is held while it is gathered.

    Half precision is a hundred times finer than what a model in bfloat16 or float16 resolves.
    """
    return torch.float32 if dtype == torch.float32 else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on any device."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(t in text for t in OUT_OF_MEMORY_TEXTS)
