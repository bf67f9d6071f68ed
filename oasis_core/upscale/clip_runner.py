"""Running a restorer over the frames of a segment: fill up, tile, restore, blend, bring to size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..families.restorer import Place, Restorer
from ..finish.mask import MaskFrames, inside
from ..geometry import next_valid_num_frames, padding_indices
from ..model.timing import synchronize
from ..video.pixels import Frame, equal, frame_to_tensor, resize
from .canvas import TileCanvas, canvas_dtype, not_finite
from .color_anchor import ColorAnchor
from .look import Look, StageClock
from .precision import arithmetic
from .progress import OnStage, tell_nobody
from .tiles import Tile, plan_tiles
from .workload import padded_size

_RESIZE_REACH_PX = 4

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles) of the segment at hand; may raise to stop."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restored:
    """What the model made of the kept frames of a segment, at the size of the result."""

    content: Tensor
    """`3 t h w`: what is to be added to the resized source; or the pictures themselves."""
    is_picture: bool
    """Whether it is the pictures."""
    cells: Tensor | None
    """`t 3 h' w'` for the anchor to remove, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Remembered:
    """A frame that was done and that the next segment needs again."""

    frame: Frame
    """The frame as it was given, which tells it from every other."""
    key: tuple[tuple[int, int], torch.dtype]
    """Tile and arithmetic."""
    content: Tensor | None
    """`3 h w` at the size of the result, where the next segment keeps the frame."""
    cells: Tensor | None
    """`3 h' w'` as measured by the anchor, if there is one."""
    total: Tensor
    """A sum of what the model gave, to see whether it is finite."""


