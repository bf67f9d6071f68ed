"""The building blocks of picture files: chunks, segments and directories, read and put together.

Source: PNG third edition, ISO 10918-1, the WebP container specification, TIFF 6.0 section 2.
"""

from __future__ import annotations

import struct
import zlib

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


class Ifd:
    """The first directory of a TIFF, which EXIF is too."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.order = {b"II": "<", b"MM": ">"}[data[:2]] if data[:2] in (b"II", b"MM") else ""
        if not self.order:
            raise ValueError("no TIFF header")
        self.start = struct.unpack_from(self.order + "I", data, 4)[0]
        count = struct.unpack_from(self.order + "H", data, self.start)[0]
        self.entries: dict[int, tuple[int, int, int]] = {}
        for index in range(count):
            place = self.start + 2 + 12 * index
            tag, kind, number, _ = struct.unpack_from(self.order + "HHI4s", data, place)
            self.entries[tag] = (kind, number, place + 8)

    def number(self, tag: int) -> int | None:
        """Return the first whole number of an entry."""
        kind, _, place = self.entries.get(tag, (0, 0, 0))
        code = {1: "B", 3: "H", 4: "I"}.get(kind)
        return struct.unpack_from(self.order + code, self._data, place)[0] if code else None

    def value(self, tag: int) -> bytes | None:
        """Return the bytes of an entry."""
        kind, number, place = self.entries.get(tag, (0, 0, 0))
        size = _TYPE_SIZES.get(kind, 0) * number
        if size > 4:
            place = struct.unpack_from(self.order + "I", self._data, place)[0]
        return self._data[place : place + size] if size else None

    def with_number(self, tag: int, value: int) -> bytes:
        """Return the file with another number in an entry; as it is if it has none."""
        if tag not in self.entries:
            return self._data
        kind, _, place = self.entries[tag]
        code = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
        data = bytearray(self._data)
        struct.pack_into(self.order + code, data, place, value)
        return bytes(data)

    def with_entry(self, tag: int, kind: int, number: int, content: bytes) -> bytes:
        """Return the file with one more entry, or another: a new directory at its end."""
        data = self._data + b"\x00" * (len(self._data) % 2)
        at = len(data)
        data += content + b"\x00" * (len(content) % 2)
        old = {t: self._data[place - 8 : place + 4] for t, (_, _, place) in self.entries.items()}
        place = content.ljust(4, b"\x00")
        if len(content) > 4:
            place = struct.pack(self.order + "I", at)
        old[tag] = struct.pack(self.order + "HHI", tag, kind, number) + place
        directory = struct.pack(self.order + "H", len(old))
        directory += b"".join(old[t] for t in sorted(old)) + b"\x00" * 4
        return data[:4] + struct.pack(self.order + "I", len(data)) + data[8:] + directory


_RESTARTS = range(0xD0, 0xD8)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return name and content of a PNG's chunks."""
    chunks, place = [], len(PNG_HEAD)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        chunks.append((name, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def jpeg_segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of the segments before the picture data."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = struct.unpack_from(">H", data, place + 2)[0]
        segments.append((data[place + 1], data[place + 4 : place + 2 + length]))
        place += 2 + length
    return segments


def jpeg_end(data: bytes) -> int | None:
    """Return where a JPEG's picture ends; None if it is cut off.

    What lies behind is no part of it, whatever it holds: a second picture, a film.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        place += 2 + (0 if marker in range(0xD0, 0xD8) else _length(data, place + 2))
        if marker != 0xDA:
            continue
        # Coded data: a marker is what is followed by neither 0 nor a restart's number.
        place = data.find(b"\xff", place)
        while 0 <= place < len(data) - 1 and (not data[place + 1] or data[place + 1] in _RESTARTS):
            place = data.find(b"\xff", place + 2)
        if place < 0:
            return None
    return len(data) if data[place : place + 2] == b"\xff\xd9" else None


def _length(data: bytes, place: int) -> int:
    return struct.unpack_from(">H", data, place)[0]


def webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the chunks of a WebP by name, the first of each."""
    chunks, place = {}, 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        chunks.setdefault(name, data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    return chunks
