"""The shape of pixels in a Matroska file, which FFmpeg's muxer does not write when PyAV drives it.

FFmpeg takes it from a field of the stream that PyAV (18.1) cannot set. H.264 and H.265 say it in
their own bits; for other codecs the track's header is rewritten here, in place: a longer title of
the track makes room, and is shortened again. Remove this when PyAV sets the stream's field.

Source: RFC 8794 (EBML), RFC 9559 (Matroska) sections 5.1.4.1.28.14 and 5.1.4.1.28.15.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

FILLER = "(OASIS makes room for the pixel shape)"
"""Put behind the track's title before the header is written."""
_SEGMENT, _TRACKS, _ENTRY = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae"
_NAME, _VIDEO, _VOID, _CRC = b"\x53\x6e", b"\xe0", b"\xec", b"\xbf"
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"
_MOST_HEADER_BYTES = 1 << 22


def display_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return the smallest whole (width, height) of the shape in which a picture is shown.

    Args:
        width: pixels.
        height: pixels.
        aspect: width over height of one pixel.
    """
    if width * aspect == int(width * aspect):
        return int(width * aspect), height
    exact = Fraction(width, height) * aspect
    scale = max(1, round(height / exact.denominator))
    return exact.numerator * scale, exact.denominator * scale


def write_display_size(path: Path, size: tuple[int, int]) -> None:
    """Write how large the track with the filler is shown, and take the filler away.

    Args:
        path: a finished file; its length does not change.
        size: from `display_size`.
    """
    with path.open("r+b") as file:
        data = file.read(_MOST_HEADER_BYTES)
        place = data.index(_SEGMENT) + len(_SEGMENT)
        place += _vint(data, place)[1]
        start, stop = _child(data, place, len(data), _TRACKS)
        tracks = data[start:stop]
        at = 0
        while at < len(tracks):
            name, inside, end = _element(tracks, at)
            if name == _ENTRY and FILLER.encode() in tracks[inside:end]:
                entry = _with_size(tracks[inside:end], size)
                tracks = tracks[:inside] + entry + tracks[end:]
            at = end
        if tracks.startswith(_CRC):
            tracks = tracks[:2] + zlib.crc32(tracks[6:]).to_bytes(4, "little") + tracks[6:]
        file.seek(start)
        file.write(tracks)


def _with_size(entry: bytes, size: tuple[int, int]) -> bytes:
    """Return a track's entry of the same length with a display size and without the filler."""
    new, at = b"", 0
    while at < len(entry):
        name, inside, end = _element(entry, at)
        content = entry[inside:end]
        if name == _NAME:
            content = content.replace(FILLER.encode(), b"")
        if name == _VIDEO:
            content = _without(content, _DISPLAY_UNIT)  # FFmpeg says "unknown" there
            for key, side in zip((_DISPLAY_WIDTH, _DISPLAY_HEIGHT), size, strict=True):
                content += key + b"\x84" + side.to_bytes(4, "big")
        if content or name != _NAME:
            new += name + _length(len(content)) + content
        at = end
    room = len(entry) - len(new) - 9  # the void's own name, and its length in eight bytes
    return new + _VOID + b"\x01" + room.to_bytes(7, "big") + bytes(room)


def _without(content: bytes, unwanted: bytes) -> bytes:
    kept, at = b"", 0
    while at < len(content):
        name, _, end = _element(content, at)
        kept += content[at:end] if name != unwanted else b""
        at = end
    return kept


def _element(data: bytes, place: int) -> tuple[bytes, int, int]:
    """Return the name of an element, and where its content begins and ends."""
    id_bytes = 9 - data[place].bit_length()
    length, size_bytes = _vint(data, place + id_bytes)
    inside = place + id_bytes + size_bytes
    return data[place : place + id_bytes], inside, inside + length


def _child(data: bytes, place: int, stop: int, wanted: bytes) -> tuple[int, int]:
    while place < stop:
        name, inside, end = _element(data, place)
        if name == wanted:
            return inside, end
        place = end
    raise ValueError("no tracks in the header")


def _vint(data: bytes, place: int) -> tuple[int, int]:
    """Return an EBML length and how many bytes it takes."""
    num_bytes = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + num_bytes], "big")
    return value & ((1 << (7 * num_bytes)) - 1), num_bytes


def _length(value: int) -> bytes:
    num_bytes = next(n for n in range(1, 9) if value < (1 << (7 * n)) - 1)
    return (value | (1 << (7 * num_bytes))).to_bytes(num_bytes, "big")
