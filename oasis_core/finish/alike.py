"""Where two frames of a source show the same thing: their motion, and how far it can be trusted.

Looked at are small pictures of cells, a few source pixels each: cheap, and less noisy than pixels.
A cell counts where the other frame, moved to where it is, differs by no more than noise, coding and
a fraction of a cell's misplacement explain, in the cell and all around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.motion import LUMA, find_motion, look_up, window_means

LEAST_CELL_PX, MOST_CELL_PX = 4, 32
LEAST_SIDE = 12
"""Cells below which a picture is not halved again."""
WINDOW_RADIUS = 1
"""Cells around a cell that are compared with it."""
GUARD = 2
"""Cells around one that differs which do not count either: a model's answer reaches further than
what it answers to."""
PLAIN_MISFIT = (1 / 255) ** 2
"""Squared difference that always counts as the same: rounding and coding."""
NOISE_QUANTILE = 0.25
"""The share of a picture that shows the same in any frame near; its differences are noise."""
NOISE_RATIO = 2.2
"""Of that part's largest squared difference: up to it others are noise, too."""
MOST_NOISE = (6 / 255) ** 2
"""Of cells; where more differs, it is not noise."""
SLOPE_SHARE = 0.1**2
"""Of the squared slope per cell: what a misplacement by so much of a cell makes of it."""
STILL_RATIO, STILL_MISFIT = 1.2, (0.3 / 255) ** 2
"""How much worse no motion may fit than the motion found, and is taken: noise moves nothing."""
MOVED_SHARE, MOVED_NOISE = 0.5, 0.5
"""Of what is allowed, and of its noise, where something moves. What is misplaced differs by as much
as noise does, and the finest of what a model makes then no longer fits."""


def cell_px(height: int, width: int, source_height: int, source_width: int) -> int:
    """Side of a cell in pixels of the result: about two of the source, and a power of two.

    Args:
        height: Of the result, pixels.
        width: Likewise.
        source_height: Of the source, pixels.
        source_width: Likewise.
    """
    scale = math.sqrt(height * width / (source_height * source_width))
    return min(max(LEAST_CELL_PX, 2 ** round(1 + math.log2(scale))), MOST_CELL_PX)


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """What a frame is compared by."""

    picture: Tensor
    """`3 h w` in cells."""
    levels: list[Tensor]
    """Brightness `1 1 h w` and its halves, finest first."""
    slope: Tensor
    """`h w`: squared slope per cell, the mean around each cell and over colours."""


def make_guide(frame: Tensor, height: int, width: int) -> Guide:
    """Prepare a frame for comparing.

    Args:
        frame: `1 3 h w` source pixels in [0, 1].
        height: Cells.
        width: Cells.
    """
    if frame.shape[2:] != (height, width):
        frame = F.interpolate(frame, (height, width), mode="bilinear", antialias=True)
    picture = frame[0]
    red, green, blue = picture
    levels = [(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[None, None]]
    while min(levels[-1].shape[2:]) >= 2 * LEAST_SIDE:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    padded = F.pad(frame, (1, 1, 1, 1), mode="replicate")[0]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    squares = right.square_().add_(down.square_()).mean(0).mul_(0.25)
    return Guide(picture, levels, _around(squares[None])[0])


def compare(here: Guide, there: list[Guide]) -> tuple[Tensor, Tensor]:
    """Where the cells of a frame are in others, and how much each can be trusted to be the same.

    Args:
        here: The frame.
        there: n others.

    Returns:
        Motion `n 2 h w`, dx and dy in cells, and weights `n h w` in [0, 1]: 0 is something else.
    """
    levels = [torch.cat(level, dim=1) for level in zip(*(g.levels for g in there), strict=True)]
    motion = find_motion(here.levels, levels)[0]
    pictures = torch.stack([guide.picture for guide in there])
    moved = look_up(pictures, motion)
    misfit = _around((moved - here.picture).square_().mean(1))
    still = _around((pictures - here.picture).square_().mean(1))
    is_still = still <= STILL_RATIO * misfit + STILL_MISFIT
    motion = motion.masked_fill(is_still[:, None], 0)
    misfit = torch.where(is_still, still, misfit)
    is_still, slope = is_still.to(misfit.dtype), here.slope
    noise = misfit.flatten(1).quantile(NOISE_QUANTILE, dim=1).clamp(max=MOST_NOISE)
    noise = NOISE_RATIO * noise[:, None, None] * (MOVED_NOISE + (1 - MOVED_NOISE) * is_still)
    allowed = (noise + PLAIN_MISFIT + SLOPE_SHARE * slope) * (
        MOVED_SHARE + (1 - MOVED_SHARE) * is_still
    )
    weights = (2 - misfit / allowed).clamp_(0, 1)
    side = 2 * GUARD + 1
    weights = -F.max_pool2d(-weights, side, stride=1, padding=GUARD)
    return motion, _around(weights).minimum(weights)


def _around(fields: Tensor) -> Tensor:
    """Means over the window around each cell of `n h w`."""
    return window_means(fields[:, None], WINDOW_RADIUS)[:, 0]
