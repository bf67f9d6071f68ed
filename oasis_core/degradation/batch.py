"""Degrading many clips at once: equal work in one call, codecs in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

from . import operators
from .applying import apply_step, blur_kernels, resized_size
from .codec import compress_pixels, from_pixels, to_pixels
from .recipe import Step


@dataclass(slots=True)
class ClipInWork:
    """A clip on its way through its recipe; `clip` and `done` change."""

    clip: Tensor
    """`t 3 h w`, float32 in [0, 1], as far as it has come."""
    steps: tuple[Step, ...]
    """Its recipe."""
    size: tuple[int, int]
    """(height, width) of the result."""
    generator: torch.Generator
    """Source of its noise."""
    sharp_size: tuple[int, int] = (0, 0)
    """(height, width) of the sharp clip; set here."""
    done: int = 0
    """Steps done."""

    def __post_init__(self) -> None:
        self.sharp_size = tuple(self.clip.shape[2:])

    @property
    def step(self) -> Step:
        """The next step."""
        return self.steps[self.done]

    def group(self) -> tuple[object, ...]:
        """What must be equal for steps of several clips to be one call."""
        operator, params, shape = self.step.operator, self.step.params, tuple(self.clip.shape[1:])
        if operator in ("blur", "sinc"):
            return ("blur", shape, params["size"])
        if operator == "resize":
            size = resized_size(self.step, self.sharp_size, self.size)
            return ("resize", shape, size, params["mode"])
        # Noise comes from each clip's own generator.
        return (operator, shape) if operator == "jpeg" else (operator, id(self))


def _per_frame(values: Sequence[object], num_frames: int) -> list[object]:
    """One value per frame from one per clip or one per frame."""
    return list(values) if len(values) == num_frames else list(values) * num_frames


def _run_group(kind: str, jobs: list[ClipInWork]) -> None:
    """Run the next step of clips that form a group, in one call."""
    clips = torch.cat([job.clip for job in jobs])
    if kind == "blur":
        kernels = [k for job in jobs for k in _per_frame(blur_kernels(job.step), len(job.clip))]
        result = operators.blur(clips, kernels)
    elif kind == "jpeg":
        quality = [q for job in jobs for q in _per_frame(job.step.params["quality"], len(job.clip))]
        result = operators.jpeg(clips, quality)
    else:
        job = jobs[0]
        size = resized_size(job.step, job.sharp_size, job.size)
        result = operators.resize(clips, size, job.step.params["mode"]).clamp(0, 1)
    pieces = result.split([len(job.clip) for job in jobs])
    for job, piece in zip(jobs, pieces, strict=True):
        job.clip = piece


def _run_codecs(jobs: list[ClipInWork], pool: Executor | None) -> None:
    arguments = [
        (to_pixels(job.clip), job.step.params["codec"], job.step.params["quality"]) for job in jobs
    ]
    columns = zip(*arguments, strict=True)
    results = pool.map(compress_pixels, *columns) if pool else map(compress_pixels, *columns)
    for job, pixels in zip(jobs, results, strict=True):
        job.clip = from_pixels(pixels, job.clip)


def apply_recipes(jobs: Sequence[ClipInWork], pool: Executor | None = None) -> list[Tensor]:
    """Run drawn recipes on many clips, on whatever device they are.

    The result is that of `apply_recipe` on each clip, to rounding.

    Args:
        jobs: The clips; they are changed.
        pool: Runs the codecs, best in processes; None: here, one after the other.

    Returns:
        `t 3 height width` each, rounded to 8-bit levels.
    """
    while pending := [job for job in jobs if job.done < len(job.steps)]:
        groups: dict[tuple[object, ...], list[ClipInWork]] = {}
        for job in pending:
            key = ("codec",) if job.step.operator == "codec" else job.group()
            groups.setdefault(key, []).append(job)
        for key, members in groups.items():
            if key[0] == "codec":
                _run_codecs(members, pool)
            elif key[0] in ("blur", "jpeg", "resize"):
                _run_group(key[0], members)
            else:
                (job,) = members
                job.clip = apply_step(job.clip, job.step, job.sharp_size, job.size, job.generator)
        for job in pending:
            job.done += 1
    return [(job.clip.clamp(0, 1) * 255).round() / 255 for job in jobs]
