"""What kind of file a name stands for: endings, and pictures that move."""

from __future__ import annotations

import struct
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
        ".wmv", ".flv", ".3gp", ".ogv", ".gif", ".mxf", ".vob",
    )
)  # fmt: skip
"""What is taken for a video when a folder is searched; a file named outright may end otherwise."""

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr"))
"""What is taken for a still picture."""

_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_ANIMATION = 0x02


def is_animated(path: Path) -> bool:
    """Return whether a picture file holds several pictures in time: WebP or PNG (of GIF all are).

    Args:
        path: any file; what cannot be read is not animated.
    """
    if path.suffix.lower() not in (".webp", ".png") or not path.is_file():
        return False
    try:
        return is_animated_webp(path) or _is_animated_png(path)
    except OSError:
        return False


def is_animated_webp(path: Path) -> bool:
    """Return whether a file is a WebP with several pictures.

    Args:
        path: a file that can be read.
    """
    with path.open("rb") as file:
        head = file.read(30)
    is_extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return is_extended and len(head) == 30 and bool(head[20] & _WEBP_ANIMATION)


def _is_animated_png(path: Path) -> bool:
    """Return whether a PNG says so, which it has to before its first picture."""
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            return False
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name in (b"acTL", b"IDAT"):
                return name == b"acTL"
            file.seek(length + 4, 1)
    return False
