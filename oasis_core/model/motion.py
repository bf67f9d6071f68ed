"""What the frames around a frame show of it: dense Lucas-Kanade, then the difference.

The motion is found on one brightness per stem cell, from coarse to fine; every window of cells has
one motion. Slopes are those of the frame itself, so that the windows' equations are set up once for
all its neighbours (inverse compositional).

Source: Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004; windows solved around the motion
so far as by Le Besnerais and Champagnat, ICIP 2005. No weights, and none of the code that measures
flicker (`evaluation/flow.py`): a model should not be judged by its own motion.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..box_sums import running_sums
from .threads import few_threads

RADIUS = 4
NUM_STEPS, NUM_FINEST_STEPS = 3, 2
LEAST_SIDE = 12
"""Cells below which a picture is not halved again."""
DAMPING = 3e-4
"""Of the windows' equations: what noise alone makes of them."""
GATE = 0.04
"""Difference of brightness at which a neighbour counts half: it shows something else there."""
GATE_RADIUS = 2
LUMA = (0.299, 0.587, 0.114)
FINENESS = 2
"""Differences per side of a cell. Those of all pixels of a 4x4 cell gained 0.04 dB more, for four
times the work."""
FRAMES_AT_ONCE = {"cpu": 1}
"""By device; elsewhere `MOST_AT_ONCE`, since many small kernels keep an accelerator waiting."""
MOST_AT_ONCE = 8


def num_changes(reach: int) -> int:
    """Channels of `neighbor_changes`."""
    return 2 * reach * 3 * FINENESS**2


class FrameChanges(nn.Module):
    """What `neighbor_changes` does for some frames, as a layer without weights.

    It takes long for a whole clip, and a run is stopped between one layer and the next.
    """

    def forward(self, clip: Tensor, levels: list[Tensor], here: Tensor, there: Tensor) -> Tensor:
        """For frames `t` and their neighbours `t n` of a clip `t b c h w`: `t b c h' w'`."""
        return _changes(clip, levels, here, there)


