"""Steadiness: each picture of a result averaged with what the frames around show of the same.

Averaged are the finished pictures and not only what the model added: of noise in the source the
model takes away what is in this frame, and an average over what it takes away in others would put
this frame's noise back.

Two rounds, so that few pictures are looked at for many that count: first with one and two frames
before and behind, then these averages with those five frames before and behind. Where all agree, a
picture is the mean of 15, and what differs from frame to frame at random falls to 0.26.

Pictures move by whole pixels of the result, cell by cell. The caller hands over frames of one shot
at a time, so nothing of one shot is seen in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.threads import few_threads
from ..video.pixels import Frame, frame_to_tensor
from . import STEADY_REACH, check_steady
from .alike import Guide, cell_px, compare, make_guide

NEAR = (-1, 1, -2, 2)
FAR = (-5, 5)
FULL_SCALE = 32767
"""Of waiting pictures: 16 bits a colour, so that a pixel, with a fourth that says nothing, is one
number of 64 and is looked up as one."""
FINE_PX = 2
"""Side of the squares that weights are interpolated for."""
BAND_ROWS = 32
"""Rows worked on at once on a CPU, so that they stay in its cache."""


OnCores = Callable[[Callable[[Any], object], Sequence[Any]], object]
"""Calls a function with each of some values."""
_Task = tuple[int, tuple[int, ...]]
"""A frame, and the distances of those it is averaged with."""


@dataclass(frozen=True, slots=True, eq=False)
class _Neighbour:
    """A frame that one is averaged with."""

    offsets: Tensor
    """`h w` int32 in cells: how much further in memory its pixels are."""
    weights: Tensor
    """`h w` in squares of `FINE_PX`: its share of the average."""
    has_moved: list[bool]
    """By row of cells."""
    counts: list[bool]
    """By row of cells."""


class SteadyFilter:
    """Averages the pictures of a run of frames along their motion, while they stream by.

    Args:
        height: Rows of the pictures.
        width: Columns of the pictures.
        device: Where they are.
        steady: How much of the average is taken: 0 is the picture itself.
    """

    def __init__(self, height: int, width: int, device: torch.device, steady: float) -> None:
        check_steady(steady)
        self.height, self.width, self.device = height, width, device
        self.steady = steady
        self.size = (height, width)
        is_cpu = device.type == "cpu"
        self._pool = ThreadPoolExecutor(torch.get_num_threads()) if is_cpu else None
        self._places = torch.arange(height * width, dtype=torch.int32, device=device)
        self._cell_px = 0

    def run(
        self, pictures: Iterator[Tensor], frames: Sequence[Frame], keep: slice
    ) -> Iterator[Tensor]:
        """Steady the pictures of a run of frames.

        What is given for a frame depends on it and up to `STEADY_REACH` frames on both sides alone.

        Args:
            pictures: `3 h w` float32 in [0, 1], one for each frame in order; taken when needed.
            frames: What they were made of: the source's frames, all of one shot.
            keep: The frames wanted.

        Yields:
            The wanted pictures in order: `3 h w` float32.
        """
        self._set_cells(frame_to_tensor(frames[0], self.device).shape[2:])
        window = _Window(self, pictures, frames, keep)
        for index in range(len(frames))[keep]:
            yield window.result(index)

    def _set_cells(self, source: torch.Size) -> None:
        """Lay out cells for sources of this (height, width)."""
        self._cell_px = side = cell_px(self.height, self.width, *source)
        rows, columns = -(-self.height // side), -(-self.width // side)
        self.grid = (rows, columns)
        column = torch.arange(self.width, device=self.device)
        row = torch.arange(self.height, device=self.device)
        self._rows, self._columns = row // side, column // side
        self._fine_rows, self._fine_columns = row // FINE_PX, column // FINE_PX
        top = torch.arange(rows, device=self.device)[:, None] * side
        left = torch.arange(columns, device=self.device) * side
        bottom = (top + side).clamp(max=self.height)
        right = (left + side).clamp(max=self.width)
        # A cell moves as far as all of it stays in the picture.
        self._most = (-left, self.width - right, -top, self.height - bottom)

    def guide(self, frame: Frame) -> Guide:
        """What a source frame is compared by."""
        return make_guide(frame_to_tensor(frame, self.device), *self.grid)

    def neighbours(self, here: Guide, there: Sequence[Guide]) -> list[_Neighbour]:
        """How others are averaged with a frame."""
        if not there:
            return []
        motion, weights = compare(here, list(there))
        shares = weights / (1 + weights.sum(0))
        least_x, most_x, least_y, most_y = self._most
        steps = (motion * self._cell_px).round_().to(torch.int64)
        x = steps[:, 0].maximum(least_x).minimum(most_x)
        y = steps[:, 1].maximum(least_y).minimum(most_y)
        offsets = (y * self.width + x).to(torch.int32)
        factor = self._cell_px // FINE_PX
        fine = F.interpolate(
            shares[None], scale_factor=factor, mode="bilinear", align_corners=False
        )[0]
        has_moved = (offsets != 0).any(2).tolist()
        counts = (shares > 0).any(2).tolist()
        return [
            _Neighbour(*values) for values in zip(offsets, fine, has_moved, counts, strict=True)
        ]

    def pack(self, picture: Tensor) -> Tensor:
        """A picture `3 h w` in [0, 1] to wait as `h w 4` int16."""
        packed = torch.zeros(self.height, self.width, 4, dtype=torch.int16, device=self.device)
        packed[..., :3] = (picture * FULL_SCALE).round_().permute(1, 2, 0)
        return packed

    def average(
        self,
        own: Tensor,
        others: Sequence[Tensor],
        neighbours: Sequence[_Neighbour],
        each: OnCores,
        finish: Callable[[slice, Tensor], None],
    ) -> None:
        """Average a waiting picture with others.

        Args:
            own: `h w 4` int16.
            others: Likewise.
            neighbours: How each counts.
            each: From `on_cores`.
            finish: Called with the rows of a band and its average, `h w 4` float32.
        """
        pixels = [other.view(torch.int64).view(-1) for other in others]
        places = self._places.view(self.height, self.width)

        def one(rows: slice) -> None:
            cells = slice(rows.start // self._cell_px, -(-rows.stop // self._cell_px))
            taken = [i for i, n in enumerate(neighbours) if any(n.counts[cells])]
            total = own[rows].to(torch.float32)
            if taken:
                shares = [self._fine(neighbours[i].weights, rows) for i in taken]
                total.mul_(1 - sum(shares))
            for i, share in zip(taken, shares if taken else (), strict=True):
                if any(neighbours[i].has_moved[cells]):
                    steps = neighbours[i].offsets.index_select(1, self._columns)
                    where = places[rows] + steps.index_select(0, self._rows[rows])
                    other = pixels[i].index_select(0, where.view(-1)).view(torch.int16)
                    other = other.view(total.shape)
                else:
                    other = others[i][rows]
                total.addcmul_(other.to(torch.float32), share)
            finish(rows, total)

        each(one, self._bands())

    def _fine(self, weights: Tensor, rows: slice) -> Tensor:
        """Weights for the pixels of some rows: `h w 1`."""
        columns = weights.index_select(1, self._fine_columns)
        return columns.index_select(0, self._fine_rows[rows])[..., None]

    def _bands(self) -> list[slice]:
        if self.device.type != "cpu":
            return [slice(0, self.height)]
        step = max(BAND_ROWS, self._cell_px)
        return [slice(i, min(i + step, self.height)) for i in range(0, self.height, step)]

    @contextmanager
    def on_cores(self) -> Iterator[OnCores]:
        """Inside the block: what calls a function with some values, side by side on a CPU."""
        if self._pool is None:
            yield lambda call, values: [call(value) for value in values]
            return

        def alone(call: Callable[[Any], object], value: Any) -> None:
            torch.set_num_threads(1)
            with torch.inference_mode():
                call(value)

        # Many small operations, each of them alone, keep two cores busier than together.
        with few_threads(0, self.device):
            yield lambda call, values: list(self._pool.map(partial(alone, call), values))


class _Window:
    """The frames around the one at hand."""

    def __init__(
        self,
        steady: SteadyFilter,
        pictures: Iterator[Tensor],
        frames: Sequence[Frame],
        keep: slice,
    ) -> None:
        self._filter, self._pictures, self._frames = steady, pictures, frames
        self._num_taken = 0
        self._guides: dict[int, Guide] = {}
        self._own: dict[int, Tensor] = {}
        self._near: dict[int, Tensor] = {}
        self._next_near = max(0, range(len(frames))[keep].start + FAR[0])

    @torch.inference_mode()
    def result(self, index: int) -> Tensor:
        """The steady picture of a frame; to be asked for in order."""
        num_frames = len(self._frames)
        while self._num_taken < min(index + STEADY_REACH + 1, num_frames):
            self._take()
        stop = min(index + FAR[1] + 1, num_frames)
        todo = [(i, NEAR) for i in range(self._next_near, stop)] + [(index, FAR)]
        self._next_near = stop
        found: dict[int, list[_Neighbour]] = {}
        with self._filter.on_cores() as each:
            each(lambda task: found.update({task: self._compare(*task)}), todo)
            for task in todo[:-1]:
                waits = torch.zeros_like(self._own[task[0]])
                self._average(task, self._own, found[task], each, partial(_wait, waits))
                self._near[task[0]] = waits
            result = torch.empty(3, *self._filter.size, device=self._filter.device)
            share = self._filter.steady
            give = partial(_give, result, self._own[index], share)
            self._average(todo[-1], self._near, found[todo[-1]], each, give)
        self._forget(index + 1)
        return result

    def _take(self) -> None:
        """Take the next frame and its picture."""
        index, self._num_taken = self._num_taken, self._num_taken + 1
        self._guides[index] = self._filter.guide(self._frames[index])
        self._own[index] = self._filter.pack(next(self._pictures))

    def _others(self, task: _Task) -> list[int]:
        index, distances = task
        places = (index + distance for distance in distances)
        return [place for place in places if 0 <= place < len(self._frames)]

    def _compare(self, index: int, distances: tuple[int, ...]) -> list[_Neighbour]:
        others = [self._guides[other] for other in self._others((index, distances))]
        return self._filter.neighbours(self._guides[index], others)

    def _average(
        self,
        task: _Task,
        pictures: dict[int, Tensor],
        neighbours: list[_Neighbour],
        each: OnCores,
        finish: Callable[[slice, Tensor], None],
    ) -> None:
        others = [pictures[other] for other in self._others(task)]
        self._filter.average(pictures[task[0]], others, neighbours, each, finish)

    def _forget(self, index: int) -> None:
        """Drop what no frame from this one on needs."""
        firsts = ((self._own, index), (self._near, index + FAR[0]), (self._guides, index + FAR[0]))
        for held, first in firsts:
            for old in [i for i in held if i < first]:
                del held[old]


def _wait(waits: Tensor, rows: slice, average: Tensor) -> None:
    waits[rows] = average.round_()


def _give(result: Tensor, own: Tensor, share: float, rows: slice, average: Tensor) -> None:
    if share < 1:
        average.lerp_(own[rows].to(torch.float32), 1 - share)
    torch.div(average[..., :3].permute(2, 0, 1), FULL_SCALE, out=result[:, rows])
