"""Which container an output's name chooses, and whether it can be written there."""

from __future__ import annotations

import os
from pathlib import Path

from ..codecs import CODECS, CONTAINERS
from .errors import VideoError

MATROSKA = ("matroska", "webm")
"""Muxers that write Matroska; WebM is one with few codecs."""
OWN_CODECS = {".webm": "vp9"}
"""Codec of an ending that does not hold the usual one, if none is asked for."""


def check_destination(destination: str | Path, codec: str, *, makes_folder: bool = False) -> str:
    """Return the muxer for an output file, or say why it cannot be written; nothing is touched.

    Args:
        destination: the wanted file.
        codec: one of `CODECS`.
        makes_folder: whether its folder may be missing, since it will be made.

    Raises:
        VideoError: unknown extension, a codec the container cannot hold, or no such folder.
    """
    path = Path(destination)
    muxer = CONTAINERS.get(path.suffix.lower())
    if muxer is None:
        raise VideoError(
            f"{str(path)!r} must end in one of {', '.join(CONTAINERS)}, got "
            f"{path.suffix or 'no ending'!r}; the ending chooses the container"
        )
    holders = CODECS[codec].containers if codec in CODECS else tuple(CONTAINERS.values())
    # MOV is MP4 with more room; FFmpeg has a muxer for each.
    kind = "mov" if path.suffix.lower() == ".mov" else muxer
    if kind not in holders:
        if kind == "webm":
            raise VideoError(
                f"{str(path)!r} cannot hold {codec}; WebM holds vp9 and av1: take one of these, or "
                f"name the output {path.with_suffix('.mkv').name!r}"
            )
        ending = {"matroska": ".mkv"}.get(holders[0], f".{holders[0]}")
        needs = {"matroska": "Matroska", "mov": "MOV or Matroska"}.get(
            holders[0], "MP4 or Matroska"
        )
        raise VideoError(
            f"{str(path)!r} cannot hold {codec}, which needs {needs}; name the output "
            f"{path.with_suffix(ending).name!r}"
        )
    if path.is_dir():
        raise VideoError(f"{str(path)!r} is a folder; name a file in it")
    if makes_folder and not path.parent.exists():
        return muxer
    if not path.parent.is_dir():
        raise VideoError(f"the folder {str(path.parent)!r} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise VideoError(
            f"the folder {str(path.parent)!r} is not writable; choose a folder you may write to"
        )
    return muxer
