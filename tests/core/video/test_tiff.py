"""TIFF pictures beyond FFmpeg's decoder: tiles, deep numbers, associated alpha, BigTIFF."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest

from oasis_core.video import VideoError, open_source
from oasis_core.video.alpha import alpha_of
from oasis_core.video.images import to_rgb
from oasis_core.video.linear_light import light_of
from oasis_core.video.tiff import decode_tiff, read_tiff

WIDTH, HEIGHT = 50, 37
NUMBER_KINDS = {"B": 1, "H": 3, "I": 4, "Q": 16}


def write_tiff(
    path, pixels, *, tile=None, strip=None, compression=1, predictor=1, order="<", extra=(),
    photometric=None, planar=1, is_big=False, num_pages=1, sample_format=None, more=None,
):  # fmt: skip
    """Write `h w c` numbers of any type as a TIFF."""
    height, width, channels = pixels.shape
    dtype = pixels.dtype.newbyteorder(order)
    size = tile or (width, strip or height)
    sets = [pixels] if planar == 1 else [pixels[..., c : c + 1] for c in range(channels)]
    blocks = []
    for plane in sets:
        for top in range(0, height, size[1]):
            for left in range(0, width, size[0]):
                part = plane[top : top + size[1], left : left + size[0]]
                if tile:
                    missing = (size[1] - part.shape[0], size[0] - part.shape[1])
                    part = np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)))
                blocks.append(packed(part.astype(dtype), compression, predictor))
    tags = {
        256: [width], 257: [height], 258: [8 * dtype.itemsize] * channels, 259: [compression],
        262: [photometric if photometric is not None else 2 if channels > 2 else 1],
        277: [channels], 284: [planar], 317: [predictor],
        339: [sample_format or (3 if dtype.kind == "f" else 1)] * channels,
    }  # fmt: skip
    tags |= {338: list(extra)} if extra else {}
    tags |= {322: [size[0]], 323: [size[1]]} if tile else {278: [size[1]]}
    tags |= more or {}
    places, sizes = (324, 325) if tile else (273, 279)
    start = 16 if is_big else 8
    offsets = [start + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    tags |= {places: offsets, sizes: [len(block) for block in blocks]}
    data = b"".join(blocks)
    room, pointer = (8, "Q") if is_big else (4, "I")
    beside, entries = b"", b""
    for tag, values in sorted(tags.items()):
        code = "I" if max(values) > 0xFFFF or tag in (places, sizes) else "H"
        content = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(content) > room:
            place = start + len(data) + len(beside)
            beside += content + b"\0" * (len(content) % 2)
            content = struct.pack(order + pointer, place)
        entries += struct.pack(f"{order}HH{pointer}", tag, NUMBER_KINDS[code], len(values))
        entries += content.ljust(room, b"\0")
    body = data + beside
    at = start + len(body)
    count = struct.pack(order + ("Q" if is_big else "H"), len(tags))
    length = len(count) + len(entries) + room
    directories = b""
    for page in range(num_pages):
        following = at + (page + 1) * length if page + 1 < num_pages else 0
        directories += count + entries + struct.pack(order + pointer, following)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if is_big else 42)
    head += struct.pack(order + "HHQ", 8, 0, at) if is_big else struct.pack(order + "I", at)
    path.write_bytes(head + body + directories)
    return path


def packed(block, compression, predictor):
    if predictor == 2:
        whole = block.astype(block.dtype.newbyteorder("="))
        steps = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
        block = steps.astype(block.dtype)
    data = block.tobytes()
    if predictor == 3:
        rows, width, channels = block.shape
        planes = block.astype(block.dtype.newbyteorder(">")).view(np.uint8)
        planes = planes.reshape(rows, width * channels, -1).swapaxes(1, 2)
        lines = planes.reshape(rows, -1, channels)
        data = np.diff(lines, axis=1, prepend=np.zeros_like(lines[:, :1])).tobytes()
    if compression in (8, 32946):
        return zlib.compress(data)
    if compression == 32773:  # PackBits, of literal runs only
        runs = (data[i : i + 128] for i in range(0, len(data), 128))
        return b"".join(bytes((len(run) - 1,)) + run for run in runs)
    if compression == 5:  # LZW that never uses its table: a clear code before it would grow
        return lzw(data)
    return data


def lzw(data):
    bits = ""
    for index, value in enumerate(data):
        bits += f"{256:09b}" * (index % 200 == 0) + f"{value:09b}"
    bits += f"{257:09b}"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def picture(dtype, channels):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = np.stack([0.5 + 0.45 * np.sin(x / (5 + c) + y / 7) for c in range(channels)], -1)
    dtype = np.dtype(dtype)
    return (waves * (np.iinfo(dtype).max if dtype.kind == "u" else 3)).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "channels", "options"),
    [
        ("u1", 3, {"tile": (16, 16)}),
        ("u1", 3, {"tile": (32, 16), "compression": 8, "predictor": 2}),
        ("u1", 3, {"tile": (16, 32), "compression": 5}),
        ("u1", 4, {"tile": (16, 16), "compression": 32773, "extra": (2,)}),
        ("u1", 1, {"tile": (64, 64)}),
        ("u1", 1, {"tile": (16, 16), "photometric": 0}),
        ("u2", 3, {"tile": (16, 16), "compression": 32946, "predictor": 2}),
        ("u2", 3, {"tile": (16, 16), "planar": 2}),
        ("u2", 1, {"is_big": True, "strip": 10}),
        ("u1", 3, {"is_big": True, "tile": (16, 16), "compression": 5, "predictor": 2}),
        ("u4", 3, {"strip": 7}),
        ("u4", 1, {"compression": 8, "predictor": 2}),
        ("u1", 5, {"tile": (16, 16), "extra": (2, 0)}),
    ],
)
def test_whole_numbers_are_read_exactly(tmp_path, order, dtype, channels, options):
    stored = picture(dtype, channels)
    path = write_tiff(tmp_path / "a.tif", stored, order=order, **options)
    tiff = read_tiff(path)
    assert not tiff.is_for_ffmpeg
    frame = decode_tiff(tiff)
    wanted = stored if dtype != "u4" else np.rint(stored / 0xFFFFFFFF * 65535).astype(np.uint16)
    if options.get("photometric") == 0:
        wanted = np.iinfo(wanted.dtype).max - wanted
    color = wanted[..., :3] if channels > 2 else np.repeat(wanted[..., :1], 3, axis=2)
    assert np.array_equal(to_rgb(frame, "tiff"), color)
    if channels > 3:
        assert np.array_equal(alpha_of(frame), wanted[..., 3])
    assert (len(tiff.losses) == 1) == (channels == 5)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "channels", "options"),
    [
        ("f4", 3, {}),
        ("f4", 1, {}),
        ("f4", 4, {"extra": (2,)}),
        ("f4", 3, {"tile": (16, 16), "compression": 8, "predictor": 3}),
        ("f2", 3, {"strip": 5, "compression": 8, "predictor": 3}),
        ("f2", 1, {"tile": (32, 32)}),
    ],
)
def test_light_is_read_exactly(tmp_path, order, dtype, channels, options):
    stored = picture(dtype, channels)
    path = write_tiff(tmp_path / "a.tif", stored, order=order, **options)
    light, alpha = light_of(decode_tiff(read_tiff(path)), is_premultiplied=False)
    color = stored[..., :3] if channels > 2 else np.repeat(stored[..., :1], 3, axis=2)
    assert np.array_equal(light, color.astype(np.float32))
    assert (alpha is None) == (channels < 4)
    with open_source(path) as reader:
        (frame,) = reader
    assert reader.info.is_linear
    assert frame.excess.max() > 0.1  # light above 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}])
def test_colours_are_divided_by_associated_alpha(tmp_path, dtype, options):
    top = 1.0 if dtype == "f4" else np.iinfo(dtype).max
    straight = np.array([0.8, 0.4, 0.2]) * top
    stored = np.empty((HEIGHT, WIDTH, 4))
    stored[..., 3] = top / 2
    stored[..., :3] = straight / 2
    stored[:5] = 0
    stored = (stored if dtype == "f4" else np.rint(stored)).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", stored, extra=(1,), **options)
    with open_source(path) as reader:
        (frame,) = reader
    assert reader.info.has_alpha
    full = np.iinfo(frame.alpha.dtype).max
    assert abs(int(frame.alpha[20, 20]) - full / 2) <= 1
    assert (frame.alpha[:5] == 0).all()
    if dtype != "f4":
        assert np.abs(frame.pixels[20, 20] - straight).max() <= 2


def test_plain_ones_stay_with_ffmpeg_and_agree(tmp_path):
    for dtype, channels, options in (("u1", 3, {}), ("u2", 4, {"extra": (2,)}), ("u1", 1, {})):
        stored = picture(dtype, channels)
        path = write_tiff(tmp_path / "a.tif", stored, **options)
        assert read_tiff(path).is_for_ffmpeg
        with open_source(path) as reader:
            (frame,) = reader
        color = stored[..., :3] if channels > 2 else np.repeat(stored, 3, axis=2)
        assert np.array_equal(frame.pixels, color)


def test_further_pages_are_said(tmp_path):
    path = write_tiff(tmp_path / "a.tif", picture("u1", 3), num_pages=3)
    with open_source(path) as reader:
        assert reader.info.not_kept == ("2 further pages: only the first is read",)


@pytest.mark.parametrize(
    ("dtype", "channels", "options", "match"),
    [
        ("u1", 4, {"tile": (16, 16), "photometric": 5}, "CMYK"),
        ("u1", 3, {"tile": (16, 16), "photometric": 8}, "CIE"),
        ("u1", 3, {"tile": (16, 16), "more": {259: [7]}}, "JPEG"),
        ("u2", 1, {"sample_format": 2}, "signed"),
        ("f8", 1, {}, "64 bits"),
        ("u1", 3, {"tile": (16, 16), "more": {317: [9]}}, "predictor 9"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path, dtype, channels, options, match):
    path = write_tiff(tmp_path / "a.tif", picture(dtype, channels), **options)
    with pytest.raises(VideoError, match=match):
        open_source(path)


def test_damage_is_one_sentence(tmp_path):
    path = write_tiff(tmp_path / "a.tif", picture("u1", 3), tile=(16, 16), compression=8)
    data = path.read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[:60] + b"\0" * 200 + data[260:])
    with pytest.raises(VideoError, match="damaged"):
        open_source(tmp_path / "cut.tif")
    (tmp_path / "short.tif").write_bytes(data[:-40])
    with pytest.raises(VideoError, match="damaged"):
        open_source(tmp_path / "short.tif")


@pytest.mark.parametrize(
    "more",
    [
        {322: [0]}, {323: [0]}, {277: [0]}, {257: [0]}, {258: [0, 0, 0]},
        {322: [60_000], 323: [60_000]}, {256: [9, 9], 257: [40_000]},
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_one_sentence(tmp_path, more):
    path = write_tiff(tmp_path / "a.tif", picture("u1", 3), tile=(16, 16), more=more)
    with pytest.raises(VideoError):
        open_source(path)


def test_any_changed_byte_of_the_directory_is_a_picture_or_one_sentence(tmp_path):
    data = write_tiff(tmp_path / "a.tif", picture("u1", 3), tile=(32, 32)).read_bytes()
    for at in range(4, len(data)):
        if 8 <= at < len(data) - 220:  # pixels
            continue
        for value in (0, 255):
            changed = bytearray(data)
            changed[at] = value
            (tmp_path / "b.tif").write_bytes(changed)
            with suppress(VideoError):
                open_source(tmp_path / "b.tif").close()
