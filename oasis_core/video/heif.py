"""Photos of the HEIF family (HEIC, AVIF) that are made of several coded pictures.

Phones store a photo as tiles, and transparency as a picture of its own. FFmpeg shows each as a
stream; here they are put together, without converting a sample.

Source: ISO/IEC 23008-12 (HEIF), clauses 6.6.2.3 (grid), 6.5.10 (rotation), 6.5.12 (mirroring);
ISO/IEC 14496-12, clause 8.11 (items).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ..remote import RemoteFile
from .errors import AV_ERRORS, VideoError, reason
from .orientation import Orientation

_BRANDS = (b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"avif", b"mif2", b"mif3", b"1pic")
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_MOST_META_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """How a still picture of a HEIF file is made."""

    primary: int
    """Number of the item that is shown."""
    kind: str
    """`grid`, or how it is coded."""
    tiles: tuple[int, ...]
    """Items that it is made of, row by row; itself if it is one."""
    columns: int
    """Tiles in a row."""
    size: tuple[int, int] | None
    """(width, height) in pixels, before turning; None where only the coded picture says it."""
    alpha: tuple[int, ...]
    """Items of its transparency, likewise; nothing for an opaque one."""
    alpha_columns: int
    orientation: Orientation
    losses: tuple[str, ...]
    """What is in the file and not read, one line each."""

    @property
    def is_made_of_parts(self) -> bool:
        """Whether more than one stream is needed."""
        return len(self.tiles) > 1 or bool(self.alpha) or self.kind == "grid"


def may_be_photo(container: av.container.InputContainer) -> bool:
    """Return whether a file's brands are those of a HEIF picture.

    FFmpeg has read them, so that no film, least of all one behind a URL, is opened a second time.
    """
    tags = container.metadata
    brands = (tags.get("major_brand", "") + tags.get("compatible_brands", "")).encode()
    return _has_photo_brand(brands)


def _has_photo_brand(brands: bytes) -> bool:
    return any(brands[i : i + 4] in _BRANDS for i in range(0, len(brands), 4))


def read_photo(path: Path | RemoteFile) -> Photo | None:
    """Return how a still HEIF picture is made; None for other files and for films.

    Args:
        path: any file.

    Raises:
        VideoError: it is made in a way that is not read.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] != b"ftyp":
            return None
        brands = head[8:12] + file.read(max(0, min(4096, struct.unpack(">I", head[:4])[0] - 12)))
        if not _has_photo_brand(brands):
            return None
        file.seek(0)
        data = file.read(_MOST_META_BYTES)
    try:
        boxes = dict(reversed(list(_boxes(data, 0, len(data)))))
        if b"meta" not in boxes or b"moov" in boxes:
            return None
        return _photo(path, data, *boxes[b"meta"])
    except (struct.error, IndexError, KeyError) as error:
        raise VideoError(
            f"{str(path)!r} is a HEIF picture whose index is damaged; copy it again"
        ) from error


def _boxes(data: bytes, start: int, end: int) -> list[tuple[bytes, tuple[int, int]]]:
    found = []
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            size, body = struct.unpack_from(">Q", data, body)[0], body + 8
        stop = end if size == 0 else start + size
        if stop < body:
            break
        found.append((name, (body, min(stop, end))))
        start = stop
    return found


