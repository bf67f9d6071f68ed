"""What a file's name says: kind, numbers, patterns and natural order; and which pictures move."""

from __future__ import annotations

import re
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

_NUMBER = re.compile(r"%0?(\d*)d")
_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_ANIMATION = 0x02


def is_image(path: Path) -> bool:
    """Return whether a file's ending is that of a still picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_pattern(path: Path) -> bool:
    """Return whether a name stands for a numbered sequence, such as `in_%05d.png`."""
    return is_image(path) and _NUMBER.search(path.name) is not None


def numbered(path: Path, number: int) -> Path:
    """Return the file of a pattern with one number."""
    width = int(_NUMBER.search(path.name).group(1) or 1)
    return path.with_name(_NUMBER.sub(f"{number:0{width}d}", path.name, count=1))


def first_number(path: Path) -> int:
    """Return the last number in a file's name, 1 if it has none: where a sequence begins."""
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else 1


def natural_key(path: Path) -> tuple:
    """Sort key that puts `2.png` before `10.png`, whatever the case of letters."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((int(p), "") if p.isdigit() else (-1, p) for p in parts), path.name


def find_numbered(pattern: Path) -> list[tuple[int, Path]]:
    """Return the files that a pattern stands for, with their numbers and by them.

    Args:
        pattern: such as `in_%05d.png`, in a folder that exists.
    """
    before, after = _NUMBER.split(pattern.name, maxsplit=1)[::2]
    shape = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    matches = [(shape.fullmatch(path.name), path) for path in pattern.parent.iterdir()]
    return sorted(
        (int(m.group(1)), p) for m, p in matches if m and numbered(pattern, int(m[1])) == p
    )


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
