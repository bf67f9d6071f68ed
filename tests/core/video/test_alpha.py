"""Transparency comes out as it was put in, and its colours never bleed into the visible."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_core.video import EncodeSpec, SegmentWriter, VideoReader, mux
from oasis_core.video.alpha import alpha_of, bleed

SIZE = (48, 32)


def picture(top):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, top + 1, (SIZE[1] // 8, SIZE[0] // 8, 4))
    return codes.repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("rgba", 8), ("bgra", 8), ("argb", 8), ("yuva420p", 8), ("gbrap", 8), ("rgba64be", 16)],
)
def test_alpha_is_read_from_every_kind_of_format(name, bits):
    rgba = picture(2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)
    source = av.VideoFrame.from_ndarray(rgba, "rgba" if bits == 8 else "rgba64le")
    frame = source.reformat(format=name)
    error = np.abs(alpha_of(frame).astype(int) - rgba[..., 3])
    # swscale's, on the way into the test.
    assert error.max() <= (1 if name in ("yuva420p", "gbrap") else 0)


@pytest.mark.parametrize(
    ("codec", "depth", "name", "pix_fmt"),
    [
        ("ffv1", 8, "a.mkv", None),
        ("ffv1", 10, "a.mkv", None),
        ("ffv1", 16, "a.mkv", None),
        ("prores", 10, "a.mov", None),
        ("prores", 10, "a.mkv", None),
        ("ffv1", 10, "a.mkv", "yuva444p10le"),
        ("ffv1", 8, "a.mkv", "yuva420p"),
    ],
)
def test_alpha_is_written_and_read(tmp_path, codec, depth, name, pix_fmt):
    top = 255 if depth == 8 else 65535
    codes = picture(2**depth - 1)
    rgba = np.round(codes / (2**depth - 1) * top).astype(np.uint8 if depth == 8 else np.uint16)
    spec = EncodeSpec(
        codec=codec, width=SIZE[0], height=SIZE[1], frame_rate=Fraction(25),
        time_base=Fraction(1, 25), bit_depth=depth, has_alpha=True, pix_fmt=pix_fmt,
    )  # fmt: skip
    with SegmentWriter(tmp_path / "s.mkv", spec) as writer:
        for pts in range(2):
            writer.write(np.ascontiguousarray(rgba[..., :3]), pts, 1, rgba[..., 3])
    mux([tmp_path / "s.mkv"], None, tmp_path / name, spec)
    with VideoReader(tmp_path / name) as reader:
        assert reader.info.has_alpha
        frame = next(iter(reader))
    error = np.abs(frame.alpha / np.iinfo(frame.alpha.dtype).max - rgba[..., 3] / top)
    assert error.max() <= 0.5 / (2**depth - 1)
    error = np.abs(frame.pixels / np.iinfo(frame.pixels.dtype).max - rgba[..., :3] / top)
    middles = error[3::8, 3::8]  # of flat blocks: subsampled chroma changes nothing there
    # Bicubic chroma of blocks this small rings a little.
    most = {"yuva420p": 0.06, "yuva444p10le": 0.005}.get(pix_fmt, 0.03)
    assert middles.max() <= (0 if pix_fmt is None and codec == "ffv1" else most)


def test_bleed_fills_the_hidden_and_leaves_the_visible():
    pixels = np.zeros((37, 53, 3), np.uint8)
    alpha = np.zeros((37, 53), np.uint8)
    pixels[10:20, 10:30], alpha[10:20, 10:30] = (200, 100, 50), 255
    pixels[19, 10:30], alpha[19, 10:30] = (201, 99, 52), 7  # hardly visible is visible
    filled = bleed(pixels, alpha)
    assert np.array_equal(filled[alpha > 0], pixels[alpha > 0])
    assert np.abs(filled.astype(int) - (200, 100, 50)).max() <= 2
    assert pixels[0, 0, 0] == 0  # the input is not changed


@pytest.mark.parametrize("value", [0, 255])
def test_bleed_leaves_pictures_without_an_edge(value):
    pixels = np.full((5, 7, 3), 9, np.uint8)
    assert bleed(pixels, np.full((5, 7), value, np.uint8)) is pixels


def gif_picture(size, color):
    """One picture of a GIF at its top left corner, which is wiped away after it is shown."""
    codes = [code for _ in range(size * size // 2) for code in (4, color, color)] + [5]
    bits = sum(code << (3 * place) for place, code in enumerate(codes))
    data = bits.to_bytes(-(-3 * len(codes) // 8), "little")
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)]
    return (
        b"!\xf9\x04\x09\x04\x00\x03\x00"
        + struct.pack("<cHHHHBB", b",", 0, 0, size, size, 0, 2)
        + b"".join(bytes([len(piece)]) + piece for piece in pieces)
        + b"\x00"
    )


def test_a_gif_may_become_transparent_after_its_first_picture(tmp_path):
    path = tmp_path / "a.gif"
    palette = bytes((200, 30, 30, 30, 200, 30, 30, 30, 200, 0, 0, 0))
    head = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0x81, 0, 0) + palette
    path.write_bytes(head + gif_picture(16, 0) + gif_picture(8, 1) + b";")
    with VideoReader(path) as reader:
        assert reader.info.has_alpha
        first, second = reader
    assert first.alpha.min() == 255
    assert second.alpha[:8, :8].min() == 255
    assert not second.alpha[8:].any()
    path.write_bytes(head + gif_picture(16, 0) + gif_picture(16, 1) + b";")
    with VideoReader(path) as reader:
        assert not reader.info.has_alpha
        assert [tuple(frame.pixels[15, 15]) for frame in reader] == [(200, 30, 30), (30, 200, 30)]
