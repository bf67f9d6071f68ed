"""Whether a picture file is whole, where FFmpeg's decoder returns a part without an error.

Source: ISO 10918-1 annex B (JPEG ends with EOI), the OpenEXR file layout (openexr.com): the table
of offsets behind the header names every block of a picture.
"""

from __future__ import annotations

import struct
from pathlib import Path

from .errors import VideoError

_EXR_MAGIC = b"v/1\x01"
_TILED, _DEEP_OR_PARTS = 0x200, 0x1800
_LINES = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
"""Rows in a block by OpenEXR's number of the compression."""


def check_whole(path: Path) -> None:
    """Refuse a JPEG or OpenEXR picture that ends before its last rows.

    Args:
        path: any picture file.

    Raises:
        VideoError: it is cut off.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\xff\xd8":
        data = path.read_bytes()
        # Coded data cannot hold a marker; a preview's end lies before the picture's scan begins.
        is_whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    elif head == _EXR_MAGIC:
        is_whole = _is_whole_exr(path.read_bytes())
    else:
        return
    if not is_whole:
        raise VideoError(
            f"{str(path)!r} is cut off before its last rows; copy or download it again"
        )


def _is_whole_exr(data: bytes) -> bool:
    """Return whether all blocks of an OpenEXR picture in rows lie inside the file."""
    try:
        flags = struct.unpack_from("<I", data, 4)[0]
        if flags & (_TILED | _DEEP_OR_PARTS):
            return True  # laid out otherwise
        place, compression, window = 8, 0, (0, 0, 0, 0)
        while data[place]:
            name_end = data.index(b"\x00", place)
            kind_end = data.index(b"\x00", name_end + 1)
            size = struct.unpack_from("<I", data, kind_end + 1)[0]
            value = data[kind_end + 5 : kind_end + 5 + size]
            if data[place:name_end] == b"compression":
                compression = value[0]
            elif data[place:name_end] == b"dataWindow":
                window = struct.unpack("<4i", value)
            place = kind_end + 5 + size
        num_blocks = -(-(window[3] - window[1] + 1) // _LINES.get(compression, 1))
        offsets = struct.unpack_from(f"<{num_blocks}Q", data, place + 1)
        return all(
            at + 8 + struct.unpack_from("<I", data, at + 4)[0] <= len(data) for at in offsets
        )
    except (IndexError, ValueError, struct.error):
        return False