class ClipRunner:
    """Runs a restorer over the frames of one segment after another.

    What it gives depends on the frames, the tile and the arithmetic alone.

    Args:
        restorer: The model, prepared for the device.
        device: Where the model is.
        look: What the result should look like.
        overlap_px: Pixels that neighbouring tiles share.
        store: Where frames wait before and after the model.
        clock: Receives the seconds of each stage.
        masks: Where the model's work counts; None: everywhere.
    """

    def __init__(
        self,
        restorer: Restorer,
        device: torch.device,
        look: Look,
        *,
        overlap_px: int,
        store: torch.device,
        clock: StageClock,
        masks: MaskFrames | None = None,
    ) -> None:
        self.restorer, self.traits = restorer, restorer.traits
        self.device, self.store = device, store
        self.look = look
        self.overlap_px = overlap_px
        self.clock = clock
        self.masks = masks
        self.anchor = ColorAnchor(look.height, look.width, device) if look.color_anchor else None
        self._reads_source = self.traits.reads == "source"
        # What counts of an equal picture may be another part of it.
        is_same_part = masks is None or look.mask.is_still
        self.may_hold = is_same_part and not self.traits.numbers_frames
        """Whether equal pictures have equal results."""
        self._remembered: list[_Remembered] = []
        self._latest: _Remembered | None = None
        self.num_held = 0
        """Frames that were not computed because they equal the one before."""
        self.on_stage: OnStage = tell_nobody
        """Told what is being done, frame by frame; may raise to stop."""

    def run(
        self,
        frames: Sequence[Frame],
        keep: slice,
        tile: tuple[int, int],
        dtype: torch.dtype,
        first: int,
        on_tile: OnTile | None,
        opening: Frame | None = None,
    ) -> tuple[Restored, list[int]]:
        """Restore a segment.

        Args:
            frames: Low-resolution frames, halo included.
            keep: The frames wanted.
            tile: (height, width) of a tile in pixels that the model reads.
            dtype: Arithmetic of the model.
            first: Number of the first kept frame in the job.
            on_tile: Called after each tile.
            opening: First frame of the shot; None: the first of these.

        Returns:
            What the model made of the kept frames, and the numbers, from the first kept, of frames
            that are not finite; those of the halo count, too, where the anchor looks at them.
        """
        run = self._run_frames if self.traits.is_per_frame else self._run_clip
        how = _Pass(tile=tile, dtype=dtype, opening=opening)
        return run(frames, keep, how, first, on_tile)

    @torch.inference_mode()
    def resize(self, frame: Frame) -> Tensor:
        """The plain resize of one frame: `3 h w` float32 in [0, 1] at the target size."""
        with self.clock("resize"):
            return resize(frame_to_tensor(frame, self.device), self.look.height, self.look.width)

    def read_size(self, frame: Frame) -> tuple[int, int]:
        """(height, width) of what the model reads of a frame, without padding."""
        if not self._reads_source:
            return self.look.height, self.look.width
        return tuple(frame.shape[1:] if isinstance(frame, Tensor) else frame.shape[:2])

    @torch.inference_mode()
    def _run_clip(
        self,
        frames: Sequence[Frame],
        keep: slice,
        how: _Pass,
        first: int,
        on_tile: OnTile | None,
    ) -> tuple[Restored, list[int]]:
        """Restore all frames at once."""
        kept, everything = range(len(frames))[keep], range(len(frames))
        start = first - kept.start
        if not self._reads_source:
            canvas = self._gather(frames, kept, self.anchor, how, start, on_tile)
            with self.clock("blend"):
                content, cells, bad = canvas.result()
            return Restored(content=content, is_picture=False, cells=cells), bad
        needed = kept if self.anchor is None else everything
        canvas = self._gather(frames, needed, None, how, start, on_tile)
        pictures, _, bad = canvas.result()
        result, cells = self._empty(len(kept), how), []
        for place, index in enumerate(needed):
            self.on_stage("blend", place, len(needed))
            picture, cell = self._at_size(frames[index], pictures[:, place])
            cells.append(cell)
            if index in kept:
                result[:, index - kept.start] = picture
        smooth = None if self.anchor is None else self.anchor.smooth(torch.stack(cells), keep)
        bad = [index + needed.start - kept.start for index in bad]
        return Restored(content=result, is_picture=True, cells=smooth), bad

    @torch.inference_mode()
    def _run_frames(
        self,
        frames: Sequence[Frame],
        keep: slice,
        how: _Pass,
        first: int,
        on_tile: OnTile | None,
    ) -> tuple[Restored, list[int]]:
        """Restore frame by frame, for a model whose frames do not depend on each other.

        Frames of the halo are looked at for the anchor alone. What the next segment needs of this
        one is remembered: it is what it would compute itself. So is the latest frame: one that
        equals it has its result.
        """
        kept = range(len(frames))[keep]
        needed = kept if self.anchor is None else range(len(frames))
        result, found, sums = self._empty(len(kept), how), [], []
        for done, index in enumerate(needed):
            frame = frames[index]
            entry = self._recall(frame, how, is_kept=index in kept)
            if entry is None:
                report = _share_of(on_tile, done, len(needed))
                number = first - kept.start + index
                content, cells, total = self._one_frame(frame, how, number, report)
                entry = _Remembered(
                    frame=frame,
                    key=(how.tile, how.dtype),
                    content=content.to(self.store, result.dtype),
                    cells=cells,
                    total=total,
                )
            sums.append(entry.total)
            if index in kept:
                result[:, index - kept.start] = entry.content
            if entry.content is not None:
                self._latest = entry
            is_next = index >= kept.stop - 2 * self.look.frames_beyond
            found.append(entry if is_next else replace(entry, content=None))
        bad = not_finite(torch.stack(sums), kept.start - needed.start)
        num_behind = len(frames) - kept.stop + 2 * self.look.frames_beyond
        self._remembered = found[max(0, kept.stop - needed.start - num_behind) :]
        if bad:
            self._remembered, self._latest = [], None
        cells = None
        if self.anchor is not None:
            cells = self.anchor.smooth(torch.stack([entry.cells for entry in found]), keep)
        return Restored(content=result, is_picture=self._reads_source, cells=cells), bad

    def _recall(self, frame: Frame, how: _Pass, *, is_kept: bool) -> _Remembered | None:
        for entry in self._remembered:
            is_same = entry.frame is frame and entry.key == (how.tile, how.dtype)
            if is_same and (entry.content is not None or not is_kept):
                return entry
        entry = self._latest if self.may_hold else None
        if entry is None or entry.key != (how.tile, how.dtype) or not equal(entry.frame, frame):
            return None
        self.num_held += 1
        return replace(entry, frame=frame)

    def _one_frame(
        self, frame: Frame, how: _Pass, number: int, on_tile: OnTile | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """One frame: content `3 h w`, its cells if there is an anchor, and a sum to check both."""
        measured = None if self._reads_source else self.anchor
        canvas = self._gather([frame], range(1), measured, how, number, on_tile)
        if self._reads_source:
            return *self._at_size(frame, canvas.content[:, 0]), canvas.sums[0]
        cells = None if self.anchor is None else canvas.cells[0]
        return canvas.content[:, 0], cells, canvas.sums[0] if cells is None else cells.sum()

    def _empty(self, num_frames: int, how: _Pass) -> Tensor:
        """Room for pictures of the result, `3 t h w`."""
        size = (self.look.height, self.look.width)
        return torch.empty(3, num_frames, *size, dtype=canvas_dtype(how.dtype), device=self.store)

    def _at_size(self, frame: Frame, picture: Tensor) -> tuple[Tensor, Tensor | None]:
        """A restored picture `3 h w` resized to the result, and the cells of what it adds."""
        with self.clock("resize"):
            large = picture[None].to(self.device, torch.float32)
            picture = resize(large, self.look.height, self.look.width)
        if self.anchor is None:
            return picture, None
        plain = self.resize(frame)
        with self.clock("blend"):
            return picture, self.anchor.measure(picture - plain)

    def _gather(
        self,
        frames: Sequence[Frame],
        kept: range,
        anchor: ColorAnchor | None,
        how: _Pass,
        number: int,
        on_tile: OnTile | None,
    ) -> TileCanvas:
        """Run the model over the tiles of some frames, the first of which has a number."""
        scale, size = self.traits.native_scale, self.read_size(frames[0])
        padded = padded_size(self.traits, *size)
        grid = plan_tiles(*padded, how.tile, self.overlap_px, self.traits.stride[1:])
        clip = self._padded_clip(frames, how.dtype, size, padded)
        opening = None
        if self.traits.wants_opening and how.opening is not None:
            opening = self._padded_clip([how.opening], how.dtype, size, padded)
        canvas = TileCanvas(
            (scale * size[0], scale * size[1]),
            grid,
            len(frames),
            kept,
            anchor,
            self.device,
            store=self.store,
            dtype=canvas_dtype(how.dtype),
        )
        written = grid.scaled(scale).tiles(self.device)
        counts = None
        if self.masks is not None and grid.num_tiles > 1:
            counts = self.masks.cells(range(number + kept.start, number + kept.stop))
        for index, (tile, target) in enumerate(zip(grid.tiles(self.device), written, strict=True)):
            piece = clip if grid.num_tiles == 1 else clip[..., tile.rows, tile.columns].contiguous()
            if counts is None or self._counts(counts, tile, size):
                with self.clock("model"):
                    piece = piece.to(self.device)
                    shown = None
                    if opening is not None:
                        shown = opening[..., tile.rows, tile.columns].to(self.device)
                    place = Place(first_frame=number, top=tile.top, left=tile.left, opening=shown)
                    with arithmetic(self.traits, self.device, how.dtype):
                        content = self.restorer.restore(piece, place)
                    synchronize(self.device)
                self._check_shape(content, piece)
            else:
                content = self._as_if_nothing_done(piece.to(self.device))
            with self.clock("blend"):
                canvas.add(content[0], target, self.on_stage)
            if on_tile is not None:
                on_tile(index + 1, grid.num_tiles)
        return canvas

    def _counts(self, cells: Tensor, tile: Tile, size: tuple[int, int]) -> bool:
        """Whether the model's work counts anywhere in a tile of what it reads, `size` in all."""
        parts = []
        for of_tile, read, large in zip(
            (tile.rows, tile.columns), size, (self.look.height, self.look.width), strict=True
        ):
            scale = large / read
            # What a resize of the model's picture to the result carries over the tile's edge.
            margin = 0 if scale == 1 else math.ceil(_RESIZE_REACH_PX * max(1.0, scale))
            start = math.floor(of_tile.start * scale) - margin
            parts.append(slice(max(0, start), math.ceil(of_tile.stop * scale) + margin))
        return inside(cells, *parts)

    def _as_if_nothing_done(self, piece: Tensor) -> Tensor:
        """What a model would give for a tile, `1 3 t h w`, that changes nothing."""
        if not self._reads_source:
            return torch.zeros_like(piece)
        scale = self.traits.native_scale
        frames = piece[0].transpose(0, 1).float()
        sides = (scale * piece.shape[3], scale * piece.shape[4])
        if scale > 1:
            frames = F.interpolate(frames, sides, mode="bicubic", antialias=True)
        return frames.transpose(0, 1)[None]

    def _check_shape(self, content: Tensor, piece: Tensor) -> None:
        scale = self.traits.native_scale
        expected = (*piece.shape[:3], scale * piece.shape[3], scale * piece.shape[4])
        if tuple(content.shape) != expected:
            what = "its input's shape" if scale == 1 else f"{scale} times its input's sides,"
            raise ValueError(f"the model must return {what} {expected}, got {tuple(content.shape)}")

    def _padded_clip(
        self,
        frames: Sequence[Frame],
        dtype: torch.dtype,
        size: tuple[int, int],
        padded: tuple[int, int],
    ) -> Tensor:
        """What the model reads, padded in space by reflection and in time by repetition."""
        height, width = size
        num_frames = next_valid_num_frames(len(frames), self.traits.stride[0])
        clip = torch.empty(1, 3, num_frames, *padded, dtype=dtype, device=self.store)
        for index, frame in enumerate(frames):
            self.on_stage("resize", index, len(frames))
            read = (
                frame_to_tensor(frame, self.device)[0] if self._reads_source else self.resize(frame)
            )
            clip[0, :, index, :height, :width] = read
        with self.clock("resize"):
            for row, source in enumerate(padding_indices(height, padded[0]), start=height):
                clip[..., row, :] = clip[..., source, :]
            for column, source in enumerate(padding_indices(width, padded[1]), start=width):
                clip[..., column] = clip[..., source]
            clip[:, :, len(frames) :] = clip[:, :, len(frames) - 1 : len(frames)]
        return clip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pass:
    """One try at a segment."""

    tile: tuple[int, int]
    """(height, width) of a tile in pixels that the model reads."""
    dtype: torch.dtype
    """Arithmetic of the model."""
    opening: Frame | None = None
    """First frame of the shot; None: that of the segment."""


def _share_of(on_tile: OnTile | None, done: int, num_frames: int) -> OnTile | None:
    """What counts the tiles of one frame as a share of those of all frames."""
    if on_tile is None:
        return None
    return lambda tiles, num_tiles: on_tile(done * num_tiles + tiles, num_frames * num_tiles)
