"""What FFmpeg does not show of an MP4's or MOV's index: whether a track has several descriptions.

Source: ISO 14496-12, sections 8.5 (sample descriptions) and 8.7.4 (which sample has which).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MOST_TABLE_BYTES = 64 << 20


def has_several_entries(path: Path, track_id: int) -> bool:
    """Return whether the samples of a track are described in more than one way.

    Args:
        path: an MP4 or MOV.
        track_id: its number in the file.
    """
    try:
        with path.open("rb") as file:
            end = path.stat().st_size
            for begin, stop in _boxes(file, 0, end, b"moov"):
                for track in _boxes(file, begin, stop, b"trak"):
                    if _track_id(file, *track) == track_id:
                        return len(_used_entries(file, *track)) > 1
    except (OSError, struct.error):  # who reads the film says what is wrong
        return False
    return False


def _boxes(file: BinaryIO, place: int, end: int, kind: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the content of each box of a kind begins and ends."""
    while place + 8 <= end:
        file.seek(place)
        size, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", file.read(8))[0], 16
        elif size == 0:
            size = end - place
        if size < head:
            return
        if name == kind:
            yield place + head, min(end, place + size)
        place += size


def _inner(file: BinaryIO, place: int, end: int, *kinds: bytes) -> tuple[int, int] | None:
    """Return where a box inside boxes begins and ends; None if it is not there."""
    for kind in kinds:
        found = next(_boxes(file, place, end, kind), None)
        if found is None:
            return None
        place, end = found
    return place, end


def _track_id(file: BinaryIO, place: int, end: int) -> int | None:
    header = _inner(file, place, end, b"tkhd")
    if header is None:
        return None
    file.seek(header[0])
    version = file.read(4)[0]
    file.seek(16 if version == 1 else 8, 1)
    return struct.unpack(">I", file.read(4))[0]


def _used_entries(file: BinaryIO, place: int, end: int) -> set[int]:
    """Return the numbers of the sample descriptions that chunks of a track refer to."""
    table = _inner(file, place, end, b"mdia", b"minf", b"stbl", b"stsc")
    if table is None or table[1] - table[0] > _MOST_TABLE_BYTES:
        return set()
    file.seek(table[0] + 4)
    num_rows = struct.unpack(">I", file.read(4))[0]
    data = file.read(min(12 * num_rows, table[1] - table[0] - 8))
    return {row[2] for row in struct.iter_unpack(">III", data[: len(data) // 12 * 12])}
