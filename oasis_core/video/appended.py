"""Files of which FFmpeg reads the first part and passes over the rest without a word.

Sources: ISO 14496-12 (boxes of an MP4), Adobe's Flash Video file format specification (tags).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_FLV_HEADER = b"FLV\x01"
_LINE = "a further film behind the first one (files joined byte by byte): not read; take them apart"


def film_behind(path: Path, container: str) -> str | None:
    """Return a line for a further film behind the one that FFmpeg reads; None without one.

    Args:
        path: a film.
        container: FFmpeg's name of its format.
    """
    is_behind = {"flv": _in_flv}.get(container, _in_mp4 if "mov" in container else None)
    if is_behind is None:
        return None
    try:
        return _LINE if is_behind(path) else None
    except (OSError, ValueError, struct.error):  # who reads the film says what is wrong
        return None


def _in_mp4(path: Path) -> bool:
    """Whether there is a second index among the outermost boxes."""
    place, end, num_indexes = 0, path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= end:
            file.seek(place)
            size, name = struct.unpack(">I4s", file.read(8))
            if size == 1:
                size = struct.unpack(">Q", file.read(8))[0]
            num_indexes += name == b"moov"
            if size < 8:
                break
            place += size
    return num_indexes > 1


def _in_flv(path: Path) -> bool:
    """Whether the row of tags is broken by another file's header."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = struct.unpack_from(">I", data, 5)[0] + 4
        while place + 11 <= len(data):
            if data[place : place + 4] == _FLV_HEADER:
                return True
            if data[place] & 0x1F not in (8, 9, 18):
                return False
            place += 11 + int.from_bytes(data[place + 1 : place + 4], "big") + 4
    return False
