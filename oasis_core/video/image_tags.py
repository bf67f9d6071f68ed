"""ICC profile and EXIF block of picture files: read from their bytes, put into others.

FFmpeg shows neither reliably through PyAV (18.1 fails on every picture with EXIF), and both are
simple chunks.

Source: PNG third edition (iCCP, eXIf), ISO 10918-1 with ICC.1:2022 annex B and EXIF 2.32 (APP2,
APP1), the WebP container specification (VP8X, ICCP, EXIF), TIFF 6.0 section 2.
"""

from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from .orientation import UPRIGHT, Orientation

log = logging.getLogger(__name__)

_MAX_PROFILE_BYTES = 16 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_HEAD = b"Exif\x00\x00"
_ICC_HEAD = b"ICC_PROFILE\x00"
_JPEG_PIECE = 65_000
_JPEG_MOST_PIECES = 255
_ORIENTATION, _ICC_TAG = 0x0112, 0x8773
_CAMERA_TAGS = (0x010F, 0x0110, 0x8769, 0x8825)  # make, model, and where EXIF and GPS lie
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_WEBP_ICC, _WEBP_ALPHA, _WEBP_EXIF = 0x20, 0x10, 0x08

# EXIF's eight values: what makes the stored pixels upright.
_ORIENTATIONS = {
    2: Orientation(flip_x=True),
    3: Orientation(flip_x=True, flip_y=True),
    4: Orientation(flip_y=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_x=True),
    7: Orientation(transpose=True, flip_x=True, flip_y=True),
    8: Orientation(transpose=True, flip_y=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTags:
    """What a picture file says beside its pixels."""

    orientation: Orientation = UPRIGHT
    """What makes the stored pixels upright."""
    icc: bytes | None = None
    """ICC colour profile."""
    exif: bytes | None = None
    """EXIF block (a small TIFF), with its orientation reset to upright."""
    has_loose_exif: bool = False
    """Whether camera data is spread over the file, as in a TIFF, and cannot be taken out."""


def read_image_tags(path: Path) -> ImageTags:
    """Return the tags of a PNG, JPEG, WebP or TIFF file; damaged or other ones have none.

    Args:
        path: the file.
    """
    data = path.read_bytes()
    try:
        if data.startswith(_PNG):
            icc, exif = _read_png(data)
        elif data.startswith(b"\xff\xd8"):
            icc, exif = _read_jpeg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            icc, exif = _read_webp(data)
        elif data[:4] in (b"II*\x00", b"MM\x00*"):
            entries = _Ifd(data)
            orientation = _ORIENTATIONS.get(entries.number(_ORIENTATION), UPRIGHT)
            return ImageTags(
                orientation=orientation,
                icc=entries.value(_ICC_TAG),
                has_loose_exif=any(tag in entries.entries for tag in _CAMERA_TAGS),
            )
        else:
            return ImageTags()
    except (struct.error, IndexError, ValueError, zlib.error) as error:
        log.warning("%s: its colour profile and EXIF cannot be read (%s)", path.name, error)
        return ImageTags()
    if exif is None:
        return ImageTags(icc=icc)
    try:
        entries = _Ifd(exif)
    except (struct.error, IndexError, ValueError):
        return ImageTags(icc=icc)
    orientation = _ORIENTATIONS.get(entries.number(_ORIENTATION), UPRIGHT)
    return ImageTags(orientation=orientation, icc=icc, exif=entries.with_number(_ORIENTATION, 1))


class _Ifd:
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
        kind, _, place = self.entries.get(tag, (0, 0, 0))
        code = {1: "B", 3: "H", 4: "I"}.get(kind)
        return struct.unpack_from(self.order + code, self._data, place)[0] if code else None

    def value(self, tag: int) -> bytes | None:
        kind, number, place = self.entries.get(tag, (0, 0, 0))
        size = _TYPE_SIZES.get(kind, 0) * number
        if size > 4:
            place = struct.unpack_from(self.order + "I", self._data, place)[0]
        return self._data[place : place + size] if size else None

    def with_number(self, tag: int, value: int) -> bytes:
        if tag not in self.entries:
            return self._data
        kind, _, place = self.entries[tag]
        code = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
        data = bytearray(self._data)
        struct.pack_into(self.order + code, data, place, value)
        return bytes(data)

    def with_bytes(self, tag: int, content: bytes) -> bytes:
        """Return the file with one more entry: a new directory at its end."""
        data = self._data + b"\x00" * (len(self._data) % 2)
        at = len(data)
        data += content + b"\x00" * (len(content) % 2)
        old = {t: self._data[place - 8 : place + 4] for t, (_, _, place) in self.entries.items()}
        old[tag] = struct.pack(self.order + "HHII", tag, 7, len(content), at)
        directory = struct.pack(self.order + "H", len(old))
        directory += b"".join(old[t] for t in sorted(old)) + b"\x00" * 4
        return data[:4] + struct.pack(self.order + "I", len(data)) + data[8:] + directory


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], len(_PNG)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        chunks.append((name, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png_chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def _read_png(data: bytes) -> tuple[bytes | None, bytes | None]:
    chunks = dict(reversed(_png_chunks(data)))
    icc = None
    if b"iCCP" in chunks:
        icc = _inflate(chunks[b"iCCP"].partition(b"\x00")[2][1:])
    return icc, chunks.get(b"eXIf")


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(data, _MAX_PROFILE_BYTES)
    if not stream.eof:
        raise ValueError(f"a colour profile must be whole and within {_MAX_PROFILE_BYTES} bytes")
    return content


def _jpeg_segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of the segments before the picture data."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = struct.unpack_from(">H", data, place + 2)[0]
        segments.append((data[place + 1], data[place + 4 : place + 2 + length]))
        place += 2 + length
    return segments


def _read_jpeg(data: bytes) -> tuple[bytes | None, bytes | None]:
    segments = _jpeg_segments(data)
    pieces = {
        content[len(_ICC_HEAD)]: content[len(_ICC_HEAD) + 2 :]
        for marker, content in segments
        if marker == 0xE2 and content.startswith(_ICC_HEAD)
    }
    exifs = [
        c[len(_EXIF_HEAD) :] for marker, c in segments if marker == 0xE1 and c[:6] == _EXIF_HEAD
    ]
    return b"".join(pieces[n] for n in sorted(pieces)) or None, next(iter(exifs), None)


def _webp_chunks(data: bytes) -> dict[bytes, bytes]:
    chunks, place = {}, 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        chunks.setdefault(name, data[place + 8 : place + 8 + length])
        place += 8 + length + length % 2
    return chunks


def _read_webp(data: bytes) -> tuple[bytes | None, bytes | None]:
    chunks = _webp_chunks(data)
    exif = chunks.get(b"EXIF")
    return chunks.get(b"ICCP"), exif.removeprefix(_EXIF_HEAD) if exif else None


def with_tags(data: bytes, tags: ImageTags, size: tuple[int, int], *, has_alpha: bool) -> bytes:
    """Return a freshly encoded picture file with profile and EXIF put in.

    Args:
        data: a whole PNG, JPEG, WebP or TIFF file; a TIFF gets the profile only.
        tags: what to put in; the orientation is not written, the pixels are upright.
        size: (width, height) of the picture.
        has_alpha: whether it has transparency.
    """
    if tags.icc is None and tags.exif is None:
        return data
    if data.startswith(_PNG):
        new = b""
        if tags.icc is not None:
            new += _png_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(tags.icc))
        if tags.exif is not None:
            new += _png_chunk(b"eXIf", tags.exif)
        behind_head = len(_PNG) + 25  # IHDR is always 13 bytes long
        return data[:behind_head] + new + data[behind_head:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd8" + _jpeg_tags(tags) + data[2:]
    if data[:4] == b"RIFF":
        return _webp_with(data, tags, size, has_alpha=has_alpha)
    if data[:2] not in (b"II", b"MM"):  # EXR has no place for either
        return data
    return data if tags.icc is None else _Ifd(data).with_bytes(_ICC_TAG, tags.icc)


def fitting_tags(tags: ImageTags, suffix: str) -> ImageTags:
    """The part of profile and EXIF that a format has room for: JPEG's pieces are small.

    Args:
        tags: What is to be put in.
        suffix: Ending of the picture file, in lower case.
    """
    if suffix not in (".jpg", ".jpeg"):
        return tags
    exif, icc = tags.exif, tags.icc
    return replace(
        tags,
        exif=None if exif is not None and len(exif) > _JPEG_PIECE else exif,
        icc=None if icc is not None and len(icc) > _JPEG_MOST_PIECES * _JPEG_PIECE else icc,
    )


def _jpeg_tags(tags: ImageTags) -> bytes:
    contents = []
    tags = fitting_tags(tags, ".jpg")
    if tags.exif is not None:
        contents.append((0xE1, _EXIF_HEAD + tags.exif))
    icc = tags.icc or b""
    pieces = [icc[i : i + _JPEG_PIECE] for i in range(0, len(icc), _JPEG_PIECE)]
    for number, piece in enumerate(pieces, start=1):
        contents.append((0xE2, _ICC_HEAD + bytes((number, len(pieces))) + piece))
    return b"".join(struct.pack(">BBH", 0xFF, m, len(c) + 2) + c for m, c in contents)


def _webp_with(data: bytes, tags: ImageTags, size: tuple[int, int], *, has_alpha: bool) -> bytes:
    chunks = {k: v for k, v in _webp_chunks(data).items() if k != b"VP8X"}
    flags = _WEBP_ALPHA if has_alpha else 0
    flags |= _WEBP_ICC if tags.icc is not None else 0
    flags |= _WEBP_EXIF if tags.exif is not None else 0
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    ordered = {b"VP8X": bytes((flags, 0, 0, 0)) + sides}
    ordered |= {} if tags.icc is None else {b"ICCP": tags.icc}
    ordered |= chunks
    ordered |= {} if tags.exif is None else {b"EXIF": tags.exif}
    body = b"WEBP" + b"".join(
        struct.pack("<4sI", name, len(content)) + content + b"\x00" * (len(content) % 2)
        for name, content in ordered.items()
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body
