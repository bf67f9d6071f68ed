"""Optical flow without weights: dense Lucas-Kanade, iterated from coarse to fine.

Every pixel's motion is the one that explains its square window best: two linear equations in two
unknowns. They are set up again after the second frame has been warped by the motion found so far.

Source: Le Besnerais and Champagnat, "Dense optical flow by iterative local window registration",
ICIP 2005. Window, iterations and pyramid are those of scikit-image's `optical_flow_ilk`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..box_sums import running_sums
from ..model.threads import few_threads

RADIUS_PX = 7
NUM_WARPS = 10
LEAST_SIDE_PX = 16
MAX_LEVELS = 10
# Below this determinant a window has no structure to follow; its motion is taken as none.
LEAST_DETERMINANT = 1e-14
_SMOOTHING_PX = 2 / 3


def lucas_kanade(here: Tensor, there: Tensor, check: Callable[[], None] | None = None) -> Tensor:
    """Flow from one picture to another.

    Args:
        here: `h w`, float in [0, 1].
        there: Like `here`.
        check: Called before each pass; may raise to stop.

    Returns:
        `2 h w` float32: (dy, dx) in pixels.
    """
    pyramid = list(zip(_pyramid(here), _pyramid(there), strict=True))
    flow = torch.zeros(2, *pyramid[-1][0].shape, device=here.device)
    with few_threads(here.numel(), here.device):
        for first, second in reversed(pyramid):
            flow = _enlarged(flow, first.shape)
            for _ in range(NUM_WARPS):
                if check is not None:
                    check()
                flow = _improved(flow, first, second)
    return flow


def _pyramid(picture: Tensor) -> list[Tensor]:
    """The picture and its halves, finest first."""
    levels = [picture.float()]
    size = picture.shape
    while len(levels) < MAX_LEVELS and min(size) >= 2 * LEAST_SIDE_PX:
        size = torch.Size(math.ceil(n / 2) for n in size)
        levels.append(_halved(levels[-1], size))
    return levels


def _halved(picture: Tensor, size: tuple[int, ...]) -> Tensor:
    radius = int(4 * _SMOOTHING_PX + 0.5)
    axis = torch.arange(-radius, radius + 1, device=picture.device)
    line = torch.exp(-0.5 * (axis / _SMOOTHING_PX).square())
    line = line / line.sum()
    padded = picture
    for dim in (0, 1):
        # The edge pixel itself is repeated first, which no mode of F.pad does.
        before, after = (padded.narrow(dim, 0, radius), padded.narrow(dim, -radius, radius))
        padded = torch.cat([before.flip(dim), padded, after.flip(dim)], dim)
    smooth = F.conv2d(padded[None, None], line.view(1, 1, -1, 1))
    smooth = F.conv2d(smooth, line.view(1, 1, 1, -1))
    return F.interpolate(smooth, size, mode="bilinear", align_corners=False)[0, 0]


def _enlarged(flow: Tensor, size: torch.Size) -> Tensor:
    """The flow of a coarser level on this level's grid, in its pixels."""
    for dim, wanted in enumerate(size):
        length = flow.shape[dim + 1]
        if length != wanted:
            step = (length - 1) / max(wanted - 1, 1)
            places = torch.arange(wanted, device=flow.device, dtype=torch.float64) * step
            flow = flow.index_select(dim + 1, (places + 0.5).long())
            flow[dim] *= wanted / length
    return flow


def _improved(flow: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Solve every window's equations around the flow so far."""
    warped = _looked_up(there, flow)
    across_y, across_x = _slopes(warped)
    error = (across_y * flow[0]).addcmul_(across_x, flow[1]).add_(here).sub_(warped)
    products = torch.stack(
        [
            across_y * across_y,
            across_y * across_x,
            across_x * across_x,
            across_y * error,
            across_x * error,
        ]
    )
    # Double precision, because the determinant is a difference of nearly equal products.
    yy, yx, xx, ye, xe = _window_means(products).double()
    determinant = yy * xx - yx * yx
    is_flat = determinant.abs() < LEAST_DETERMINANT
    determinant = determinant.masked_fill(is_flat, 1.0)
    solved = torch.stack([xx * ye - yx * xe, yy * xe - yx * ye]) / determinant
    return solved.masked_fill(is_flat, 0.0).float()


def _looked_up(picture: Tensor, flow: Tensor) -> Tensor:
    h, w = picture.shape
    y = torch.arange(h, device=flow.device)[:, None] + flow[0]
    x = torch.arange(w, device=flow.device)[None, :] + flow[1]
    grid = torch.stack([x * (2 / max(w - 1, 1)) - 1, y * (2 / max(h - 1, 1)) - 1], dim=-1)
    warped = F.grid_sample(
        picture[None, None], grid[None], padding_mode="border", align_corners=True
    )
    return warped[0, 0]


def _slopes(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along rows' and columns' axes; one-sided at the edges."""
    down, right = torch.empty_like(picture), torch.empty_like(picture)
    torch.sub(picture[2:], picture[:-2], out=down[1:-1])
    torch.sub(picture[:, 2:], picture[:, :-2], out=right[:, 1:-1])
    down[1:-1] *= 0.5
    right[:, 1:-1] *= 0.5
    for slope, values in ((down, picture), (right.T, picture.T)):
        # A side of one pixel has no slope.
        near, far = min(1, len(values) - 1), max(len(values) - 2, 0)
        slope[0], slope[-1] = values[near] - values[0], values[-1] - values[far]
    return down, right


def _window_means(fields: Tensor) -> Tensor:
    """Mean over each pixel's window of fields `c h w`, mirrored at the edges."""
    mode = "reflect" if min(fields.shape[1:]) > RADIUS_PX else "replicate"
    padded = F.pad(fields[None], (RADIUS_PX,) * 4, mode=mode)[0]
    return running_sums(running_sums(padded, 1, RADIUS_PX), 2, RADIUS_PX) / (2 * RADIUS_PX + 1) ** 2
