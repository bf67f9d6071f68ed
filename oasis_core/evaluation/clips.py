"""Clips on disk for measuring: video files or folders of pictures, single or paired by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..geometry import middle
from ..remote import RemoteFile
from ..video import VIDEO_SUFFIXES, Source
from ..video.names import folder_contents, natural_key

ORIGINAL = "original"
"""Stands for the truth among the methods: what a metric without reference says of it."""
RESERVED = ("bicubic", "model", ORIGINAL, "truth")
"""Names that no other method may take."""


class EvaluationError(ValueError):
    """Clips cannot be measured as asked; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSource:
    """One clip to measure, by the files there are of it."""

    name: str
    """What reports call it."""
    truth: Path | RemoteFile | None = None
    """The sharp original: a video file, a picture, a folder of pictures, or a video's URL."""
    low: Path | None = None
    """The low-quality version; without it one is made from the truth."""
    restored: Mapping[str, Path] = field(default_factory=dict)
    """Results of other methods by the method's name."""


def list_clips(folder: Path) -> list[Path]:
    """The clips in a folder, in natural order: videos, and sub-folders that hold pictures.

    A folder with pictures of its own is one clip.

    Raises:
        EvaluationError: There is no such folder, or no clip in it.
    """
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise EvaluationError(f"{str(folder)!r} must be a folder of clips, but {kind}")
    films, pictures = folder_contents(folder)
    if pictures:
        return [folder]
    inner = [path for path in folder.iterdir() if path.is_dir() and folder_contents(path)[1]]
    clips = sorted([*films, *inner], key=natural_key)
    if not clips:
        raise EvaluationError(
            f"{folder} holds no clip: videos ({', '.join(sorted(VIDEO_SUFFIXES))}) or one folder "
            "of pictures for each clip are needed"
        )
    return clips


def find_sources(paths: Sequence[Path | RemoteFile]) -> list[ClipSource]:
    """Sharp clips to degrade: files as given, folders replaced by the clips in them.

    A clip that is named twice counts once.

    Raises:
        EvaluationError: A path does not exist, or a folder holds no clip.
    """
    clips: list[Path | RemoteFile] = []
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"{str(path)!r} does not exist")
        clips += list_clips(path) if path.is_dir() else [path]
    once = {clip if isinstance(clip, RemoteFile) else clip.resolve(): clip for clip in clips}
    return distinct_names(ClipSource(name=clip.name, truth=clip) for clip in once.values())


def distinct_names(sources: Iterable[ClipSource]) -> list[ClipSource]:
    """The same clips; those of one name are told apart by their folders, or else by numbers."""
    clips = list(sources)
    for depth in range(2, 2 + max((len(_parts(clip)) for clip in clips), default=0)):
        if not (alike := _repeated(clips)):
            break
        clips = [
            replace(clip, name="/".join(_parts(clip)[-depth:]))
            if clip.name in alike and _parts(clip)
            else clip
            for clip in clips
        ]
    alike, seen = _repeated(clips), Counter()
    for index, clip in enumerate(clips):
        seen[clip.name] += 1
        if clip.name in alike:
            clips[index] = replace(clip, name=f"{clip.name} ({seen[clip.name]})")
    return clips


def _repeated(clips: Sequence[ClipSource]) -> set[str]:
    return {name for name, count in Counter(clip.name for clip in clips).items() if count > 1}


def _parts(clip: ClipSource) -> list[str]:
    path = clip.truth or clip.low
    if path is None:
        return []
    return list(path.parts) if isinstance(path, Path) else str(path).split("/")


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
    found = {role: _by_name(folder) for role, folder in folders.items() if folder is not None}
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


def _by_name(folder: Path) -> dict[str, Path]:
    """The clips of a folder by their names without endings.

    Raises:
        EvaluationError: Two have the same.
    """
    clips: dict[str, Path] = {}
    for path in list_clips(folder):
        name = path.name if path.is_dir() else path.stem
        if name in clips:
            raise EvaluationError(
                f"clips are paired by their names without endings, and {folder} holds both "
                f"{clips[name].name} and {path.name}; rename or remove one"
            )
        clips[name] = path
    return clips


def read_frames(path: Path | RemoteFile, num_frames: int = 0) -> Tensor:
    """The first frames of a video, a picture or a folder of pictures, as the engine reads them.

    Args:
        path: What was named.
        num_frames: Frames wanted; 0: all.

    Returns:
        `t 3 h w` float32 in [0, 1].

    Raises:
        EvaluationError: There is no frame, or a video changes its size.
        VideoError: A file cannot be read, or pictures differ in size.
    """
    frames = [frame.pixels for frame in Source.resolve(path).first_frames(num_frames)]
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


def read_clip(path: Path | RemoteFile, num_frames: int, multiple: int) -> Tensor:
    """The first frames of a clip, cropped to a multiple; `t 3 h w` float32 in [0, 1]."""
    clip = read_frames(path, num_frames)
    height, width = (n // multiple * multiple for n in clip.shape[2:])
    return clip[:, :, :height, :width].contiguous()


def middle_square(clip: Tensor, side: int, name: str) -> Tensor:
    """The middle of a clip, `t 3 side side`.

    Raises:
        EvaluationError: The clip is smaller.
    """
    height, width = clip.shape[2:]
    if min(height, width) < side:
        raise EvaluationError(
            f"{name} must be at least {side}x{side} px, got {width}x{height}; lower the middle to "
            "measure (--middle, validation_px)"
        )
    return clip[:, :, middle(height, side), middle(width, side)].contiguous()
