"""Whether a picture file is whole, where FFmpeg's decoder returns a part without an error.

Source: ISO 10918-1 annex B (JPEG ends with EOI), the OpenEXR file layout (openexr.com): the table
of offsets behind the header names every block of a picture.
"""

from __future__ import annotations

import struct
from pathlib import Path

import av

from .errors import AV_ERRORS, VideoError
from .image_chunks import jpeg_end

_BESIDE = (*range(0xE1, 0xEE), 0xEF, 0xFE)  # APP0 and APP14 say how colours are meant
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
        is_whole = jpeg_end(data) is not None
        if is_whole and not _has_all_data(data):
            raise VideoError(
                f"{str(path)!r} is damaged: part of its picture is missing; copy or download it "
                "again"
            )
    elif head == _EXR_MAGIC:
        is_whole = _is_whole_exr(path.read_bytes())
    else:
        return
    if not is_whole:
        raise VideoError(
            f"{str(path)!r} is cut off before its last rows; copy or download it again"
        )


def _has_all_data(data: bytes) -> bool:
    """Return whether a JPEG's coded data reach to its last block.

    FFmpeg's decoder says so when it is told to be strict, which it then is with camera data, too:
    these are left away.
    """
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        end = place + 2 + struct.unpack_from(">H", data, place + 2)[0]
        if data[place + 1] not in _BESIDE:
            kept.append(data[place:end])
        place = end
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"}
    try:
        packet = av.Packet(b"".join(kept) + data[place:])
        return bool([*decoder.decode(packet), *decoder.decode(None)])
    except AV_ERRORS:
        return False


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
