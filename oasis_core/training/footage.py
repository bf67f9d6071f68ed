"""The footage of a training, decoded into memory; what cannot be used is counted and named."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source, VideoError
from .config import TrainingError

logger = logging.getLogger(__name__)

MAX_BAD_SHARE = 0.01
READ_ERRORS = (TrainingError, OSError)
"""What `decode_footage` raises."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Decoded footage, uint8 `t 3 h w`; stills have one frame."""

    clips: list[Tensor]
    """Videos."""
    stills: list[Tensor]
    """Single images."""
    names: list[str]
    """File names of both, sorted."""

    def at(self, shard_index: int, place: int) -> Sources:
        """The footage for a place of a batch: all of it, always."""
        del shard_index, place
        return self


def decode_footage(source: Source, name: str) -> Tensor:
    """Decode a clip or a still in the colours the engine reads, uint8 `t 3 h w`.

    Args:
        source: The file.
        name: What it is called in messages.

    Raises:
        TrainingError: It cannot be read or holds no frame.
        OSError: It cannot be read.
    """
    try:
        frames = [_in_8_bit(frame.pixels) for frame in source.first_frames(0)]
    except VideoError as error:
        raise TrainingError(str(error).replace(str(source), name)) from error
    if not frames:
        raise TrainingError(f"{name} holds no frame")
    return torch.stack([rearrange(torch.from_numpy(f), "h w c -> c h w") for f in frames])


def _in_8_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def load_sources(data_dirs: tuple[str, ...], min_side_px: int, min_frames: int) -> Sources:
    """Decode all footage below the folders into memory.

    Unreadable files, and those smaller or shorter than a sample, are skipped and listed in the
    log; the run stops when more than 1 % are unreadable.

    Raises:
        TrainingError: A folder is missing, nothing usable was found, or too much is unreadable.
    """
    paths = _find_footage(data_dirs)
    clips, stills, names, bad, small = [], [], [], [], []
    for path in paths:
        try:
            source = Source.resolve(path)
            clip = decode_footage(source, str(path))
        except READ_ERRORS as error:
            logger.warning("training file %s was skipped: %s", path, error)
            bad.append(path)
            continue
        is_video = not source.pictures
        if min(clip.shape[-2:]) < min_side_px or (is_video and len(clip) < min_frames):
            logger.warning(
                "training file %s was skipped: %dx%d with %d frames is smaller than a sample of "
                "%d px and %d frames",
                *(path, clip.shape[3], clip.shape[2], len(clip), min_side_px, min_frames),
            )
            small.append(path)
            continue
        (clips if is_video else stills).append(clip)
        names.append(path.name)
    if len(bad) > MAX_BAD_SHARE * len(paths):
        raise TrainingError(
            f"at most {MAX_BAD_SHARE:.0%} of the training files may be unreadable, {len(bad)} of "
            f"{len(paths)} are, e.g. {bad[0]}; remove or replace them"
        )
    if not names:
        raise TrainingError(
            f"no usable clip or still below {', '.join(data_dirs) or '(no folder)'}: "
            f"{len(paths)} files found, {len(small)} too small for samples of {min_side_px} px "
            f"and {min_frames} frames; add footage or lower crop_px and num_frames"
        )
    if bad or small:
        logger.warning(
            "%d of %d training files were skipped (%d unreadable, %d too small)",
            *(len(bad) + len(small), len(paths), len(bad), len(small)),
        )
    return Sources(clips=clips, stills=stills, names=names)


def _find_footage(data_dirs: tuple[str, ...]) -> list[Path]:
    folders = [Path(folder).expanduser() for folder in data_dirs]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise TrainingError(
            f"data_dirs names the folder {str(missing[0])!r}, which does not exist; put clips and "
            "stills there or change data_dirs"
        )
    suffixes = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in suffixes
    )
