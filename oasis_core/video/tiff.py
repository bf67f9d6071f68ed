"""TIFF pictures that FFmpeg's decoder gets wrong in silence or not at all.

It knows no tiles (and returns black), no BigTIFF, takes colours that are multiplied by alpha for
plain ones, and 32-bit integers for floating-point numbers. These are read here: 8, 16 and 32 bits,
whole or floating-point numbers, grey, palette and RGB with or without alpha, in strips or tiles,
not compressed or by LZW, PackBits or Deflate, with predictors. FFmpeg still undoes
LZW. Everything else is refused by name.

Source: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (Deflate); TIFF Technical Note 3 (predictor
3); the BigTIFF specification (awaresystems.be/imaging/tiff/bigtiff.html).
"""

from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from .containers import check_size
from .errors import AV_ERRORS, VideoError, reason
from .linear_light import MAX_HALF

log = logging.getLogger(__name__)

_HEADS = {b"II*\x00": "<", b"MM\x00*": ">", b"II+\x00": "<", b"MM\x00+": ">"}
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 16: "Q", 13: "I", 18: "Q"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 317, 320, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_COMPRESSIONS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 34887: "LERC",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 52546: "JPEG XL",
}  # fmt: skip
_PHOTOMETRICS = {5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 32803: "raw sensor data"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _INDEXED = 0, 1, 2, 3
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_MOST_PAGES = 100_000
# What numbers that make no sense lead to.
_DAMAGE = (struct.error, LookupError, ValueError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiff:
    """The first picture of a TIFF file."""

    path: Path
    order: str
    """`<` or `>`, as `struct` has it."""
    is_big: bool
    tags: dict[int, tuple[int, ...]]
    """Numbers by tag; texts and fractions are left out."""
    num_pages: int

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first number of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.number(_WIDTH), self.number(_HEIGHT)

    @property
    def num_color(self) -> int:
        """Channels that are colour."""
        return 3 if self.number(_PHOTOMETRIC, 1) == _RGB else 1

    @property
    def extra(self) -> tuple[int, ...]:
        """What the channels behind the colours are: 1 alpha the colours are multiplied by."""
        num_extra = max(0, self.number(_SAMPLES, 1) - self.num_color)
        return (self.tags.get(_EXTRA_SAMPLES, ()) + (0,) * num_extra)[:num_extra]

    @property
    def is_for_ffmpeg(self) -> bool:
        """Whether FFmpeg's decoder reads it as it is."""
        is_plain = self.number(_SAMPLE_FORMAT, 1) in (_UNSIGNED, 4)
        is_shallow = max(self.tags.get(_BITS, (1,))) <= 16
        is_straight = 1 not in self.extra or self.num_color != 3
        is_here = not self.is_big and _TILE_WIDTH not in self.tags and _TILES not in self.tags
        return is_plain and is_shallow and is_straight and is_here and len(self.extra) < 2

    @property
    def losses(self) -> tuple[str, ...]:
        """What is in the file and not in the picture, one line each."""
        lines = []
        if self.num_pages > 1:
            lines.append(f"{self.num_pages - 1} further pages: only the first is read")
        if len(self.extra) > 1:
            lines.append(f"{len(self.extra) - 1} further channels: only colour and alpha are read")
        return tuple(lines)


def read_tiff(path: Path) -> Tiff | None:
    """Return what the directory of a TIFF file says; None for other files.

    Args:
        path: any file.

    Raises:
        VideoError: it is a TIFF and its directory is damaged.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head not in _HEADS:
            return None
        data = head + file.read()
    order, is_big = _HEADS[head], head[2:4] in (b"+\x00", b"\x00+")
    try:
        place = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)[0]
        tags, following = _directory(data, place, order, is_big)
        num_pages, seen = 1, {place}
        while following and following not in seen and num_pages < _MOST_PAGES:
            seen.add(following)
            num_pages += 1
            following = _directory(data, following, order, is_big, is_read=False)[1]
    except _DAMAGE as error:
        raise VideoError(
            f"{str(path)!r} is a TIFF whose directory is damaged; copy it again"
        ) from error
    return Tiff(path=path, order=order, is_big=is_big, tags=tags, num_pages=num_pages)


def _directory(
    data: bytes, place: int, order: str, is_big: bool, *, is_read: bool = True
) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the numbers of one directory, and where the next one is."""
    count_code, entry_code, size = ("Q", "HHQ", 20) if is_big else ("H", "HHI", 12)
    count = struct.unpack_from(order + count_code, data, place)[0]
    first = place + struct.calcsize(order + count_code)
    room, tags = (8 if is_big else 4), {}
    for index in range(count if is_read else 0):
        at = first + index * size
        tag, kind, number = struct.unpack_from(order + entry_code, data, at)
        code = _CODES.get(kind)
        if code is None or number > len(data):
            continue
        at += size - room
        if struct.calcsize(code) * number > room:
            at = struct.unpack_from(order + ("Q" if is_big else "I"), data, at)[0]
        if number:
            tags[tag] = struct.unpack_from(f"{order}{number}{code}", data, at)
    following = struct.unpack_from(
        order + ("Q" if is_big else "I"), data, first + count * size
    )[0]  # fmt: skip
    return tags, following


def decode_tiff(tiff: Tiff) -> av.VideoFrame:
    """Return the picture of a TIFF that FFmpeg's decoder cannot be given.

    Args:
        tiff: with `is_for_ffmpeg` false.

    Returns:
        Grey or RGB, with alpha where it has it, not multiplied by it; floating-point numbers stay.

    Raises:
        VideoError: it is of a kind that is not read, or damaged.
    """
    _check(tiff)
    try:
        return _frame(_color(tiff, _samples(tiff)))
    except (*_DAMAGE, zlib.error, *AV_ERRORS) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(
            f"{str(tiff.path)!r} is damaged ({reason(error)}); copy it again"
        ) from error


def _check(tiff: Tiff) -> None:
    """Refuse what is not read, by name."""
    bits = set(tiff.tags.get(_BITS, (1,)))
    kind, compression = tiff.number(_SAMPLE_FORMAT, 1), tiff.number(_COMPRESSION, 1)
    photometric = tiff.number(_PHOTOMETRIC, 1)
    wrong = None
    if compression not in (_NONE, _LZW, *_DEFLATE, _PACKBITS):
        wrong = f"compressed by {_COMPRESSIONS.get(compression, f'method {compression}')}"
    elif photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _INDEXED):
        wrong = f"in {_PHOTOMETRICS.get(photometric, f'colour space {photometric}')}"
    elif len(bits) > 1 or bits & {8, 16, 32} != bits:
        wrong = f"of {' and '.join(str(b) for b in sorted(bits))} bits"
    elif kind == _SIGNED or kind not in (_UNSIGNED, _FLOAT, 4):
        wrong = "of signed numbers" if kind == _SIGNED else f"of numbers of kind {kind}"
    elif kind == _FLOAT and bits == {8}:
        wrong = "of floating-point numbers of 8 bits"
    elif photometric == _INDEXED and (bits != {8} or _PALETTE not in tiff.tags):
        wrong = "with a palette of more than 8 bits"
    if wrong is not None:
        raise VideoError(
            f"{str(tiff.path)!r} is a TIFF {wrong}, tiled, deep or of another kind that is not "
            "read; convert it to a plain TIFF or PNG of 8 or 16 bits"
        )
    if min(tiff.size) < 1 or tiff.number(_SAMPLES, 1) < tiff.num_color:
        raise VideoError(
            f"{str(tiff.path)!r} is damaged: it declares {tiff.size[0]}x{tiff.size[1]} pixels of "
            f"{tiff.number(_SAMPLES, 1)} channels; copy it again"
        )
    check_size(tiff.path, tiff.size)


def _samples(tiff: Tiff) -> np.ndarray:
    """Return all samples as stored, `h w c`."""
    width, height = tiff.number(_WIDTH), tiff.number(_HEIGHT)
    num_channels = tiff.number(_SAMPLES, 1)
    is_planar = tiff.number(_PLANAR, 1) == 2 and num_channels > 1
    is_tiled = _TILES in tiff.tags or _TILE_WIDTH in tiff.tags
    if is_tiled:
        size = tiff.number(_TILE_WIDTH), tiff.number(_TILE_HEIGHT)
        places = tiff.tags.get(_TILES, tiff.tags.get(_STRIPS, ()))
        lengths = tiff.tags.get(_TILE_BYTES, tiff.tags.get(_STRIP_BYTES, ()))
    else:
        size = width, min(height, tiff.number(_STRIP_ROWS, height))
        places, lengths = tiff.tags[_STRIPS], tiff.tags[_STRIP_BYTES]
    columns, rows = -(-width // size[0]), -(-height // size[1])
    planes = num_channels if is_planar else 1
    if len(places) != len(lengths) or len(places) < columns * rows * planes:
        raise ValueError(f"{len(places)} blocks of {columns * rows * planes}")
    kind = "f" if tiff.number(_SAMPLE_FORMAT, 1) == _FLOAT else "u"
    dtype = np.dtype(f"{tiff.order}{kind}{tiff.number(_BITS, 8) // 8}")
    out = np.zeros((height, width, num_channels), dtype.newbyteorder("="))
    with tiff.path.open("rb") as file:
        for index in range(columns * rows * planes):
            plane, inside = divmod(index, columns * rows)
            top, left = inside // columns * size[1], inside % columns * size[0]
            num_rows = size[1] if is_tiled else min(size[1], height - top)
            shape = (num_rows, size[0], 1 if is_planar else num_channels)
            file.seek(places[index])
            block = _block(tiff, file.read(lengths[index]), shape, dtype)
            block = block[: height - top, : width - left]
            channels = slice(plane, plane + 1) if is_planar else slice(None)
            out[top : top + block.shape[0], left : left + block.shape[1], channels] = block
    return out


def _block(tiff: Tiff, data: bytes, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """Return one strip or tile, `h w c`."""
    rows, width, channels = shape
    row_bytes = width * channels * dtype.itemsize
    data = _unpacked(tiff, data, row_bytes, rows)
    predictor = tiff.number(_PREDICTOR, 1)
    if predictor == 3 and dtype.kind == "f":
        lines = np.frombuffer(data, np.uint8).reshape(rows, -1, channels)
        lines = np.add.accumulate(lines, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, -1)
        values = np.ascontiguousarray(lines.swapaxes(1, 2)).view(f">f{dtype.itemsize}")
        return values.reshape(shape)
    if predictor == 2:
        steps = np.frombuffer(data, f"{tiff.order}u{dtype.itemsize}").reshape(shape)
        native = steps.astype(f"=u{dtype.itemsize}")
        values = np.add.accumulate(native, axis=1, dtype=native.dtype)
        return values.view(dtype.newbyteorder("="))
    if predictor != 1:
        raise VideoError(
            f"{str(tiff.path)!r} is a TIFF with predictor {predictor}, which is not read; save it "
            "without"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _unpacked(tiff: Tiff, data: bytes, row_bytes: int, rows: int) -> bytes:
    compression, num_bytes = tiff.number(_COMPRESSION, 1), row_bytes * rows
    if compression in _DEFLATE:
        data = zlib.decompressobj().decompress(data, num_bytes)
    elif compression == _PACKBITS:
        data = _runs(data, num_bytes)
    elif compression == _LZW:
        data = _by_ffmpeg(data, compression, tiff.number(_FILL_ORDER, 1), row_bytes, rows)
    if len(data) < num_bytes:
        raise ValueError(f"a block has {len(data)} of {num_bytes} bytes")
    return data[:num_bytes]


def _runs(data: bytes, num_bytes: int) -> bytes:
    """Undo PackBits, where runs may go on over the ends of rows."""
    out, place = bytearray(), 0
    while len(out) < num_bytes and place < len(data):
        head = data[place]
        if head < 128:
            out += data[place + 1 : place + 2 + head]
            place += head + 2
        else:
            if head > 128:
                out += data[place + 1 : place + 2] * (257 - head)
            place += 2 if head > 128 else 1
    return bytes(out)


def _by_ffmpeg(data: bytes, compression: int, fill_order: int, width: int, height: int) -> bytes:
    """Undo LZW: FFmpeg reads the block as a grey picture of bytes."""
    entries = {
        _WIDTH: width, _HEIGHT: height, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1,
        _FILL_ORDER: fill_order, _STRIPS: 8, _SAMPLES: 1, _STRIP_ROWS: height,
        _STRIP_BYTES: len(data),
    }  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in sorted(entries.items()))
    padded = data + b"\x00" * (len(data) % 2)
    file = struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + directory + bytes(4)
    context = av.CodecContext.create("tiff", "r")
    context.thread_count = 1
    (frame,) = context.decode(av.Packet(file))
    return np.ascontiguousarray(frame.to_ndarray()).tobytes()


def _color(tiff: Tiff, samples: np.ndarray) -> np.ndarray:
    """Return grey or RGB with or without alpha, `h w c` uint8, uint16 or float32."""
    if samples.dtype == np.uint32:
        samples = np.rint(samples / np.float64(0xFFFFFFFF) * 65535).astype(np.uint16)
    is_light = samples.dtype.kind == "f"
    samples = samples.astype(np.float32) if is_light else samples
    top = 1.0 if is_light else np.iinfo(samples.dtype).max
    color = samples[..., : tiff.num_color]
    alpha = samples[..., tiff.num_color : tiff.num_color + 1]
    if tiff.number(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        color = samples.dtype.type(top) - color
    elif tiff.number(_PHOTOMETRIC, 1) == _INDEXED:
        palette = np.array(tiff.tags[_PALETTE], np.uint16).reshape(3, -1).T
        color = palette[color[..., 0]]
        alpha = alpha.astype(np.uint16) * 257
        top = 65535
    if alpha.shape[-1] == 0:
        return color
    if tiff.extra[0] == 1:
        cover = np.clip(np.nan_to_num(alpha.astype(np.float32) / np.float32(top)), 0, 1)
        straight = color / np.where(cover > 0, cover, 1)
        if is_light:
            color = np.clip(straight, -MAX_HALF, MAX_HALF)
        else:
            color = np.rint(np.minimum(straight, top)).astype(color.dtype)
    return np.concatenate((color, alpha.astype(color.dtype)), axis=-1)


def _frame(picture: np.ndarray) -> av.VideoFrame:
    height, width, channels = picture.shape
    if channels < 3:  # grey: there are frames of grey and alpha, but swscale garbles some
        color = np.repeat(picture[..., :1], 3, axis=2)
        picture = np.concatenate((color, picture[..., 1:]), axis=-1)
    has_alpha = picture.shape[-1] == 4
    if picture.dtype.kind != "f":
        name = ("rgba" if has_alpha else "rgb24") if picture.dtype == np.uint8 else (
            "rgba64le" if has_alpha else "rgb48le"
        )  # fmt: skip
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), name)
    frame = av.VideoFrame(width, height, "gbrapf32le" if has_alpha else "gbrpf32le")
    for plane, channel in zip(frame.planes, (1, 2, 0, 3), strict=False):
        rows = np.frombuffer(plane, np.float32).reshape(height, -1)
        rows[:, :width] = picture[..., channel]
    return frame