def neighbor_changes(
    video: Tensor,
    reach: int,
    stride: int,
    kept: slice,
    layer: Callable[[Tensor, list[Tensor], Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """How the frames around a frame differ from it, moved to where it is.

    A neighbour beyond the ends of the clip does not differ, and one that shows something else, by
    the mean over a small window, hardly.

    Args:
        video: `b 3 t h w` in [0, 1], h and w multiples of the stride.
        reach: Frames on each side.
        stride: Pixels of a cell, a multiple of `FINENESS`.
        kept: The frames t' to do this for.
        layer: A `FrameChanges`, so that its hooks run; None: without.

    Returns:
        `(b t') c h' w'` in cells, float32 and channels last in memory: c counts the neighbours
        (one before, one after, two before, ...), colours and the parts of a cell.
    """
    offsets = [sign * distance for distance in range(1, reach + 1) for sign in (-1, 1)]
    changes_of = layer or _changes
    num_frames = video.shape[2]
    frames = range(num_frames)[kept]
    at_once = FRAMES_AT_ONCE.get(video.device.type, MOST_AT_ONCE)
    # Of the frame at half its sides, on which the motion is found.
    num_values = video.shape[3] * video.shape[4] // FINENESS**2
    with torch.no_grad(), few_threads(num_values, video.device):
        clip = _square_means(video.float().flatten(1, 2), stride // FINENESS)
        clip = rearrange(clip, "b (c t) h w -> t b c h w", t=num_frames)
        levels = _pyramid(_luma(clip))
        parts = []
        for start in range(0, len(frames), at_once):
            here = torch.tensor(frames[start : start + at_once], device=video.device)
            there = here[:, None] + torch.tensor(offsets, device=video.device)
            is_inside = (there >= 0) & (there < num_frames)
            parts.append(changes_of(clip, levels, here, there.where(is_inside, here[:, None])))
        changes = torch.cat(parts)
    return rearrange(changes, "t b c h w -> (b t) c h w").contiguous(
        memory_format=torch.channels_last
    )


def _changes(clip: Tensor, levels: list[Tensor], here: Tensor, there: Tensor) -> Tensor:
    sizes = {"t": len(here), "b": clip.shape[1], "n": there.shape[1]}
    own = [rearrange(level[here], "t b h w -> (t b) 1 h w") for level in levels]
    others = [rearrange(level[there], "t n b h w -> (t b) n h w") for level in levels]
    motion = rearrange(find_motion(own, others), "(t b) n d h w -> (t b n) d h w", **sizes)
    motion = FINENESS * F.interpolate(
        motion, scale_factor=FINENESS, mode="bilinear", align_corners=False
    )
    moved = look_up(rearrange(clip[there], "t n b c h w -> (t b n) c h w"), motion)
    changes = rearrange(moved, "(t b n) c h w -> t b n c h w", **sizes) - clip[here][:, :, None]
    brightness = rearrange(_luma(changes), "t b n h w -> (t b) n h w")
    misfit = window_means(_square_means(brightness, FINENESS).square(), GATE_RADIUS)
    gate = rearrange(GATE**2 / (GATE**2 + misfit), "(t b) n h w -> t b n 1 h w", **sizes)
    # A neighbour that is missing is the frame itself here; motion found in it is rounding.
    gate = gate * (there != here[:, None])[:, None, :, None, None, None]
    return rearrange(F.pixel_unshuffle(changes, FINENESS) * gate, "t b n c h w -> t b (n c) h w")


def find_motion(own: list[Tensor], others: list[Tensor]) -> Tensor:
    """Where the pixels of pictures are in others.

    Args:
        own: Pictures `p 1 h w` in [0, 1] and their halves, finest first.
        others: The same of n others for each, `p n h w`.

    Returns:
        `p n 2 h w`: dx and dy in pixels of the finest level.
    """
    pictures, count = others[-1].shape[:2]
    motion = own[-1].new_zeros(pictures, count, 2, *own[-1].shape[-2:])
    for here, there in zip(reversed(own), reversed(others), strict=True):
        height, width = here.shape[-2:]
        if motion.shape[-2:] != here.shape[-2:]:
            motion = 2 * F.interpolate(
                motion.flatten(0, 1), scale_factor=2, mode="bilinear", align_corners=False
            )[..., :height, :width].unflatten(0, (pictures, count))
        num_steps = NUM_FINEST_STEPS if here is own[0] else NUM_STEPS
        motion = _refined(motion, here, there, num_steps)
    return motion


def _refined(motion: Tensor, here: Tensor, there: Tensor, num_steps: int) -> Tensor:
    """Solve every window's equations around the motion `p n 2 h w` so far, a few times."""
    right, down = _slopes(here)
    products = torch.cat([right * right, right * down, down * down], 1)
    xx, xy, yy = window_means(products, RADIUS).split(1, dim=1)
    xx, yy = xx + DAMPING, yy + DAMPING
    scale = 1 / (xx * yy - xy * xy)
    num_others = there.shape[1]
    for _ in range(num_steps):
        moved = look_up(there.flatten(0, 1)[:, None], motion.flatten(0, 1)).view_as(there)
        x, y = motion.unbind(2)
        # A pixel that has left the picture says nothing against the motion so far.
        difference = (here - moved).mul_(_is_inside(x, y))
        error = difference.add_(right * x).add_(down * y)
        sums = window_means(torch.cat([right * error, down * error, x, y], 1), RADIUS)
        x_error, y_error, x_mean, y_mean = sums.split(num_others, dim=1)
        # Where a window has no structure to follow, the motion is that around it.
        x_error, y_error = x_error + DAMPING * x_mean, y_error + DAMPING * y_mean
        x, y = yy * x_error - xy * y_error, xx * y_error - xy * x_error
        motion = torch.stack([x * scale, y * scale], 2)
    return motion


def _is_inside(x: Tensor, y: Tensor) -> Tensor:
    """Whether pixels `... h w` stay in the picture when they move by x and y."""
    height, width = x.shape[-2:]
    columns = torch.arange(width, device=x.device) + x
    rows = torch.arange(height, device=y.device)[:, None] + y
    return (columns == columns.clamp(0, width - 1)) & (rows == rows.clamp(0, height - 1))


def look_up(pictures: Tensor, motion: Tensor) -> Tensor:
    """Pictures `p c h w` at every pixel moved by `p 2 h w` (dx, dy); beyond the edge, the edge."""
    height, width = pictures.shape[-2:]
    x = torch.arange(width, device=motion.device) + motion[:, 0]
    y = torch.arange(height, device=motion.device)[:, None] + motion[:, 1]
    # Clamped here because not every device has the padding mode "border".
    grid = [
        n.clamp(0, last) * (2 / max(last, 1)) - 1 for n, last in ((x, width - 1), (y, height - 1))
    ]
    return F.grid_sample(pictures, torch.stack(grid, -1), align_corners=True)


def window_means(fields: Tensor, radius: int) -> Tensor:
    """Mean over the square window around each pixel of `n c h w`, as far as it is inside."""
    sums = running_sums(running_sums(F.pad(fields, (radius,) * 4), 2, radius), 3, radius)
    shares = [1 / _window_lengths(n, radius, fields.device) for n in fields.shape[2:]]
    return sums.mul_(torch.outer(*shares))


def _window_lengths(length: int, radius: int, device: torch.device) -> Tensor:
    """Pixels of each window along a side."""
    places = torch.arange(length, device=device)
    first, last = (places - radius).clamp(min=0), (places + radius).clamp(max=length - 1)
    return (last - first + 1).float()


def _luma(frames: Tensor) -> Tensor:
    """Brightness `... h w` of `... 3 h w`."""
    red, green, blue = frames.unbind(-3)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _pyramid(luma: Tensor) -> list[Tensor]:
    """Means over cells of `t b h w`, and their halves, finest first."""
    levels = [_square_means(luma, FINENESS)]
    while min(levels[-1].shape[-2:]) >= 2 * LEAST_SIDE:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    return levels


def _square_means(fields: Tensor, side: int) -> Tensor:
    """Means over squares of `side` pixels; several times as fast as an average pool on a CPU."""
    rows = sum(fields[..., i::side, :] for i in range(side))
    return sum(rows[..., i::side] for i in range(side)) / side**2


def _slopes(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along rows and columns."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return right / 2, down / 2
