"""Measuring the grain of a film where its pictures are flat.

Grain is what a flat place has and the same place of the next picture has not: blocks are sorted by
how much is left of them without a slope; of each brightness the quietest are flat, and what is in
them counts as grain if the next picture does not repeat it anywhere near. Texture repeats.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..video.pixels import frame_to_tensor
from .grain import LUMA, PIXEL_SIZE, GrainProfile
from .grain_checks import check_measurable

LEAST_SIGMA = 1 / 255
"""Weaker grain is what rounding to 8 bits and a good encoder leave of clean pictures; it is not
seen, either."""
RUN_FRAMES = 5
"""Frames that are read at each place, so that held ones can be passed over."""

_SMALL_BLOCK, _LARGE_BLOCK, _LARGE_FROM = 16, 32, 720
_LEVELS = 10
_LEAST_BLOCKS = 24
_SAMPLED = 48
"""Blocks of one brightness and place that are looked for in the next picture."""
_SEARCH_PX = 8
_REPEATED = 0.5
"""Correlation with the next picture from which a block is texture."""
_QUIET = 0.15
_SPREAD = 2.5
_SYNTHETIC = (0.1 / 255) ** 2
_CLIPPED = 0.05
"""Share of a block's samples at the ends of the scale from which it tells nothing."""
_MOST_BLOCKS = 2500
"""Of one picture; of larger ones not every block is looked at."""
_MOST_UNEVEN = 2.0
"""Grain at one brightness over the weakest: what is above it is fast texture. Measured on 28 clips
of all kinds with and without noise."""
_ENDS = (0.1, 0.9)
"""Brightnesses beyond which grain is cut off by the ends of the scale."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Blocks:
    """All blocks of one picture."""

    level: Tensor
    """`n` mean brightness."""
    residual: Tensor
    """`3 n b b` of brightness, Cb and Cr, without slopes."""
    corner: Tensor
    """`n 2` top and left in the picture."""
    following: Tensor
    """`h w` brightness of another picture."""

    @property
    def variance(self) -> Tensor:
        """`3 n`."""
        size = self.residual.shape[-1]
        return self.residual.square().sum(dim=(2, 3)) / (size * size - 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatPlace:
    """A square of the source that is mostly flat, for seeing what a model leaves of the grain."""

    run: int
    """Which of the runs."""
    top: int
    left: int
    side_px: int
    block_px: int
    blocks: tuple[tuple[int, int], ...]
    """(top, left) within the square of blocks that are flat."""


@torch.inference_mode()
def measure_grain(
    runs: Iterable[Sequence[np.ndarray | Tensor]],
) -> tuple[GrainProfile | None, FlatPlace | None]:
    """Measure the grain of a film.

    Args:
        runs: Neighbouring frames from several places of it, `h w 3` integers of full scale or
            `3 h w` float in [0, 1]; places whose frames are all equal tell nothing.

    Returns:
        The profile in pixels of the source, and a flat place; None and None where there is no
        grain.

    Raises:
        ValueError: The frames are too small.
    """
    found = [(index, blocks) for index, run in enumerate(runs) if (blocks := _blocks_of(run))]
    if not found:
        return None, None
    level = torch.cat([blocks.level for _, blocks in found])
    variance = torch.cat([blocks.variance for _, blocks in found], dim=1)
    size = found[0][1].residual.shape[-1]
    size_px, flat = (PIXEL_SIZE, PIXEL_SIZE), torch.zeros(0)
    for _ in range(2):  # how much variances scatter depends on the size of the grain
        flat = _flat(level, variance[0], _freedom(size, size_px))
        flat = _unrepeated(found, level, flat)
        if not flat.any():
            return None, None
        residual = torch.cat([b.residual[:, part] for part, (_, b) in _parts(found, flat)], dim=1)
        size_px = _size_of(residual[:1])
    sigma = _by_brightness(level, variance[0], flat, _kept_share(size, size_px))
    if not any(sigma):
        return None, None
    total = variance[:, flat].mean(dim=1)
    profile = GrainProfile(
        sigma=sigma,
        size_px=size_px,
        color=tuple(float((total[index] / total[0]).sqrt()) for index in (1, 2)),
        color_size_px=_size_of(residual[1:]),
    )
    return profile, _flat_place(found, flat)


def _blocks_of(run: Sequence[np.ndarray | Tensor]) -> _Blocks | None:
    """The blocks of a run's first frame beside its first other one; None if all are equal."""
    if not run:
        return None
    device = torch.device("cpu")
    first = frame_to_tensor(run[0], device)[0]
    others = (frame_to_tensor(frame, device)[0] for frame in run[1:])
    following = next((frame for frame in others if not torch.equal(frame, first)), None)
    height, width = first.shape[1:]
    check_measurable(width, height)
    if following is None:
        return None
    size = _LARGE_BLOCK if min(height, width) >= _LARGE_FROM else _SMALL_BLOCK
    rows, columns = height // size, width // size
    area = first[:, : rows * size, : columns * size]
    blocks = rearrange(area, "c (h p) (w q) -> c (h w) p q", p=size, q=size)
    clipped = ((blocks <= 0) | (blocks >= 1)).to(torch.float32).mean(dim=(0, 2, 3))
    bright = _luma(blocks)
    planes = torch.stack([bright, *_color_of(blocks, bright)])
    corner = size * torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    residual = _without_slope(planes)
    usable = (clipped <= _CLIPPED) & (residual[0].square().mean(dim=(1, 2)) > _SYNTHETIC)
    usable[torch.arange(len(usable)) % -(-len(usable) // _MOST_BLOCKS) != 0] = False
    return _Blocks(
        level=bright.mean(dim=(1, 2))[usable],
        residual=residual[:, usable],
        corner=corner[usable],
        following=_luma(following),
    )


def _luma(planes: Tensor) -> Tensor:
    return sum(share * plane for share, plane in zip(LUMA, planes, strict=True))


def _color_of(planes: Tensor, bright: Tensor) -> tuple[Tensor, Tensor]:
    return (planes[2] - bright) / (2 * (1 - LUMA[2])), (planes[0] - bright) / (2 * (1 - LUMA[0]))


def _without_slope(blocks: Tensor) -> Tensor:
    """Blocks `... p p` without their mean and their slopes."""
    size = blocks.shape[-1]
    ramp = torch.linspace(-1, 1, size)
    norm = size * ramp.square().sum()
    rest = blocks - blocks.mean(dim=(-2, -1), keepdim=True)
    across = (rest * ramp).sum(dim=(-2, -1), keepdim=True) / norm
    down = (rest * ramp[:, None]).sum(dim=(-2, -1), keepdim=True) / norm
    return rest - across * ramp - down * ramp[:, None]


def _freedom(size: int, size_px: tuple[float, float]) -> float:
    """How many independent values a block of correlated grain is worth."""
    return size * size / max(1.0, 2 * math.pi * size_px[0] * size_px[1])


def _kept_share(size: int, size_px: tuple[float, float]) -> float:
    """Share of the grain's variance that is left of a block without its slope."""
    white = size * size - 3
    lost = 3 * max(1.0, 4 * math.pi * size_px[0] * size_px[1])
    return max(0.25, (size * size - lost) / white)


def _bin_of(level: Tensor) -> Tensor:
    return (level * _LEVELS).to(torch.int64).clamp(0, _LEVELS - 1)


def _flat(level: Tensor, variance: Tensor, freedom: float) -> Tensor:
    """Which blocks are flat: of each brightness the quietest, as far as chance makes them differ.

    Args:
        level: `n` brightnesses.
        variance: `n` variances.
        freedom: Independent values of a block.
    """
    flat, scatter = torch.zeros_like(level, dtype=torch.bool), math.sqrt(2 / freedom)
    for index in range(_LEVELS):
        inside = _bin_of(level) == index
        if int(inside.sum()) < _LEAST_BLOCKS:
            continue
        values = variance[inside]
        center = values.quantile(_QUIET)
        for _ in range(20):
            quiet = values <= center * (1 + _SPREAD * scatter)
            moved = values[quiet].mean()
            if bool((moved - center).abs() <= 1e-4 * center):
                break
            center = moved
        flat |= inside & (variance <= center * (1 + _SPREAD * scatter))
    return flat


def _parts(found: list[tuple[int, _Blocks]], flat: Tensor) -> list[tuple[Tensor, tuple]]:
    """Of all places' marks those of each place."""
    lengths = [len(blocks.level) for _, blocks in found]
    return list(zip(flat.split(lengths), found, strict=True))


def _unrepeated(found: list[tuple[int, _Blocks]], level: Tensor, flat: Tensor) -> Tensor:
    """The marks of brightnesses whose flat blocks are not repeated by the next picture."""
    levels = level.split([len(blocks.level) for _, blocks in found])
    repeated, looked_at = torch.zeros(_LEVELS), torch.zeros(_LEVELS)
    for (part, (_, blocks)), own in zip(_parts(found, flat), levels, strict=True):
        for index in range(_LEVELS):
            chosen = (part & (_bin_of(own) == index)).nonzero().flatten()
            step = max(1, len(chosen) // _SAMPLED)
            for block in chosen[::step][:_SAMPLED].tolist():
                looked_at[index] += 1
                repeated[index] += _is_repeated(blocks, block)
    counts = looked_at >= _LEAST_BLOCKS / 2
    good = counts & (repeated <= 0.5 * looked_at)
    return flat & good[_bin_of(level)]


def _is_repeated(blocks: _Blocks, index: int) -> bool:
    """Whether the other picture has what is in a block, at the place or near it."""
    pattern = blocks.residual[0, index]
    size = len(pattern)
    top, left = blocks.corner[index].tolist()
    height, width = blocks.following.shape
    rows = slice(max(0, top - _SEARCH_PX), min(height, top + size + _SEARCH_PX))
    columns = slice(max(0, left - _SEARCH_PX), min(width, left + size + _SEARCH_PX))
    area = blocks.following[rows, columns]
    windows = area.unfold(0, size, 1).unfold(1, size, 1)
    rest = _without_slope(windows.reshape(-1, size, size))
    product = (rest * pattern).sum(dim=(1, 2))
    norm = rest.square().sum(dim=(1, 2)) * pattern.square().sum()
    return bool((product / norm.sqrt().clamp(min=1e-12)).max() > _REPEATED)


def _size_of(residual: Tensor) -> tuple[float, float]:
    """(width, height) of the grain in some planes' blocks, from what neighbours have in common."""
    total = residual.square().mean().clamp(min=1e-12)
    across = (residual[..., 1:] * residual[..., :-1]).mean() / total
    down = (residual[..., 1:, :] * residual[..., :-1, :]).mean() / total
    return tuple(_size(float(common)) for common in (across, down))


def _size(common: float) -> float:
    # White noise blurred by a bell curve of size s has exp(-1 / (4 s^2)) in common one pixel on.
    common = min(0.98, common)
    return PIXEL_SIZE if common <= 0.05 else max(PIXEL_SIZE, 0.5 / math.sqrt(-math.log(common)))


def _by_brightness(
    level: Tensor, variance: Tensor, flat: Tensor, kept_share: float
) -> tuple[float, ...]:
    """Strength at brightnesses from 0 to 1; the nearest measured one where nothing was."""
    at, sigma = [], []
    for index in range(_LEVELS):
        inside = flat & (_bin_of(level) == index)
        if not inside.any():
            continue
        value = float((variance[inside].mean() / kept_share).sqrt())
        at.append(float(level[inside].mean()))
        sigma.append(value)
    inner = [s for s, y in zip(sigma, at, strict=True) if _ENDS[0] < y < _ENDS[1]]
    weakest = min(inner or sigma)
    if weakest < LEAST_SIGMA:
        return (0.0,)
    sigma = [min(s, _MOST_UNEVEN * weakest) for s in sigma]
    return tuple(float(s) for s in np.interp(np.linspace(0, 1, _LEVELS + 1), at, sigma))


def _flat_place(found: list[tuple[int, _Blocks]], flat: Tensor) -> FlatPlace:
    """The square with the most flat blocks."""
    best: tuple[int, FlatPlace | None] = (-1, None)
    for part, (run, blocks) in _parts(found, flat):
        size = blocks.residual.shape[-1]
        num_side = 6 if size == _SMALL_BLOCK else 4
        height, width = blocks.following.shape
        num_side = min(num_side, height // size, width // size)
        grid = torch.zeros(1, 1, height // size, width // size)
        marks = blocks.corner[part] // size
        grid[0, 0, marks[:, 0], marks[:, 1]] = 1
        counts = F.avg_pool2d(grid, num_side, stride=1)[0, 0] * num_side * num_side
        most = int(counts.round().max())
        if most > best[0]:
            row, column = divmod(int(counts.argmax()), counts.shape[1])
            inside = grid[0, 0, row : row + num_side, column : column + num_side].nonzero() * size
            corners = tuple((int(top), int(left)) for top, left in inside)
            place = FlatPlace(
                run=run,
                top=row * size,
                left=column * size,
                side_px=num_side * size,
                block_px=size,
                blocks=corners,
            )
            best = most, place
    return best[1]


@torch.inference_mode()
def share_left(source: Tensor, result: Tensor, place: FlatPlace) -> float:
    """Which share of the grain a model left in a flat place.

    Args:
        source: `3 h w` in [0, 1]: the place as it was.
        result: `3 H W` in [0, 1]: what became of it, larger or not.
        place: Where it is flat.

    Returns:
        Standard deviation of the result over that of the source, 0 to 1.
    """
    scale = (result.shape[1] / source.shape[1], result.shape[2] / source.shape[2])
    shares = []
    bright, restored = _luma(source.float()), _luma(result.float())
    for top, left in place.blocks:
        size = place.block_px
        block = bright[top : top + size, left : left + size]
        before = float(_without_slope(block).square().mean())
        rows = slice(round(top * scale[0]), round((top + size) * scale[0]))
        columns = slice(round(left * scale[1]), round((left + size) * scale[1]))
        large = restored[rows, columns]
        side = min(large.shape)
        after = float(_without_slope(large[:side, :side]).square().mean())
        shares.append(math.sqrt(after / before) if before else 1.0)
    # Of most blocks: in some the model makes more of a texture that hid in the grain.
    return min(1.0, statistics.median(shares)) if shares else 1.0
