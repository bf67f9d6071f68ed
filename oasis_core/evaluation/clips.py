"""Clips on disk for measuring: video files or folders of pictures, single or paired by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoReader


class EvaluationError(ValueError):
    """Clips cannot be measured as asked; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSource:
    """One clip to measure, by the files there are of it."""

    name: str
    """What reports call it."""
    truth: Path | None = None
    """The sharp original: a video file, a picture, or a folder of pictures."""
    low: Path | None = None
    """The low-quality version; without it one is made from the truth."""
    restored: Mapping[str, Path] = field(default_factory=dict)
    """Results of other methods by the method's name."""


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


def list_clips(folder: Path) -> list[Path]:
    """The clips in a folder, sorted: videos, and sub-folders that hold pictures.

    A folder with pictures of its own is one clip.

    Raises:
        EvaluationError: There is no such folder, or no clip in it.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder} must be a folder of clips; there is none of this name")
    if _pictures(folder):
        return [folder]
    clips = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and _pictures(path))
    ]
    if not clips:
        raise EvaluationError(
            f"{folder} holds no clip: videos ({', '.join(sorted(VIDEO_SUFFIXES))}) or one folder "
            "of pictures for each clip are needed"
        )
    return clips


def find_sources(paths: Sequence[Path]) -> list[ClipSource]:
    """Sharp clips to degrade: files as given, folders replaced by the clips in them.

    Raises:
        EvaluationError: A path does not exist, or a folder holds no clip.
    """
    sources = []
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"{path} does not exist")
        found = list_clips(path) if path.is_dir() else [path]
        sources += [ClipSource(name=clip.name, truth=clip) for clip in found]
    return sources


def pair_folders(
    *, truth: Path | None, low: Path | None, restored: Mapping[str, Path]
) -> list[ClipSource]:
    """Pair the clips of several folders by their names, suffixes apart.

    Args:
        truth: Folder of sharp originals, if there are any.
        low: Folder of low-quality clips, if there are any.
        restored: Folders of results, by the method's name.

    Raises:
        EvaluationError: A folder is missing or empty, or the names differ.
    """
    folders = {"truth": truth, "low": low, **{f"restored {k}": v for k, v in restored.items()}}
    found = {
        role: {path.stem if path.is_file() else path.name: path for path in list_clips(folder)}
        for role, folder in folders.items()
        if folder is not None
    }
    if not found:
        raise EvaluationError("nothing to measure; name clips, --truth, --low or --restored")
    first, *others = found
    names = sorted(found[first])
    for role in others:
        if folders[role] in found[role].values() and folders[first] in found[first].values():
            # Folders of pictures, one clip each: their names say what they are, not which clip.
            found[role] = {names[0]: folders[role]}
        if odd := sorted(set(found[role]) ^ set(names)):
            raise EvaluationError(
                f"clips must have the same names in {folders[first]} and {folders[role]}; "
                f"{odd[0]!r} is in one of them only ({len(odd)} such names)"
            )
    return [
        ClipSource(
            name=name,
            truth=found.get("truth", {}).get(name),
            low=found.get("low", {}).get(name),
            restored={key: found[f"restored {key}"][name] for key in restored},
        )
        for name in names
    ]


def _frames_of_file(path: Path, num_frames: int) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.pixels for frame in itertools.islice(reader, num_frames or None)]


def read_frames(path: Path, num_frames: int = 0) -> Tensor:
    """The first frames of a video, a picture or a folder of pictures; 0 frames: all.

    Returns:
        `t 3 h w` float32 in [0, 1].

    Raises:
        EvaluationError: There is no frame, or the pictures differ in size.
        VideoError: A file cannot be read.
    """
    if path.is_dir():
        pictures = _pictures(path)[: num_frames or None]
        frames = [frame for picture in pictures for frame in _frames_of_file(picture, 1)]
    else:
        frames = _frames_of_file(path, num_frames)
    if not frames:
        raise EvaluationError(f"{path} holds no frame")
    if sizes := {frame.shape for frame in frames} - {frames[0].shape}:
        height, width = min(sizes)[:2]
        raise EvaluationError(
            f"the frames of {path} must all be {frames[0].shape[1]}x{frames[0].shape[0]}, one is "
            f"{width}x{height}"
        )
    full_scale = np.iinfo(frames[0].dtype).max
    clip = torch.from_numpy(np.stack(frames).astype(np.float32) / full_scale)
    return rearrange(clip, "t h w c -> t c h w").contiguous()


def read_clip(path: Path, num_frames: int, multiple: int) -> Tensor:
    """The first frames of a clip, cropped to a multiple; `t 3 h w` float32 in [0, 1]."""
    clip = read_frames(path, num_frames)
    height, width = (n // multiple * multiple for n in clip.shape[2:])
    return clip[:, :, :height, :width].contiguous()
