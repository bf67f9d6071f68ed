"""One plan per job: tile side and segment length from free memory and one measured tile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..families.restorer import Traits
from ..finish.grain import Grain
from ..geometry import balanced_tile, next_valid_num_frames, round_down, round_up
from ..model.live_bytes import DEVICE_SHARE
from ..options import HALO_FRAMES
from ..words import counted
from .memory import free_bytes, free_host_bytes
from .tiles import TileGrid, plan_tiles
from .workload import Workload, least_tile_px

SEGMENT_CHOICES = (48, 40, 32, 24, 20, 16, 12, 8, 4, 1)
LONG_SEGMENTS = (192, 144, 96, 72)
"""Tried too where a segment begins with frames that are computed and thrown away."""
MOST_TILES = 64
"""Along one axis."""
LEAST_TILE_PX = 192
"""Smaller tiles are mostly overlap; only running out of memory leads below."""
TILE_COST = 0.005
"""Fixed cost of one more tile, as a share of the work: decides between nearly equal plans."""
HOST_SHARE = 0.5
"""Share of free main memory a job may plan with; the rest is for the user's other programs."""
HOST_BYTES_PER_720P = 720 << 20
"""On the CPU longer segments stop paying before memory runs out, so the plan stops here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a job is cut up. Together with input and settings it decides every output byte."""

    tile: tuple[int, int]
    """(height, width) of a tile in pixels that the model reads: of the result, or of the source
    where `native_scale` is not 0; pictures that are not larger are one tile."""
    overlap_px: int
    """Pixels that neighbouring tiles share, of the same kind."""
    segment_frames: int
    """Frames that a full segment produces."""
    halo_frames: int
    """Further frames read on both sides of a segment."""
    dtype: str
    """Arithmetic of the model."""
    num_tiles: int
    """Tiles per segment."""
    estimated_bytes: int
    """Working memory of one segment."""
    free_bytes: int
    """Free memory when the plan was made."""
    on_host: bool = False
    """Whether a segment waits in main memory before and after the model, of which the GPU holds one
    tile at a time."""
    lead_frames: int = 0
    """Frames read before a segment to build the model's state; the halo in front, if larger."""
    segment_multiple: int = 1
    """Frames of which a full segment, but for its lead, is a multiple."""
    native_scale: int = 0
    """Times larger per side that the model writes the source which it reads; 0: it reads the
    picture at its final size."""
    dtype_reason: str = ""
    """Why it is this arithmetic, where that was left to choose."""
    resized_to: str = ""
    """The result's size in words, where the model's own picture is resized to it."""
    grain: Grain | None = None
    """What grain is laid, where it was asked for."""

    def __str__(self) -> str:
        if self.num_tiles == 1:
            tiles = "whole frames"
        else:
            height, width = self.tile
            pixels = "source px" if self.native_scale else "px"
            tiles = (
                f"{self.num_tiles} tiles of {width}x{height} {pixels}, {self.overlap_px} px overlap"
            )
        if self.native_scale:
            resized = f", then resized to {self.resized_to}" if self.resized_to else ""
            tiles = f"model {self.native_scale}x{resized}; {tiles}"
        if self.on_host:
            tiles += ", the segment in main memory"
        arithmetic = self.dtype + (f" (auto: {self.dtype_reason})" if self.dtype_reason else "")
        return (
            f"{tiles}; segments of {counted(self.segment_frames, 'frame')} and {self._more()}; "
            f"{arithmetic}; "
            f"about {self.estimated_bytes / 2**30:.2f} of {self.free_bytes / 2**30:.1f} GiB free "
            "memory" + ("" if self.grain is None else f"; {self.grain}")
        )

    def _more(self) -> str:
        if self.lead_frames > self.halo_frames:
            return f"{self.lead_frames} more before, {self.halo_frames} behind"
        return f"{self.halo_frames} more on each side"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        values = asdict(self) | {"tile": list(self.tile)}
        # Plans of jobs without grain are what they were before there was any.
        del values["grain"]
        return values if self.grain is None else values | {"grain": self.grain.to_json()}

    def following(self, earlier: dict[str, Any]) -> Plan:
        """This plan with all that decides the result taken from an earlier run's `to_json`."""
        names = ("overlap_px", "segment_frames", "halo_frames", "dtype", "num_tiles")
        decided = {name: earlier[name] for name in names}
        decided["on_host"] = earlier.get("on_host", False)
        decided["lead_frames"] = earlier.get("lead_frames", 0)
        if decided["dtype"] != self.dtype:
            decided["dtype_reason"] = "as the run was begun"
        decided["segment_multiple"] = earlier.get("segment_multiple", 1)
        if "grain" in earlier:
            decided["grain"] = Grain.from_json(earlier["grain"])
        return replace(self, tile=tuple(earlier["tile"]), **decided)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One way through a job."""

    grid: TileGrid
    segment_frames: int
    on_host: bool
    cost: float
    needed: int
    """Bytes on the device."""
    needed_on_host: int


def make_plan(
    workload: Workload,
    device: torch.device,
    *,
    num_frames: int | None = None,
    tile_px: int | None = None,
    segment_frames: int | None = None,
    halo_frames: int = HALO_FRAMES,
    frames_beyond: int = 0,
    free: int | None = None,
    free_host: int | None = None,
) -> Plan:
    """The cheapest way through a job that fits into memory.

    Every pixel of tile overlap and every halo frame is computed twice, so the plan minimises what
    is computed per pixel kept; among equals it takes fewer tiles.

    Args:
        workload: Sizes, and what the model needs per pixel.
        device: Where the model runs.
        num_frames: Frames of the clip, if known: no segment is planned longer.
        tile_px: Fixes both sides of a tile, in output pixels.
        segment_frames: Fixes the segment length; rounded up to what the model asks of it.
        halo_frames: Frames read on both sides of a segment; rounded up to whole time strides, and
            to what the model must see.
        frames_beyond: Further finished frames on both sides that what follows the model looks at.
        free: Bytes to plan with, instead of what is free on the device now.
        free_host: The same of main memory, where frames may wait for a GPU.

    Raises:
        ValueError: A fixed value is out of range, or not even the smallest plan fits.
    """
    _check_fixed(workload, tile_px, segment_frames, halo_frames)
    traits = workload.traits
    halo_frames = max(halo_frames, traits.halo_frames) + frames_beyond
    halo_frames = round_up(halo_frames, workload.stride[0])
    workload = replace(workload, frames_beyond=frames_beyond)
    free = free_bytes(device) if free is None else free
    free_host = free_host_bytes() if free_host is None else free_host
    may_wait = device.type == "cuda" and (
        workload.memory_model is not None or traits.reads == "source"
    )
    candidates = [
        _candidate(workload, grid, length, halo, on_host=on_host)
        for grid in _grids(workload, tile_px)
        for length in _segment_lengths(num_frames, segment_frames, traits)
        for halo in (halo_frames if num_frames is None or length < num_frames else 0,)
        for on_host in ((False, True) if may_wait and grid.num_tiles > 1 else (False,))
    ]
    candidates = [c for c in candidates if c.needed_on_host <= free_host * HOST_SHARE]
    budget = _budget(free, workload, device)
    if traits.tiling == "avoid":
        # Tiles change the picture: only what fits nowhere is cut.
        most = free * (DEVICE_SHARE if device.type == "cuda" else HOST_SHARE)
        whole = [c for c in candidates if c.grid.num_tiles == 1]
        candidates = [c for c in whole if c.needed <= most] or candidates
    chosen = _cheapest(candidates, budget)
    if chosen.needed > free * DEVICE_SHARE:
        raise ValueError(
            f"a result of {workload.width}x{workload.height} needs at least "
            f"{chosen.needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free "
            f"({device.type}); choose a smaller scale or size"
        )
    return Plan(
        tile=(chosen.grid.vertical.tile, chosen.grid.horizontal.tile),
        overlap_px=workload.overlap_px,
        segment_frames=chosen.segment_frames,
        halo_frames=halo_frames,
        dtype=workload.dtype,
        num_tiles=chosen.grid.num_tiles,
        estimated_bytes=chosen.needed,
        free_bytes=free,
        on_host=chosen.on_host,
        lead_frames=workload.lead_frames,
        segment_multiple=traits.segment_multiple,
        native_scale=traits.native_scale if traits.reads == "source" else 0,
        resized_to=workload.resized_to,
    )


def _cheapest(candidates: list[_Candidate], budget: float) -> _Candidate:
    """The first of the cheapest that fit: on the device, with the fewest tiles; else the least."""
    fitting = [c for c in candidates if c.needed <= budget]
    if fitting:
        return min(fitting, key=lambda c: c.cost)
    return min(candidates, key=lambda c: c.needed)


def _candidate(
    workload: Workload, grid: TileGrid, length: int, halo_frames: int, *, on_host: bool
) -> _Candidate:
    waiting = workload.waiting_bytes(grid, length, halo_frames)
    tile = workload.tile_bytes(grid, length, halo_frames)
    if on_host:
        waiting += workload.encoder_bytes
        tile -= workload.encoder_bytes
    return _Candidate(
        grid=grid,
        segment_frames=length,
        on_host=on_host,
        cost=_relative_cost(workload, grid, length, halo_frames),
        needed=tile if on_host else tile + waiting,
        needed_on_host=waiting if on_host else 0,
    )


def _check_fixed(
    workload: Workload, tile_px: int | None, segment_frames: int | None, halo_frames: int
) -> None:
    traits = workload.traits
    least_tile = least_tile_px(traits) * traits.native_scale
    if tile_px is not None and traits.tiling == "never":
        raise ValueError(
            f"tile_px must be left out for {traits.name}, which works on whole frames only, got "
            f"{tile_px}"
        )
    if tile_px is not None and tile_px < least_tile:
        two = ", two tokens" if traits.reads == "resized" else ""
        raise ValueError(f"tile_px must be at least {least_tile}{two}, got {tile_px}")
    if segment_frames is not None and segment_frames < 1:
        raise ValueError(f"segment_frames must be at least 1, got {segment_frames}")
    if halo_frames < 0:
        raise ValueError(f"halo_frames must be at least 0, got {halo_frames}")


def _grids(workload: Workload, tile_px: int | None) -> Iterator[TileGrid]:
    """Ways to lay tiles: the fixed one, or every sensible number of rows and columns."""
    stride, padded, traits = workload.stride[1:], workload.padded, workload.traits
    overlap = workload.overlap_px
    if tile_px is not None:
        read_px = tile_px // traits.native_scale
        yield plan_tiles(*padded, (read_px, read_px), overlap, stride)
        return
    if traits.tiling == "never":
        yield plan_tiles(*padded, padded, overlap, stride)
        return
    least = max(LEAST_TILE_PX // traits.native_scale, least_tile_px(traits))
    sides = [
        _sides(length, step, overlap, least) for length, step in zip(padded, stride, strict=True)
    ]
    for tile in itertools.product(*sides):
        yield plan_tiles(*padded, tile, overlap, stride)


def _sides(length: int, stride: int, overlap_px: int, least: int) -> list[int]:
    sides = [length]
    for num_tiles in range(2, MOST_TILES):
        side = balanced_tile(length, num_tiles, overlap_px, stride)
        if side < max(least, 2 * overlap_px):
            break
        sides.append(side)
    return sides


def _segment_lengths(
    num_frames: int | None, segment_frames: int | None, traits: Traits
) -> list[int]:
    multiple = traits.segment_multiple
    if segment_frames is not None:
        return [round_up(segment_frames, multiple)]
    choices = SEGMENT_CHOICES if traits.lead_frames == 0 else LONG_SEGMENTS + SEGMENT_CHOICES
    if multiple > 1:
        lengths = sorted({round_down(length, multiple) for length in choices}, reverse=True)
    else:
        # With a halo of whole strides on both sides these need no padding in time.
        lengths = [next_valid_num_frames(length, traits.stride[0]) for length in choices]
    if num_frames is None:
        return lengths
    most = round_up(num_frames, multiple)
    return sorted({min(length, most) for length in lengths}, reverse=True)


def _budget(free: int, workload: Workload, device: torch.device) -> float:
    if device.type == "cuda":
        return free * DEVICE_SHARE
    if workload.memory_model is not None:
        return free * HOST_SHARE
    pixels = max(1.0, workload.native_pixels / (1280 * 720))
    return min(free * HOST_SHARE, HOST_BYTES_PER_720P * pixels)


def _relative_cost(workload: Workload, grid: TileGrid, length: int, halo: int) -> float:
    """Pixels computed per pixel kept, and a little for each tile."""
    height, width = workload.padded
    computed = grid.num_tiles * grid.vertical.tile * grid.horizontal.tile
    share = computed / (height * width) * workload.num_computed(length, halo) / length
    return share * (1 + TILE_COST * grid.num_tiles)
