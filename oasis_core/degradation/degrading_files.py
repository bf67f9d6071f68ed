"""Degrading video files piece by piece, so that memory does not grow with their length."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from ..remote import RemoteFile
from ..video import (
    EncodeSpec,
    Source,
    VideoFrame,
    VideoInfo,
    check_destination,
)
from ..video.film import write_film
from .applying import apply_recipe
from .recipe import (
    CODECS,
    MIN_SIDE_PX,
    DegradationError,
    Step,
    check_codecs,
    draw_recipe,
)

CHUNK_FRAMES = 32


def slice_steps(steps: tuple[Step, ...], start: int, stop: int) -> tuple[Step, ...]:
    """The steps of frames start to stop of a clip: per-frame parameters are cut to them."""

    def cut(value: Any) -> Any:
        return value[start:stop] if isinstance(value, list) and len(value) > 1 else value

    return tuple(
        replace(step, params={key: cut(value) for key, value in step.params.items()})
        for step in steps
    )


def _count_frames(source: Source) -> int:
    with source.open() as reader:
        return sum(1 for _ in reader)


def _chunks(reader: Iterable[VideoFrame]) -> Iterator[list[VideoFrame]]:
    frames = iter(reader)
    while chunk := list(itertools.islice(frames, CHUNK_FRAMES)):
        yield chunk


def _degrade_chunk(
    frames: list[VideoFrame],
    steps: tuple[Step, ...],
    size: tuple[int, int],
    generator: torch.Generator,
) -> np.ndarray:
    """Degrade frames to `t h w 3` uint8 of the given (height, width)."""
    pixels = np.stack([frame.pixels for frame in frames])
    clip = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max)
    clip = rearrange(clip, "t h w c -> t c h w").contiguous()
    degraded = apply_recipe(clip, steps, size=size, generator=generator)
    return (
        rearrange((degraded * 255).round().to(torch.uint8), "t c h w -> t h w c")
        .contiguous()
        .numpy()
    )


def _check_request(source: Source, destination: Path, seed: int, overwrite: bool) -> None:
    """Refuse what can be refused before anything is read or written."""
    check_destination(destination, "h264")
    here = [path for path in source.files if path.exists()]
    if destination.exists() and any(destination.samefile(path) for path in here):
        raise DegradationError(
            f"output {str(destination)!r} is the input itself; name another file"
        )
    if destination.exists() and not overwrite:
        raise DegradationError(f"{destination} exists; add --overwrite to replace it")
    if not 0 <= seed < 2**63:
        raise DegradationError(f"seed must be in [0, 2**63), got {seed}")


def degrade_file(
    source: str | os.PathLike[str] | RemoteFile | Source,
    destination: str | os.PathLike[str],
    *,
    preset: str = "consistent",
    scale: float = 4,
    seed: int = 0,
    overwrite: bool = False,
    codecs: Sequence[str] = CODECS,
    on_progress: Callable[[float, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Write a low-quality copy of a video, its sound untouched; the same for the same seed.

    Args:
        source: A video file or its URL, a picture, a pattern or a folder of pictures.
        destination: Ends in .mp4, .mkv or .mov; appears complete or not at all.
        preset: "light", "consistent", "inconsistent", "clean" or "web".
        scale: Factor by which the picture gets smaller, in [1, 16]; sizes are rounded to even
            numbers.
        seed: In [0, 2**63).
        overwrite: Replace an existing destination.
        codecs: Encoders to draw the damage of video compression from.
        on_progress: Called with (frames done, frames in all).

    Returns:
        The drawn steps as JSON values.

    Raises:
        DegradationError: A request that cannot be met.
        VideoError: A file that cannot be read or written.
    """
    source, destination = Source.resolve(source), Path(destination)
    _check_request(source, destination, seed, overwrite)
    codecs = check_codecs(codecs)
    num_frames = _count_frames(source)
    generator = torch.Generator().manual_seed(seed)
    steps = draw_recipe(
        preset, num_frames=num_frames, scale=scale, generator=generator, codecs=codecs
    )
    with source.open() as reader:
        size = _degraded_size(reader.info, scale)
        # The damage is already in the pixels: the file itself is written at high quality.
        spec = EncodeSpec.from_source(
            reader.info, codec="h264", width=size[1], height=size[0], crf=10, bit_depth=8
        )
        frames = _degraded(reader, steps, size, generator, on_progress, num_frames)
        write_film(frames, destination, spec, beside=source.beside)
    return [asdict(step) for step in steps]


def _degraded_size(info: VideoInfo, scale: float) -> tuple[int, int]:
    """(height, width) of the result, even because of its 4:2:0 colour."""
    height, width = (2 * round(n / scale / 2) for n in (info.height, info.width))
    if min(width, height) < MIN_SIDE_PX:
        raise DegradationError(
            f"scale {scale} would make {info.width}x{info.height} smaller than "
            f"{MIN_SIDE_PX} px; use a smaller one"
        )
    return height, width


def _degraded(
    reader: Iterable[VideoFrame],
    steps: tuple[Step, ...],
    size: tuple[int, int],
    generator: torch.Generator,
    on_progress: Callable[[float, float], None] | None,
    num_frames: int,
) -> Iterator[VideoFrame]:
    """Frames degraded piece by piece; says after each piece how far it is."""
    done = 0
    for chunk in _chunks(reader):
        piece = slice_steps(steps, done, done + len(chunk))
        pixels = _degrade_chunk(chunk, piece, size, generator)
        for frame, image in zip(chunk, pixels, strict=True):
            yield VideoFrame(pixels=image, pts=frame.pts, duration=frame.duration)
        done += len(chunk)
        if on_progress is not None:
            on_progress(done, num_frames)