def _photo(path: Path | RemoteFile, data: bytes, start: int, end: int) -> Photo:
    boxes = dict(_boxes(data, start + 4, end))
    kinds = _kinds(data, *boxes[b"iinf"])
    at = boxes[b"pitm"][0]
    primary = struct.unpack_from(">I" if data[at] else ">H", data, at + 4)[0]
    references = _references(data, *boxes[b"iref"]) if b"iref" in boxes else []
    properties = _properties(data, *boxes[b"iprp"]) if b"iprp" in boxes else {}
    kind = kinds[primary].decode("latin-1")
    if kind in ("iovl", "iden", "tmap"):
        raise VideoError(
            f"{str(path)!r} is a HEIF picture made as {kind!r}, which is not read; save it "
            "as a plain HEIC, PNG or JPEG"
        )
    losses, alpha = [], None
    for name, source, targets in references:
        if name == b"auxl" and primary in targets:
            role = properties.get(source, {}).get(b"auxC", b"")[4:].split(b"\x00")[0]
            if role in _ALPHA:
                alpha = source
            else:
                losses.append(f"auxiliary picture ({role.decode('latin-1')}): not read")
        elif name == b"thmb" and primary in targets:
            pass  # a thumbnail is made anew by whoever wants one
        elif name == b"cdsc" and primary in targets and kinds.get(source) == b"mime":
            losses.append("XMP: not taken out of a HEIF picture")
        elif name == b"cdsc" and primary in targets and kinds.get(source) == b"Exif":
            losses.append("camera data (EXIF): not taken out of a HEIF picture")
    own = properties.get(primary, {})
    if own.get(b"colr", b"")[:4] in (b"prof", b"rICC"):
        losses.append("colour profile (ICC): not taken out of a HEIF picture")
    if b"clap" in own:
        losses.append("clean aperture (clap): not applied, all pixels are upscaled")
    if any(value == b"tmap" for value in kinds.values()):
        losses.append("gain map: not read, the base picture is upscaled")
    parts = {source: t for name, source, t in references if name == b"dimg"}
    places = {item: _place(data, item, boxes) for item in (primary, alpha) if item is not None}
    tiles, columns, size = _grid(data, primary, kinds, parts, places)
    covers, alpha_columns = (), 1
    if alpha is not None:
        covers, alpha_columns, _ = _grid(data, alpha, kinds, parts, places)
    if size is None and b"ispe" in own:
        size = struct.unpack_from(">II", own[b"ispe"], 4)
    return Photo(
        primary=primary, kind=kind, tiles=tiles, columns=columns, size=size, alpha=covers,
        alpha_columns=alpha_columns, orientation=_orientation(own),
        losses=tuple(dict.fromkeys(losses)),
    )  # fmt: skip


def _kinds(data: bytes, start: int, end: int) -> dict[int, bytes]:
    start += 8 if data[start] else 6
    kinds = {}
    for name, (body, _) in _boxes(data, start, end):
        if name == b"infe" and data[body] >= 2:
            code = ">IH4s" if data[body] == 3 else ">HH4s"
            number, _, kinds_name = struct.unpack_from(code, data, body + 4)
            kinds[number] = kinds_name
    return kinds


def _references(data: bytes, start: int, end: int) -> list[tuple[bytes, int, tuple[int, ...]]]:
    code = "I" if data[start] else "H"
    size = struct.calcsize(code)
    found = []
    for name, (body, _) in _boxes(data, start + 4, end):
        source, count = struct.unpack_from(f">{code}H", data, body)
        found.append((name, source, struct.unpack_from(f">{count}{code}", data, body + size + 2)))
    return found


def _properties(data: bytes, start: int, end: int) -> dict[int, dict[bytes, bytes]]:
    boxes = _boxes(data, start, end)
    listed = [
        (name, data[place[0] : place[1]]) for name, place in _boxes(data, *dict(boxes)[b"ipco"])
    ]
    found: dict[int, dict[bytes, bytes]] = {}
    for name, (at, _) in boxes:
        if name != b"ipma":
            continue
        version, is_wide = data[at], data[at + 3] & 1
        count = struct.unpack_from(">I", data, at + 4)[0]
        at += 8
        for _ in range(count):
            item = struct.unpack_from(">I" if version else ">H", data, at)[0]
            at += 4 if version else 2
            number, at = data[at], at + 1
            for _ in range(number):
                index = struct.unpack_from(">H" if is_wide else ">B", data, at)[0]
                index, at = index & (0x7FFF if is_wide else 0x7F), at + (2 if is_wide else 1)
                if 0 < index <= len(listed):
                    key, content = listed[index - 1]
                    found.setdefault(item, {})[key] = content
    return found


def _place(data: bytes, item: int, boxes: dict[bytes, tuple[int, int]]) -> int | None:
    """Return where an item's first bytes lie; None if it is not in this file."""
    at = boxes[b"iloc"][0]
    version = data[at]
    sizes = data[at + 4] >> 4, data[at + 4] & 15, data[at + 5] >> 4, data[at + 5] & 15
    count, at = struct.unpack_from(">I" if version == 2 else ">H", data, at + 6)[0], at + 6
    at += 4 if version == 2 else 2

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(count):
        number_of = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base, places = number(sizes[2]), []
        for _ in range(number(2)):
            if version:
                number(sizes[3])
            places.append(base + number(sizes[0]))
            number(sizes[1])
        if number_of == item and places:
            return places[0] + (boxes[b"idat"][0] if method == 1 else 0)
    return None


def _grid(
    data: bytes,
    item: int,
    kinds: dict[int, bytes],
    parts: dict[int, tuple[int, ...]],
    places: dict[int, int | None],
) -> tuple[tuple[int, ...], int, tuple[int, int] | None]:
    """Return the tiles of an item, how many are in a row, and its size if it is a grid."""
    if kinds.get(item) != b"grid":
        return (item,), 1, None
    at = places[item]
    _, flags, rows, columns = struct.unpack_from(">4B", data, at)
    size = struct.unpack_from(">II" if flags & 1 else ">HH", data, at + 4)
    tiles = parts[item]
    if len(tiles) != (rows + 1) * (columns + 1):
        raise IndexError("the grid has too few tiles")
    return tiles, columns + 1, size


