"""Do segment boundaries show? Halo that is thrown away against cross-fade, by measurement.

Two scores, each for the same work (the same frames are computed in both variants):

- boundary ratio: mean change from frame to frame across segment borders over the mean change
  within segments, on a still picture with fresh noise in every frame; 1 is invisible.
- agreement: PSNR between the clip upscaled in short and in long segments; high is invisible.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry import Segment, plan_segments, round_up
from ..model.agreement import agreement_db
from ..sizes import target_size

if TYPE_CHECKING:
    from ..families.restorer import Traits
    from ..upscale import VideoUpscaler

VARIANTS = ("discard", "cross_fade")
NOISE_SIGMA = 4 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryScore:
    """What one way of joining segments scores."""

    halo_frames: int
    """Frames computed beyond each border."""
    variant: str
    """What happens to them: "discard" or "cross_fade"."""
    boundary_ratio: float
    """Change across borders over change within segments, on a still picture with noise."""
    agreement_db: float
    """PSNR between short and long segments."""
    extra_work: float
    """Frames computed twice per frame kept, in short segments."""


def measure_boundaries(
    upscaler: VideoUpscaler,
    video: Tensor,
    *,
    scale: float = 4,
    halos: Sequence[int] = (0, 1, 2, 4, 8),
    segment_frames: tuple[int, int] = (17, 33),
) -> list[BoundaryScore]:
    """Score halo sizes, with the halo thrown away and with it cross-faded.

    Args:
        upscaler: Model to measure.
        video: `1 3 t h w` in [0, 1], one shot; best a few segments long.
        scale: Factor of the upscale.
        halos: Halo sizes in frames.
        segment_frames: Short and long segment.

    Returns:
        One row per halo and variant.

    Raises:
        ValueError: The clip is not longer than a segment.
    """
    video = video[0]
    still = _still(video)
    scores = []
    for halo in halos:
        short, long = (_upscale(upscaler, video, scale, n, halo) for n in segment_frames)
        quiet = _upscale(upscaler, still, scale, segment_frames[0], halo)
        planned = _segments(upscaler.traits, video.shape[1], segment_frames[0], halo)
        borders = [segment.start for segment in planned][1:]
        before = max(halo, upscaler.traits.lead_frames)
        scores += [
            BoundaryScore(
                halo_frames=halo,
                variant=variant,
                boundary_ratio=_boundary_ratio(quiet[variant], borders),
                agreement_db=agreement_db(short[variant], long[variant]),
                extra_work=(before + halo) / segment_frames[0],
            )
            for variant in VARIANTS
        ]
    return scores


def _segments(traits: Traits, num_frames: int, segment_frames: int, halo: int) -> list[Segment]:
    """How a clip is cut up for a model, with a halo that it may not have asked for."""
    multiple = traits.segment_multiple
    length = round_up(segment_frames, multiple)
    lead = traits.lead_frames
    return plan_segments(num_frames, length, halo, lead_frames=lead, multiple=multiple)


def _still(video: Tensor) -> Tensor:
    """The first frame for the length of the clip, with noise of its own in every frame."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(video.shape, generator=generator) * NOISE_SIGMA
    return (video[:, :1] + noise).clamp(0, 1)


@torch.inference_mode()
def _upscale(
    upscaler: VideoUpscaler, video: Tensor, scale: float, segment_frames: int, halo: int
) -> dict[str, Tensor]:
    """Each variant's result `3 t h w`, from one pass over the segments."""
    from ..upscale import Look

    _, num_frames, height, width = video.shape
    size = target_size(width, height, scale=scale)
    plan = upscaler.plan((width, height), size, segment_frames=segment_frames, bytes_per_channel=4)
    plan = dataclasses.replace(plan, halo_frames=halo)
    segments = upscaler.segment_upscaler(Look(width=size[0], height=size[1]), plan)
    results = {name: torch.zeros(3, num_frames, size[1], size[0]) for name in VARIANTS}
    frames = list(video.unbind(1))
    for segment in _segments(upscaler.traits, num_frames, segment_frames, halo):
        read = frames[segment.read_start : segment.read_stop]
        fade = _fade_weights(segment, num_frames, halo)
        for index, frame in enumerate(segments.run(read, slice(0, len(read)))):
            position = segment.read_start + index
            if segment.start <= position < segment.stop:
                results["discard"][:, position] = frame.cpu()
            results["cross_fade"][:, position] += fade[index] * frame.cpu()
    return results


def _fade_weights(segment: Segment, num_frames: int, halo: int) -> Tensor:
    """Weight of each frame read: a ramp over the frames that two segments share."""
    position = torch.arange(segment.read_start, segment.read_stop) + 0.5
    weights = torch.ones(len(position))
    if halo and segment.start > 0:
        weights = weights * ((position - (segment.start - halo)) / (2 * halo)).clamp(0, 1)
    if halo and segment.stop < num_frames:
        weights = weights * (((segment.stop + halo) - position) / (2 * halo)).clamp(0, 1)
    return weights


def _boundary_ratio(video: Tensor, borders: Sequence[int]) -> float:
    changes = [
        (b - a).abs().mean().item() for a, b in itertools.pairwise(video.unbind(1))
    ]  # changes[i] leads to frame i + 1
    across = [changes[border - 1] for border in borders]
    within = [c for index, c in enumerate(changes, start=1) if index not in borders]
    if not across or not within:
        raise ValueError(
            f"video must be longer than one segment, got {video.shape[1]} frames; use shorter "
            "segments"
        )
    return (sum(across) / len(across)) / (sum(within) / len(within))
