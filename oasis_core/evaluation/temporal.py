"""How a clip changes over time, judged against how its original does: does it flicker?

A blurred picture hardly changes and a sharp one does, so neither change itself nor its ratio to a
plain resize's tells flicker. What tells it is change that the original does not have.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

LEVELS = 255
FRAME_RATE = 30
"""Frames a second at which ColorVideoVDP watches a clip."""
DISPLAY = "standard_fhd"
"""The screen on which it does: 24 inches, 1920x1080, seen from twice its height."""


def difference_error(clip: Tensor, truth: Tensor) -> float:
    """Root mean square of (o[t+1] - o[t]) - (g[t+1] - g[t]) over all pixels, in 8-bit steps.

    Args:
        clip: o, `t 3 h w` in [0, 1], at least two frames.
        truth: g, likewise.
    """
    errors = clip.double().diff(dim=0) - truth.double().diff(dim=0)
    return float(errors.square().mean().sqrt() * LEVELS)


def tlp(distance: Callable[[Tensor, Tensor], Tensor], clip: Tensor, truth: Tensor) -> float:
    """|LPIPS(o[t], o[t+1]) - LPIPS(g[t], g[t+1])|, mean over t, x 100.

    Args:
        distance: LPIPS of pictures `n 3 h w` in [0, 1], one value per pair.
        clip: o, `t 3 h w` in [0, 1], at least two frames.
        truth: g, likewise.

    Source: TecoGAN, arXiv 1811.09393, equation 10.
    """
    gaps = []
    for index, _ in enumerate(itertools.pairwise(clip)):
        here, there = slice(index, index + 1), slice(index + 1, index + 2)
        own, true = (float(distance(x[here], x[there]).mean()) for x in (clip, truth))
        gaps.append(abs(own - true))
    return 100 * sum(gaps) / len(gaps)


def is_still(truth: Tensor) -> bool:
    """Whether all frames of a clip `t 3 h w` are one and the same."""
    return len(truth) > 1 and torch.equal(truth[1:], truth[:-1])


def still_deviation(clip: Tensor) -> float:
    """Standard deviation over time of a still scene, root mean square over pixels, in 8-bit steps.

    Args:
        clip: What was made of a scene that does not change, `t 3 h w` in [0, 1]; an original has 0.
    """
    return float(clip.double().var(dim=0).mean().sqrt() * LEVELS)


def color_video_vdp(device: str) -> Callable[[Tensor, Tensor], float]:
    """ColorVideoVDP in just-objectionable differences; 10 is no difference that anybody sees.

    It models a viewer: contrast, colour, masking, and change over time.

    Source: Mantiuk et al., ACM TOG 2024, arXiv 2401.11485; the package `cvvdp` (MIT).
    """
    import pycvvdp

    metric = pycvvdp.cvvdp(display_name=DISPLAY, quiet=True, device=torch.device(device))

    @torch.inference_mode()
    def score(clip: Tensor, truth: Tensor) -> float:
        is_video = len(clip) > 1
        rate = FRAME_RATE if is_video else 0
        # A picture has no axis of frames in its order.
        order = "FCHW" if is_video else "CHW"
        pair = [x.float() if is_video else x[0].float() for x in (clip, truth)]
        value, _ = metric.predict(*pair, dim_order=order, frames_per_second=rate)
        return float(value)

    return score