def _orientation(own: dict[bytes, bytes]) -> Orientation:
    """Return what makes the stored picture upright: rotation first, then mirroring."""
    quarters = own.get(b"irot", b"\x00")[0] & 3  # anticlockwise
    found = [
        Orientation(),
        Orientation(transpose=True, flip_y=True),
        Orientation(flip_x=True, flip_y=True),
        Orientation(transpose=True, flip_x=True),
    ][quarters]
    if b"imir" not in own:
        return found
    is_across = own[b"imir"][0] & 1 == 1
    return Orientation(
        transpose=found.transpose,
        flip_x=found.flip_x != is_across,
        flip_y=found.flip_y == is_across,
    )


def decode_photo(
    path: Path | RemoteFile, container: av.container.InputContainer, photo: Photo
) -> av.VideoFrame:
    """Return a photo's whole picture, with transparency if it has it.

    Args:
        path: for the sentence.
        container: the opened file.
        photo: made of parts.

    Raises:
        VideoError: a part is missing or cannot be decoded.
    """
    wanted = {*photo.tiles, *photo.alpha}
    streams = {s.id: s for s in container.streams.video if s.id in wanted}
    missing = len(wanted) - len(streams)
    frames: dict[int, av.VideoFrame] = {}
    try:
        for stream in streams.values():
            stream.codec_context.thread_count = 1
        for packet in container.demux(list(streams.values())):
            for frame in packet.decode():
                frames.setdefault(packet.stream.id, frame)
    except AV_ERRORS as error:
        raise VideoError(
            f"a tile of {str(path)!r} cannot be decoded ({reason(error)}); copy the file again"
        ) from error
    missing = len(wanted - frames.keys())
    if missing:
        raise VideoError(
            f"{missing} of {len(wanted)} parts of the picture {str(path)!r} cannot be decoded; "
            "copy it again or save it as PNG"
        )
    tiles = [frames[item] for item in photo.tiles]
    covers = [frames[item] for item in photo.alpha]
    return _put_together(path, photo, tiles, covers)


def _put_together(
    path: Path | RemoteFile, photo: Photo, tiles: list[av.VideoFrame], covers: list[av.VideoFrame]
) -> av.VideoFrame:
    first, name = tiles[0], tiles[0].format.name
    size = photo.size or (first.width, first.height)
    target = name.replace("yuvj", "yuv").replace("yuv", "yuva").replace("gbrp", "gbrap")
    target = target if covers else name
    is_gray = name.startswith("gray")
    if {t.format.name for t in tiles} != {name} or (covers and is_gray):
        raise VideoError(
            f"{str(path)!r} is made of tiles of several kinds, which is not read; save it as PNG"
        )
    if not first.format.is_planar and not is_gray:
        raise VideoError(f"{str(path)!r} is made of tiles stored as {name}; save it as PNG")
    frame = av.VideoFrame(*size, target)
    for index in range(len(first.planes)):
        _paste(path, frame, index, tiles, index, photo.columns)
    if covers:
        _paste(path, frame, len(first.planes), covers, 0, photo.alpha_columns)
    frame.color_range, frame.colorspace = first.color_range, first.colorspace
    return frame


def _paste(
    path: Path | RemoteFile,
    frame: av.VideoFrame,
    index: int,
    tiles: list[av.VideoFrame],
    source: int,
    columns: int,
) -> None:
    """Fill one plane with a plane of all tiles."""
    plane = frame.planes[index]
    bits = frame.format.components[0].bits
    dtype = np.uint16 if bits > 8 else np.uint8
    out = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
    width, height = tiles[0].planes[source].width, tiles[0].planes[source].height
    rows = -(-len(tiles) // columns)
    if width * columns < plane.width or height * rows < plane.height:
        raise VideoError(
            f"the tiles of {str(path)!r} do not fill the picture of {frame.width}x{frame.height}; "
            "copy it again or save it as PNG"
        )
    for number, tile in enumerate(tiles):
        part = tile.planes[source]
        pixels = np.frombuffer(part, dtype).reshape(part.height, -1)[:, : part.width]
        top, left = number // columns * height, number % columns * width
        room = out[top : top + height, left : left + width]
        room[...] = pixels[: room.shape[0], : room.shape[1]]
