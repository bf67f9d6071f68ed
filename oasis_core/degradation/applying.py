"""Doing what a recipe says: steps one after the other, a few frames at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from . import operators
from .codec import compress
from .kernels import gaussian_family_kernel, sinc_kernel
from .recipe import CODECS, MIN_SIDE_PX, Step, check_codecs, draw_recipe

OnFrame = Callable[[float], None]
OnProgress = Callable[[float, float], None]
NOISE_BLOCK = 16


def blur_kernels(step: Step) -> list[Tensor]:
    """The kernels of a blur or sinc step, one for the clip or one per frame."""
    params = step.params
    if step.operator == "sinc":
        return [sinc_kernel(params["size"], cutoff) for cutoff in params["cutoff"]]
    names = ("sigma_x", "sigma_y", "angle", "beta")
    count = max(len(params[name]) for name in names)
    rows = [{name: params[name][i % len(params[name])] for name in names} for i in range(count)]
    return [gaussian_family_kernel(params["size"], family=params["family"], **r) for r in rows]


def resized_size(
    step: Step, sharp_size: tuple[int, int], target_size: tuple[int, int]
) -> tuple[int, int]:
    """The (height, width) that a resize step leads to."""
    factor = step.params["factor"]
    if factor is None:
        return target_size
    # Even sizes: the codec that follows needs them.
    height, width = (max(MIN_SIDE_PX, 2 * round(n * factor / 2)) for n in sharp_size)
    return height, width


def apply_step(
    clip: Tensor,
    step: Step,
    sharp_size: tuple[int, int],
    target_size: tuple[int, int],
    generator: torch.Generator,
    on_frame: OnFrame | None = None,
) -> Tensor:
    """Run one step on a clip `t 3 h w`; the arguments are those of `apply_recipe`."""
    if step.operator == "codec":
        return compress(clip, step.params["codec"], step.params["quality"], on_frame)
    if on_frame is None:
        return _apply(clip, step, sharp_size, target_size, generator)
    pieces = []
    for start, stop in _pieces(clip):
        on_frame(start)
        params = {name: _of_frames(value, start, stop) for name, value in step.params.items()}
        part = replace(step, params=params)
        pieces.append(_apply(clip[start:stop], part, sharp_size, target_size, generator))
    return torch.cat(pieces)


def _pieces(clip: Tensor) -> list[tuple[int, int]]:
    """First frames, and those behind the last, of pieces that are done at once.

    PyTorch draws normal noise in blocks: pieces that are whole blocks draw what one draw for the
    whole clip does.
    """
    length = NOISE_BLOCK // math.gcd(NOISE_BLOCK, clip.shape[2] * clip.shape[3])
    return [(i, min(len(clip), i + length)) for i in range(0, len(clip), length)]


def _of_frames(value: Any, start: int, stop: int) -> Any:
    """The parameter of some frames: part of a list that has one value for each frame."""
    return value[start:stop] if isinstance(value, list) and len(value) > 1 else value


def _apply(
    clip: Tensor,
    step: Step,
    sharp_size: tuple[int, int],
    target_size: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    params = step.params
    if step.operator in ("blur", "sinc"):
        return operators.blur(clip, blur_kernels(step))
    if step.operator == "resize":
        size = resized_size(step, sharp_size, target_size)
        return operators.resize(clip, size, params["mode"]).clamp(0, 1)
    if step.operator == "gaussian":
        noisy = operators.gaussian_noise(clip, params["sigma"], params["gray"], generator)
        return noisy.clamp(0, 1)
    if step.operator == "poisson":
        noisy = operators.poisson_noise(clip, params["scale"], params["gray"], generator)
        return noisy.clamp(0, 1)
    return operators.jpeg(clip, params["quality"])


def apply_recipe(
    clip: Tensor,
    steps: tuple[Step, ...],
    *,
    size: tuple[int, int],
    generator: torch.Generator,
    on_progress: OnProgress | None = None,
) -> Tensor:
    """Run drawn steps on a clip.

    Args:
        clip: `t 3 h w`, float32 in [0, 1].
        steps: From `draw_recipe`, for as many frames.
        size: (height, width) of the result.
        generator: Source of the noise.
        on_progress: Called with (steps done, steps), in fractions, every few frames; may raise to
            stop. Without it each step does all frames at once.

    Returns:
        `t 3 height width`, rounded to 8-bit levels.
    """
    sharp_size = tuple(clip.shape[-2:])
    for index, step in enumerate(steps):
        on_frame = None
        if on_progress is not None:

            def on_frame(done: float, index: int = index, num_frames: int = len(clip)) -> None:
                on_progress(index + done / num_frames, len(steps))

        clip = apply_step(clip, step, sharp_size, size, generator, on_frame)
    return (clip.clamp(0, 1) * 255).round() / 255


def degrade(
    clip: Tensor,
    *,
    preset: str = "consistent",
    scale: float = 4,
    seed: int = 0,
    codecs: Sequence[str] = CODECS,
    on_progress: OnProgress | None = None,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Make a low-quality copy of a clip, the same for the same seed.

    Args:
        clip: `t 3 h w`, float32 in [0, 1].
        preset: One of `PRESETS`.
        scale: Factor by which the result is smaller, in [1, 16].
        seed: Any integer >= 0.
        codecs: Keys of `codec.DECODERS` to draw from; one named twice is twice as likely.
        on_progress: Called with (steps done, steps), in fractions, every few frames; may raise to
            stop.

    Returns:
        The degraded clip `t 3 h/scale w/scale` and the drawn steps as JSON values.

    Raises:
        DegradationError: Unknown preset or impossible scale.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = draw_recipe(
        preset,
        num_frames=len(clip),
        scale=scale,
        generator=generator,
        codecs=check_codecs(codecs),
    )
    size = tuple(max(1, round(n / scale)) for n in clip.shape[-2:])
    degraded = apply_recipe(clip, steps, size=size, generator=generator, on_progress=on_progress)
    return degraded, [asdict(step) for step in steps]
