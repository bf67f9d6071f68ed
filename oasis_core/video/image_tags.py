"""What lies beside the pixels of picture files: read from their bytes, put into others.

FFmpeg shows neither reliably through PyAV (18.1 fails on every picture with EXIF), and both are
simple chunks.

Source: PNG third edition (iCCP, eXIf), ISO 10918-1 with ICC.1:2022 annex B and EXIF 2.32 (APP2,
APP1), the WebP container specification (VP8X, ICCP, EXIF), TIFF 6.0 section 2.
"""

from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from .image_chunks import (
    PNG_HEAD,
    Ifd,
    jpeg_segments,
    png_chunks,
    webp_chunks,
)
from .image_notes import (
    Notes,
    behind_jpeg,
    bmp_notes,
    jpeg_notes,
    jpeg_with,
    png_notes,
    png_with,
    tiff_notes,
    tiff_with,
    webp_notes,
)
from .orientation import UPRIGHT, Orientation

log = logging.getLogger(__name__)

_MAX_PROFILE_BYTES = 16 << 20
_EXIF_HEAD = b"Exif\x00\x00"
_ICC_HEAD = b"ICC_PROFILE\x00"
_JPEG_PIECE = 65_000
_JPEG_MOST_PIECES = 255
_ORIENTATION, _ICC_TAG = 0x0112, 0x8773
_CAMERA_TAGS = (0x010F, 0x0110, 0x8769, 0x8825)  # make, model, and where EXIF and GPS lie
_WEBP_ICC, _WEBP_ALPHA, _WEBP_EXIF, _WEBP_XMP = 0x20, 0x10, 0x08, 0x04

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
    notes: Notes = field(default_factory=Notes)
    """Text, resolution and so on."""
    has_loose_exif: bool = False
    """Whether camera data is spread over the file, as in a TIFF, and cannot be taken out."""


def read_image_tags(path: Path) -> ImageTags:
    """Return the tags of a PNG, JPEG, WebP or TIFF file; damaged or other ones have none.

    Args:
        path: the file.
    """
    data = path.read_bytes()
    try:
        if data.startswith(PNG_HEAD):
            (icc, exif), notes = _read_png(data), png_notes(png_chunks(data))
        elif data.startswith(b"\xff\xd8"):
            (icc, exif), notes = (
                _read_jpeg(data),
                jpeg_notes(jpeg_segments(data), behind_jpeg(data)),
            )
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            (icc, exif), notes = _read_webp(data), webp_notes(webp_chunks(data))
        elif data[:4] in (b"II*\x00", b"MM\x00*"):
            entries = Ifd(data)
            return ImageTags(
                orientation=_ORIENTATIONS.get(entries.number(_ORIENTATION), UPRIGHT),
                icc=entries.value(_ICC_TAG),
                notes=tiff_notes(entries),
                has_loose_exif=any(tag in entries.entries for tag in _CAMERA_TAGS),
            )
        else:
            return ImageTags(notes=bmp_notes(data) if data[:2] == b"BM" else Notes())
    except (struct.error, IndexError, ValueError, zlib.error) as error:
        log.warning("%s: what lies beside its pixels cannot be read (%s)", path.name, error)
        return ImageTags()
    if exif is None:
        return ImageTags(icc=icc, notes=notes)
    try:
        entries = Ifd(exif)
    except (struct.error, IndexError, ValueError):
        return ImageTags(icc=icc, notes=notes)
    orientation = _ORIENTATIONS.get(entries.number(_ORIENTATION), UPRIGHT)
    exif = entries.with_number(_ORIENTATION, 1)
    return ImageTags(orientation=orientation, icc=icc, exif=exif, notes=notes)


def _read_png(data: bytes) -> tuple[bytes | None, bytes | None]:
    chunks = dict(reversed(png_chunks(data)))
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


def _read_jpeg(data: bytes) -> tuple[bytes | None, bytes | None]:
    segments = jpeg_segments(data)
    pieces = {
        content[len(_ICC_HEAD)]: content[len(_ICC_HEAD) + 2 :]
        for marker, content in segments
        if marker == 0xE2 and content.startswith(_ICC_HEAD)
    }
    exifs = [
        c[len(_EXIF_HEAD) :] for marker, c in segments if marker == 0xE1 and c[:6] == _EXIF_HEAD
    ]
    return b"".join(pieces[n] for n in sorted(pieces)) or None, next(iter(exifs), None)


def _read_webp(data: bytes) -> tuple[bytes | None, bytes | None]:
    chunks = webp_chunks(data)
    exif = chunks.get(b"EXIF")
    return chunks.get(b"ICCP"), exif.removeprefix(_EXIF_HEAD) if exif else None


def with_tags(data: bytes, tags: ImageTags, size: tuple[int, int], *, has_alpha: bool) -> bytes:
    """Return a freshly encoded picture file with profile and EXIF put in.

    Args:
        data: a whole PNG, JPEG, WebP or TIFF file; each gets what it has a place for.
        tags: what to put in; the orientation is not written, the pixels are upright.
        size: (width, height) of the picture.
        has_alpha: whether it has transparency.
    """
    tags = replace(tags, icc=tags.icc if is_rgb_profile(tags.icc) else None)
    if data.startswith(PNG_HEAD):
        new = []
        if tags.icc is not None:
            new.append((b"iCCP", b"ICC profile\x00\x00" + zlib.compress(tags.icc)))
        if tags.exif is not None:
            new.append((b"eXIf", tags.exif))
        return png_with(data, new, tags.notes)
    if data.startswith(b"\xff\xd8"):
        return jpeg_with(data, _jpeg_tags(tags), tags.notes)
    if data[:4] == b"RIFF":
        if tags.icc is None and tags.exif is None and tags.notes.xmp is None:
            return data
        return _webp_with(data, tags, size, has_alpha=has_alpha)
    if data[:2] not in (b"II", b"MM"):  # EXR has no place for any of it
        return data
    if tags.icc is not None:
        data = Ifd(data).with_entry(_ICC_TAG, 7, len(tags.icc), tags.icc)
    return tiff_with(data, tags.notes)


def is_rgb_profile(icc: bytes | None) -> bool:
    """Return whether a colour profile is for red, green and blue, which all results are.

    Args:
        icc: the profile; None is none.
    """
    # Shorter than a header: nothing is known of it, so it is handed on.
    return icc is not None and (len(icc) < 20 or icc[16:20] in (b"RGB ", bytes(4)))


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
    chunks = {k: v for k, v in webp_chunks(data).items() if k != b"VP8X"}
    flags = _WEBP_ALPHA if has_alpha else 0
    flags |= _WEBP_ICC if tags.icc is not None else 0
    flags |= _WEBP_XMP if tags.notes.xmp is not None else 0
    flags |= _WEBP_EXIF if tags.exif is not None else 0
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    ordered = {b"VP8X": bytes((flags, 0, 0, 0)) + sides}
    ordered |= {} if tags.icc is None else {b"ICCP": tags.icc}
    ordered |= chunks
    ordered |= {} if tags.exif is None else {b"EXIF": tags.exif}
    ordered |= {} if tags.notes.xmp is None else {b"XMP ": tags.notes.xmp}
    body = b"WEBP" + b"".join(
        struct.pack("<4sI", name, len(content)) + content + b"\x00" * (len(content) % 2)
        for name, content in ordered.items()
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body
