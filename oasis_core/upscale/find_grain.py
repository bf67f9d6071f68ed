"""Finding the grain that is to be laid, once, before the first segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..finish.grain import Grain, GrainProfile, print_grain
from ..finish.grain_checks import check_frames
from ..finish.grain_measure import RUN_FRAMES, FlatPlace, measure_grain, share_left
from ..video.pixels import Frame, frame_to_tensor
from .look import Look

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of a film's length at which its grain is looked for."""
ReadRun = Callable[[], Sequence[Frame]]
"""Reads neighbouring frames, the same each time."""
UpscaleClip = Callable[..., Tensor]
"""As `VideoUpscaler.upscale`."""


def places_in(num_frames: int) -> list[int]:
    """Numbers of the frames at which the grain of a short film is looked for, two left each."""
    last = max(0, num_frames - 2)
    return sorted({round(last * place) for place in PLACES})


def grain_of_clip(look: Look, video: Tensor, upscale: UpscaleClip) -> Grain | None:
    """The grain of a clip in memory; None where none is asked for.

    Args:
        look: Of the result.
        video: `b 3 t h w` in [0, 1]; of several clips the first is measured.
        upscale: Upscales a clip.
    """
    if look.grain is None:
        return None
    runs: list[ReadRun] = []
    if look.grain == "auto":
        num_frames = video.shape[2]
        check_frames(num_frames)
        starts = places_in(num_frames)
        runs = [lambda start=s: video[0, :, start : start + RUN_FRAMES].unbind(1) for s in starts]
    return grain_of(look, runs, (video.shape[4], video.shape[3]), upscale)


def grain_of(
    look: Look, runs: Sequence[ReadRun], size: tuple[int, int], upscale: UpscaleClip
) -> Grain:
    """The grain that is asked for: an amount, or what is measured in some places.

    Args:
        look: Of the result.
        runs: Places of the source.
        size: (width, height) of the source.
        upscale: Upscales a clip, to see what the model leaves of the grain.
    """
    if look.grain != "auto":
        profile = print_grain(look.grain, min(look.width, look.height))
        return Grain(profile=profile, seed=look.grain_seed)
    profile, place = measure_grain(read() for read in runs)
    if profile is None:
        none = GrainProfile(sigma=(0.0,), size_px=(0, 0), color=(0, 0), color_size_px=(0, 0))
        return Grain(profile=none, left=1.0, seed=look.grain_seed)
    scale = (look.width / size[0], look.height / size[1])
    left = 1.0
    if look.strength > 0:
        left = _left_by(upscale, runs[place.run](), place, scale, color_anchor=look.color_anchor)
    return Grain(profile=profile.enlarged(scale), left=round(left, 4), seed=look.grain_seed)


def _left_by(
    upscale: UpscaleClip,
    frames: Sequence[Frame],
    place: FlatPlace,
    scale: tuple[float, float],
    **settings: Any,
) -> float:
    """Share of the grain's strength that the model leaves in a flat place."""
    rows = slice(place.top, place.top + place.side_px)
    columns = slice(place.left, place.left + place.side_px)
    planes = [frame_to_tensor(frame, torch.device("cpu"))[0] for frame in frames]
    clip = torch.stack([plane[:, rows, columns] for plane in planes], dim=1)[None]
    size = (round(place.side_px * scale[0]), round(place.side_px * scale[1]))
    result = upscale(clip, size=size, shots=False, **settings)
    middle = clip.shape[2] // 2
    return share_left(clip[0, :, middle], result[0, :, middle], place)
