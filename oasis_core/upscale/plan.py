"""One plan per job: tile side and segment length from free memory and one measured tile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ..geometry import balanced_tile, next_valid_num_frames, round_up
from .live_bytes import LiveTensorBytes
from .memory import free_bytes, free_host_bytes
from .model_memory import DEVICE_SHARE, SAFETY
from .precision import arithmetic, probe_clip
from .tiles import TileGrid, plan_tiles

SAMPLE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
HALO_FRAMES = 2
OVERLAP_PX = 32
LATENT_OVERLAP_PX = 128
"""Of models with a VAE, whose decoder sees 138 px around a pixel."""
SEGMENT_CHOICES = (48, 40, 32, 24, 20, 16, 12, 8, 4, 1)
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
ENCODER_FRAMES = 60
"""Frames that an encoder with look-ahead holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a job is cut up. Together with input and settings it decides every output byte."""

    tile: tuple[int, int]
    """(height, width) of a tile in output pixels; pictures that are not larger are one tile."""
    overlap_px: int
    """Pixels that neighbouring tiles share."""
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

    def __str__(self) -> str:
        if self.num_tiles == 1:
            tiles = "whole frames"
        else:
            height, width = self.tile
            tiles = f"{self.num_tiles} tiles of {width}x{height} px, {self.overlap_px} px overlap"
        if self.on_host:
            tiles += ", the segment in main memory"
        return (
            f"{tiles}; segments of {self.segment_frames} frames and {self.halo_frames} more on "
            f"each side; {self.dtype}; about {self.estimated_bytes / 2**30:.2f} of "
            f"{self.free_bytes / 2**30:.1f} GiB free memory"
        )

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return asdict(self) | {"tile": list(self.tile)}

    def following(self, earlier: dict[str, Any]) -> Plan:
        """This plan with all that decides the result taken from an earlier run's `to_json`."""
        names = ("overlap_px", "segment_frames", "halo_frames", "dtype", "num_tiles")
        decided = {name: earlier[name] for name in names}
        decided["on_host"] = earlier.get("on_host", False)
        return replace(self, tile=tuple(earlier["tile"]), **decided)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a plan has to fit."""

    source_width: int
    source_height: int
    width: int
    height: int
    bytes_per_channel: int
    """Of a source sample: 1, 2 or 4."""
    stride: tuple[int, int, int]
    """Token (frames, pixels, pixels)."""
    model_bytes: float
    """Working memory of the model per pixel and frame of its input."""
    dtype: str
    """Arithmetic of the model."""
    overlap_px: int = OVERLAP_PX
    """Least pixels that neighbouring tiles share."""
    memory_model: Callable[[int, int, int], int] | None = None
    """Working memory of the model for (frames, height, width), where it is known exactly; then
    `model_bytes` is not looked at."""

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width in whole tokens."""
        return round_up(self.height, self.stride[1]), round_up(self.width, self.stride[2])

    @property
    def encoder_bytes(self) -> int:
        """Of the finished frames that the encoder holds."""
        return 3 * self.width * self.height * (ENCODER_FRAMES // 2)

    def num_read(self, segment_frames: int, halo_frames: int) -> int:
        """Frames that the model sees of a full segment."""
        return next_valid_num_frames(segment_frames + 2 * halo_frames, self.stride[0])

    def segment_bytes(self, grid: TileGrid, segment_frames: int, halo_frames: int) -> int:
        """Working memory of a segment in bytes, all of it on the device."""
        waiting = self.waiting_bytes(grid, segment_frames, halo_frames)
        return waiting + self.tile_bytes(grid, segment_frames, halo_frames)

    def waiting_bytes(self, grid: TileGrid, segment_frames: int, halo_frames: int) -> int:
        """Of a segment's frames before the model, and after it while they gather tile by tile."""
        sample_bytes = SAMPLE_BYTES[self.dtype]
        num_read = self.num_read(segment_frames, halo_frames)
        clip = 3 * self.padded[0] * self.padded[1] * num_read
        canvas = 0 if grid.num_tiles == 1 else 3 * self.width * self.height * segment_frames
        return sample_bytes * (clip + canvas)

    def tile_bytes(self, grid: TileGrid, segment_frames: int, halo_frames: int) -> int:
        """Of the model on one tile, and of the frames at the ends of the work."""
        num_read = self.num_read(segment_frames, halo_frames)
        tile = (grid.vertical.tile, grid.horizontal.tile)
        if self.memory_model is not None:
            model = SAFETY * self.memory_model(num_read, *tile)
        else:
            model = SAFETY * self.model_bytes * tile[0] * tile[1] * num_read
        held = num_read + max(segment_frames // 2, halo_frames)
        source = 3 * self.bytes_per_channel * self.source_width * self.source_height * held
        frames = 3 * self.width * self.height * 3 * 4
        return int(model + source + frames + self.encoder_bytes)


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
        tile_px: Fixes both sides of a tile.
        segment_frames: Fixes the segment length.
        halo_frames: Frames read on both sides of a segment; rounded up to whole time strides.
        free: Bytes to plan with, instead of what is free on the device now.
        free_host: The same of main memory, where frames may wait for a GPU.

    Raises:
        ValueError: A fixed value is out of range, or not even the smallest plan fits.
    """
    _check_fixed(workload, tile_px, segment_frames, halo_frames)
    halo_frames = round_up(halo_frames, workload.stride[0])
    free = free_bytes(device) if free is None else free
    free_host = free_host_bytes() if free_host is None else free_host
    may_wait = device.type == "cuda" and workload.memory_model is not None
    candidates = [
        _candidate(workload, grid, length, halo, on_host=on_host)
        for grid in _grids(workload, tile_px)
        for length in _segment_lengths(num_frames, segment_frames, workload.stride[0])
        for halo in (halo_frames if num_frames is None or length < num_frames else 0,)
        for on_host in ((False, True) if may_wait and grid.num_tiles > 1 else (False,))
    ]
    candidates = [c for c in candidates if c.needed_on_host <= free_host * HOST_SHARE]
    chosen = _cheapest(candidates, _budget(free, workload, device))
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
    least_tile = 2 * max(workload.stride[1:])
    if tile_px is not None and tile_px < least_tile:
        raise ValueError(f"tile_px must be at least {least_tile}, two tokens, got {tile_px}")
    if segment_frames is not None and segment_frames < 1:
        raise ValueError(f"segment_frames must be at least 1, got {segment_frames}")
    if halo_frames < 0:
        raise ValueError(f"halo_frames must be at least 0, got {halo_frames}")


def _grids(workload: Workload, tile_px: int | None) -> Iterator[TileGrid]:
    """Ways to lay tiles: the fixed one, or every sensible number of rows and columns."""
    stride, padded = workload.stride[1:], workload.padded
    if tile_px is not None:
        yield plan_tiles(*padded, (tile_px, tile_px), workload.overlap_px, stride)
        return
    overlap = workload.overlap_px
    sides = [_sides(length, step, overlap) for length, step in zip(padded, stride, strict=True)]
    for tile in itertools.product(*sides):
        yield plan_tiles(*padded, tile, overlap, stride)


def _sides(length: int, stride: int, overlap_px: int) -> list[int]:
    sides = [length]
    for num_tiles in range(2, MOST_TILES):
        side = balanced_tile(length, num_tiles, overlap_px, stride)
        if side < max(LEAST_TILE_PX, 2 * overlap_px):
            break
        sides.append(side)
    return sides


def _segment_lengths(num_frames: int | None, segment_frames: int | None, stride: int) -> list[int]:
    if segment_frames is not None:
        return [segment_frames]
    # With a halo of whole strides on both sides these need no padding in time.
    lengths = [next_valid_num_frames(length, stride) for length in SEGMENT_CHOICES]
    if num_frames is None:
        return lengths
    return sorted({min(length, num_frames) for length in lengths}, reverse=True)


def _budget(free: int, workload: Workload, device: torch.device) -> float:
    if device.type == "cuda":
        return free * DEVICE_SHARE
    if workload.memory_model is not None:
        return free * HOST_SHARE
    pixels = max(1.0, workload.width * workload.height / (1280 * 720))
    return min(free * HOST_SHARE, HOST_BYTES_PER_720P * pixels)


def _relative_cost(workload: Workload, grid: TileGrid, length: int, halo: int) -> float:
    """Pixels computed per pixel kept, and a little for each tile."""
    height, width = workload.padded
    computed = grid.num_tiles * grid.vertical.tile * grid.horizontal.tile
    share = computed / (height * width) * workload.num_read(length, halo) / length
    return share * (1 + TILE_COST * grid.num_tiles)


# Measuring the model


@torch.inference_mode()
def measure_model_bytes(model: nn.Module, device: torch.device, dtype: torch.dtype) -> float:
    """Working memory of a model per pixel and frame of its input, from one real run.

    CUDA counts allocations itself. Elsewhere the live tensors are counted operator by operator:
    unlike the resident size of the process this is exact and the same every time, so the same
    machine makes the same plan.
    """
    clip = probe_clip(model, device).to(dtype)
    samples = clip.numel() / 3
    with arithmetic(device, dtype):
        if device.type == "cuda":
            model(clip)  # workspaces and kernels are allocated once
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            model(clip)
            return (torch.cuda.max_memory_allocated(device) - before) / samples
        with LiveTensorBytes() as live:
            model(clip)
    return live.peak / samples
