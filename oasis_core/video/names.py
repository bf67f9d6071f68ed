"""What a file's name says: kind, numbers, patterns and natural order; and which pictures move."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

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
    """Whether a file's ending is that of a still picture."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_pattern(path: Path) -> bool:
    """Whether a name stands for a numbered sequence, such as `in_%05d.png`."""
    return is_image(path) and _NUMBER.search(path.name) is not None


def numbered(path: Path, number: int) -> Path:
    """The file of a pattern with one number."""
    width = int(_NUMBER.search(path.name).group(1) or 1)
    return path.with_name(_NUMBER.sub(f"{number:0{width}d}", path.name, count=1))


def first_number(path: Path) -> int:
    """The last number in a file's name, 1 if it has none: where a sequence begins."""
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else 1


def natural_key(path: Path) -> tuple:
    """Sort key that puts `2.png` before `10.png`, whatever the case of letters."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((int(p), "") if p.isdigit() else (-1, p) for p in parts), path.name


def numbers_of(pictures: Sequence[Path]) -> list[int]:
    """The number of each picture, for results that are numbered.

    Where names differ in exactly one of their numbers (`shot_001_v2`, `shot_002_v2`), it is that
    one, and a gap stays a gap. A single picture has the last number of its name. All others are
    counted from 1.

    Args:
        pictures: Files in the order in which they are frames, at least one.
    """
    if len(pictures) == 1:
        return [first_number(pictures[0])]
    parts = [re.split(r"(\d+)", path.stem.lower()) for path in pictures]
    counted = list(range(1, len(pictures) + 1))
    if len({tuple(part[::2]) for part in parts}) > 1:
        return counted
    columns = [
        [int(text) for text in column] for column in zip(*(p[1::2] for p in parts), strict=True)
    ]
    differing = [column for column in columns if len(set(column)) > 1]
    is_clear = len(differing) == 1 and len(set(differing[0])) == len(pictures)
    return differing[0] if is_clear else counted


def distinct(
    files: Sequence[Any], suffix_of: Callable[[Any], str], *, taken: Iterable[str] = ()
) -> list[str]:
    """A name for the result of each file, no two alike on any file system.

    `film.avi` beside `film.mkv` becomes `film.avi.mp4`, `b/film.mkv` beside `a/film.mkv` becomes
    `film_2.mp4`.

    Args:
        files: Paths or files behind URLs, in order.
        suffix_of: The ending of a file's result.
        taken: Names that are given already.
    """
    seen = {name.lower() for name in taken}
    names = []
    for file in files:
        suffix = suffix_of(file)
        name, number = file.stem + suffix, 2
        if name.lower() in seen:
            name = file.name + suffix
        while name.lower() in seen:
            name = f"{file.stem}_{number}{suffix}"
            number += 1
        seen.add(name.lower())
        names.append(name)
    return names


def folder_contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """The videos and the pictures of a folder, each in natural order; what moves is a video."""
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=natural_key)
    films = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES or is_animated(p)]
    moving = set(films)
    return films, [p for p in files if is_image(p) and p not in moving]


def find_numbered(pattern: Path) -> list[tuple[int, Path]]:
    """The files that a pattern stands for, with their numbers and by them.

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
    """Whether a picture file holds several pictures in time: WebP or PNG (of GIF all are).

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
    """Whether a file is a WebP with several pictures.

    Args:
        path: a file that can be read.
    """
    with path.open("rb") as file:
        head = file.read(30)
    is_extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return is_extended and len(head) == 30 and bool(head[20] & _WEBP_ANIMATION)


def _is_animated_png(path: Path) -> bool:
    """Whether a PNG says so, which it has to before its first picture."""
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            return False
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name in (b"acTL", b"IDAT"):
                return name == b"acTL"
            file.seek(length + 4, 1)
    return False
