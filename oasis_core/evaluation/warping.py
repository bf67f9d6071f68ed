"""Errors between a frame and its motion-compensated successor: does a clip flicker?

Two questions, two measures. `warping_error` follows the motion of the *true* clip, so that all
methods are judged along one motion. E*_warp of the published tables follows the motion of the
result itself; it is computed as published, with its mistake, and corrected.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .flow import lucas_kanade
from .metrics import luma

CONSISTENCY_SCALE, CONSISTENCY_OFFSET_PX2 = 0.01, 0.5
EDGE_SCALE, EDGE_OFFSET_PX2 = 0.01, 0.002
RAFT_ITERATIONS = 20
RAFT_MULTIPLE_PX, RAFT_LEAST_PX = 8, 128

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""Flow `2 h w` (dy, dx) in pixels from one frame `3 h w` in [0, 1] to another."""


@torch.inference_mode()
def ilk_flow(here: Tensor, there: Tensor, check: Callable[[], None] | None = None) -> Tensor:
    """Iterative Lucas-Kanade flow on luma: no weights needed, small motions.

    Args:
        here: `3 h w` in [0, 1].
        there: Like `here`.
        check: Called before each pass; may raise to stop.
    """
    first, second = (luma(frame[None])[0, 0] for frame in (here, there))
    return lucas_kanade(first, second, check)


class RaftFlow:
    """RAFT as the published protocol runs it.

    Args:
        network: torchvision's `raft_large`, weights C_T_V1 (the original raft-things).
        keeps_scaling_bug: Divide frames in [0, 1] by 255 once more, as EvalCrafter does; the flow
            is then nearly that of two black frames.
    """

    def __init__(self, network: nn.Module, *, keeps_scaling_bug: bool) -> None:
        self.network = network.eval()
        self.divisor = 255.0 if keeps_scaling_bug else 1.0

    @torch.inference_mode()
    def __call__(self, here: Tensor, there: Tensor) -> Tensor:
        """Flow from `here` to `there`."""
        _, h, w = here.shape
        height, width = (max(RAFT_LEAST_PX, n + -n % RAFT_MULTIPLE_PX) for n in (h, w))
        top, left = (height - h) // 2, (width - w) // 2
        border = (left, width - w - left, top, height - h - top)
        pair = [
            2 * F.pad(frame[None].float(), border, mode="replicate") / self.divisor - 1
            for frame in (here, there)
        ]
        flow = self.network(*pair, num_flow_updates=RAFT_ITERATIONS)[-1][0]
        return flow[:, top : top + h, left : left + w].flip(0)


def sample(image: Tensor, flow: Tensor) -> Tensor:
    """Look `image` (`c h w`) up at every pixel displaced by `flow` (`2 h w`, dy dx)."""
    _, h, w = image.shape
    y = torch.arange(h, device=image.device)[:, None] + flow[0]
    x = torch.arange(w, device=image.device)[None, :] + flow[1]
    grid = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
    return F.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def _returns(forward: Tensor, backward: Tensor) -> Tensor:
    """Pixels that end near where they began after going forward and back again, `h w` bool."""
    back = sample(backward, forward)
    limit = forward.square().sum(0) + back.square().sum(0)
    gap = (forward + back).square().sum(0)
    return gap <= CONSISTENCY_SCALE * limit + CONSISTENCY_OFFSET_PX2


def motion(truth: Tensor, check: Callable[[], None] | None = None) -> list[tuple[Tensor, Tensor]]:
    """Flow from each frame of the truth to the next, and where it can be trusted.

    Args:
        truth: `t 3 h w`.
        check: Called before each pass over a pair; may raise to stop.

    Returns:
        Per pair of frames: flow `2 h w` in pixels and visibility `h w`, bool.

    Source: visibility rule of EvalCrafter's warping error, arXiv 2310.11440, without its
    motion-edge term, which leaves hardly a pixel of a textured scene.
    """
    result = []
    for here, there in itertools.pairwise(truth.float()):
        forward, backward = ilk_flow(here, there, check), ilk_flow(there, here, check)
        result.append((forward, _returns(forward, backward)))
    return result


def warping_error(
    clip: Tensor,
    flows: list[tuple[Tensor, Tensor]],
    check: Callable[[], None] | None = None,
) -> float:
    """Mean squared difference (x 1000) between frames and their motion-compensated successors.

    Args:
        clip: `t 3 h w`.
        flows: From `motion` of the true clip, so that all methods are judged along one motion.
        check: Called before each pair; may raise to stop.
    """
    errors = []
    for index, (flow, is_visible) in enumerate(flows):
        if check is not None:
            check()
        difference = (sample(clip[index + 1].float(), flow) - clip[index].float()).square()
        if is_visible.any():
            errors.append(difference.mean(0)[is_visible].mean())
    return float(torch.stack(errors).mean() * 1000) if errors else 0.0


def _has_edge(flow: Tensor) -> Tensor:
    """Pixels where the flow changes abruptly, `h w` bool."""
    across, down = torch.zeros_like(flow), torch.zeros_like(flow)
    across[:, :, :-1] = flow[:, :, :-1] - flow[:, :, 1:]
    down[:, :-1] = flow[:, :-1] - flow[:, 1:]
    change = (across.square() + down.square()).sum(0)
    return change > EDGE_SCALE * flow.square().sum(0) + EDGE_OFFSET_PX2


def published_warping_error(clip: Tensor, estimate: FlowEstimator) -> float:
    """E*_warp (x 1000) of the published tables, along the motion of the clip itself.

    Frames are halved; occluded pixels and motion edges are left out; squared differences are
    summed over the three channels and averaged over the visible pixels, then over pairs.

    Args:
        clip: `t 3 h w`, at least two frames.
        estimate: The flow; `RaftFlow` with its scaling bug gives the published numbers.

    Source: EvalCrafter, arXiv 2310.11440, as used by DOVE and OASIS.
    """
    half = F.interpolate(clip.float(), scale_factor=0.5, mode="bilinear", align_corners=False)
    errors = []
    for here, there in itertools.pairwise(half):
        forward, backward = estimate(here, there), estimate(there, here)
        is_visible = _returns(forward, backward) & ~_has_edge(forward)
        squares = (sample(there, forward) - here).square().sum(0) * is_visible
        count = is_visible.sum() if is_visible.any() else squares.numel() * 3
        errors.append(squares.sum() / count)
    return float(torch.stack(errors).mean() * 1000)
