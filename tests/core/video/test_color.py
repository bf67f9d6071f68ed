"""Colours against the equations of ITU-T H.273, written out here a second time."""

from __future__ import annotations

import av
import numpy as np
import pytest

from oasis_core.video import ColorTags, EncodeSpec, SegmentWriter, VideoReader, probe
from oasis_core.video.color import FromRgb, ToRgb, dither_to_8_bit, guess_matrix, resolve_matrix

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593), 7: (0.212, 0.087)}
SIZE = (96, 64)  # w, h
BLOCK = 16  # flat blocks: chroma subsampling changes nothing in their middle


def blocks(seed, top):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, top + 1, (SIZE[1] // BLOCK, SIZE[0] // BLOCK, 3))
    return small.repeat(BLOCK, 0).repeat(BLOCK, 1)


def middles(image):
    return image[7::BLOCK, 7::BLOCK]


def to_yuv(rgb, matrix, *, is_full, bits):
    """Return exact Y, Cb, Cr codes (not rounded) of RGB in 0..1."""
    red, blue = WEIGHTS[matrix]
    y = red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]
    pb, pr = (rgb[..., 2] - y) / (2 * (1 - blue)), (rgb[..., 0] - y) / (2 * (1 - red))
    unit = 2 ** (bits - 8)
    top = 2**bits - 1
    if is_full:
        return y * top, pb * top + 128 * unit, pr * top + 128 * unit
    return (219 * y + 16) * unit, (224 * pb + 128) * unit, (224 * pr + 128) * unit


def plane(frame, index):
    p = frame.planes[index]
    dtype = np.uint16 if frame.format.name.endswith("le") else np.uint8
    return np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width]


def convert(pixels, pixel_format, matrix, is_full):
    height, width, _ = pixels.shape
    back = FromRgb(
        width=width,
        height=height,
        pixel_format=pixel_format,
        matrix=matrix,
        is_full=is_full,
        chroma_location=0,
    )
    return back(pixels)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", list(WEIGHTS))
@pytest.mark.parametrize(
    ("pixel_format", "bits", "dtype"),
    [
        ("yuv444p", 8, np.uint8),
        ("yuv420p", 8, np.uint8),
        ("yuv444p10le", 10, np.uint16),
        ("yuv420p10le", 10, np.uint16),
        ("yuv420p12le", 12, np.uint16),
        ("yuv420p10le", 10, np.uint8),
    ],
)
def test_rgb_to_yuv_and_back(pixel_format, bits, dtype, matrix, is_full):
    top = np.iinfo(dtype).max
    rgb = blocks(matrix, top).astype(dtype)
    frame = convert(rgb, pixel_format, matrix, is_full)
    expected = to_yuv(rgb / top, matrix, is_full=is_full, bits=bits)
    # Luma is not filtered: at most half a code of rounding, and a little for swscale's arithmetic.
    assert np.abs(plane(frame, 0) - expected[0]).max() <= 0.52
    if "444" in pixel_format:
        for index in (1, 2):
            error = plane(frame, index) - np.clip(expected[index], 0, 2**bits - 1)
            assert np.abs(error).max() <= 0.6
            assert abs(error.mean()) < 0.2  # no drift; the mean of two dozen roundings varies
    frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
    again = ToRgb(ColorTags())(frame)
    assert again.dtype == (np.uint8 if bits == 8 else np.uint16)
    again_top = np.iinfo(again.dtype).max
    error = middles(again / again_top - rgb / top) * (2**bits - 1)
    # Half a code of luma and of chroma, times the largest weight of chroma in RGB, times 255/219.
    assert np.abs(error).max() <= 2.5
    assert abs(error.mean()) < 0.25


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p", "yuv444p10le", "yuv420p10le"])
def test_identity_returns_the_same_codes(clips, pixel_format, color_range):
    """Y, Cb, Cr codes of real colours survive YUV -> RGB -> YUV."""
    rgb = clips.picture(3, 96, 64)
    is_full = color_range == 2
    first = convert(rgb, pixel_format, 1, is_full)
    first.colorspace, first.color_range = 1, color_range
    second = convert(ToRgb(ColorTags())(first), pixel_format, 1, is_full)
    for index in range(3):
        error = plane(first, index).astype(int) - plane(second, index)
        # Chroma is resampled up and down again: bicubic keeps smooth chroma to a code or two.
        unit = 2 if "10" in pixel_format else 1
        assert np.abs(error).max() <= (1 if index == 0 or "444" in pixel_format else 4 * unit)
        assert abs(error.mean()) < 0.1


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("level", [0, 1, 64, 128, 200, 255])
@pytest.mark.parametrize("is_full", [False, True])
def test_grey_stays_grey_everywhere(pixel_format, level, is_full):
    rgb = np.full((18, 22, 3), level, np.uint8)
    frame = convert(rgb, pixel_format, 6, is_full)
    frame.colorspace, frame.color_range = 6, 2 if is_full else 1
    again = ToRgb(ColorTags())(frame)
    error = again / np.iinfo(again.dtype).max * 255 - level
    assert np.abs(error).max() <= 0.6  # corners included


@pytest.mark.parametrize("location", [0, 1, 2, 3])
def test_chroma_lies_where_it_is_said(location):
    ramp = np.linspace(0, 1, 64)
    rgb = np.zeros((16, 64, 3))
    rgb[..., 0] = ramp
    back = FromRgb(
        width=64,
        height=16,
        pixel_format="yuv420p",
        matrix=6,
        is_full=False,
        chroma_location=location,
    )
    chroma = plane(back((rgb * 255).astype(np.uint8)), 2)[4, 4:28].astype(float)
    exact = to_yuv(rgb, 6, is_full=False, bits=8)[2][0]
    # Left siting samples the even columns, centre siting half way to the odd ones.
    offset = 0.5 if location == 2 else 0.0
    expected = np.interp(np.arange(8, 56, 2) + offset, np.arange(64), exact)
    assert np.abs(chroma - expected).mean() < 0.6


@pytest.mark.parametrize("codec", ["libx264", "ffv1", "libvpx-vp9"])
def test_chroma_is_not_shifted_by_reading(make_clip, codec):
    """A red ramp written with left chroma comes back where it was."""
    ramp = (np.linspace(20, 235, 64)[None, :, None] * [1, 0.2, 0.2]).repeat(48, 0).astype(np.uint8)
    frame = convert(ramp, "yuv420p", 6, False)
    path = make_clip("a.mkv", codec=codec, frames=[frame], pts=1, options={"crf": "2"})
    with VideoReader(path) as reader:
        error = next(iter(reader)).pixels.astype(float) - ramp
    assert np.abs(error[8:-8, 8:-8]).mean() < 0.9
    assert abs(error[8:-8, 8:-8, 0].mean()) < 0.6  # centre for left moves red by 1.2


def test_ten_bit_ramp_keeps_its_codes():
    """A 10-bit luma ramp through RGB and back has all of its codes, not an 8-bit path's 256."""
    frame = av.VideoFrame(1024, 16, "yuv444p10le")
    for index in range(3):
        p = frame.planes[index]
        view = np.frombuffer(p, np.uint16).reshape(p.height, -1)
        view[:, :1024] = np.arange(1024) if index == 0 else 512
    frame.colorspace, frame.color_range = 1, 2
    rgb = ToRgb(ColorTags())(frame)
    assert rgb[..., 0].min() == 0
    assert rgb[..., 0].max() == 65535
    assert len(np.unique(rgb)) == 1024
    again = convert(rgb, "yuv420p10le", 1, True)
    assert np.array_equal(plane(again, 0), plane(frame, 0))


def test_deep_rgb_round_trip_is_exact():
    rgb = np.random.default_rng(0).integers(0, 1024, (16, 16, 3)).astype(np.uint16)
    wide = np.round(rgb / 1023 * 65535).astype(np.uint16)
    frame = convert(wide, "gbrp10le", 1, True)
    assert np.array_equal(frame.to_ndarray(), rgb)
    assert np.array_equal(ToRgb(ColorTags())(frame), wide)


def test_guess_is_the_players():
    assert [guess_matrix(*s) for s in ((320, 180), (720, 576), (1280, 720), (720, 1280))] == [
        6, 6, 1, 1,
    ]  # fmt: skip
    assert resolve_matrix(9, 320, 180) == 9
    assert resolve_matrix(2, 1920, 1080) == 1
    assert resolve_matrix(0, 320, 180) == 6


def test_untagged_small_clip_keeps_its_colours_when_it_becomes_hd(make_clip, tmp_path):
    """A player that guesses by size must not switch from 601 to 709 because we enlarged."""
    info = probe(make_clip(pts=1))
    assert info.color.matrix == 2
    grown = EncodeSpec.from_source(info, codec="h264", width=1280, height=720)
    assert grown.written_color.matrix == 6
    same = EncodeSpec.from_source(info, codec="h264", width=64, height=48)
    assert same.written_color == info.color


@pytest.mark.parametrize(
    "tags", [(1, 1, 1, 1), (6, 6, 6, 1), (5, 6, 5, 1), (9, 16, 9, 1), (1, 13, 6, 2)]
)
def test_tags_survive_a_segment(tmp_path, tags):
    color = ColorTags(primaries=tags[0], transfer=tags[1], matrix=tags[2], range=tags[3])
    spec = EncodeSpec(
        codec="h264", width=96, height=64, frame_rate=25, time_base=1, color=color, crf=1
    )
    rgb = (blocks(3, 180) + 30).astype(np.uint8)
    with SegmentWriter(tmp_path / "s.mkv", spec) as writer:
        writer.write(rgb, 0, 1)
    with VideoReader(tmp_path / "s.mkv") as reader:
        assert reader.info.color == color
        error = middles(next(iter(reader)).pixels.astype(float) - rgb)
    assert np.abs(error).max() <= 4
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.7


def test_dither_keeps_means_and_extremes():
    flat = np.full((64, 64, 3), 30_000, np.uint16)
    out = dither_to_8_bit(flat)
    assert set(np.unique(out)) == {116, 117}
    assert abs(out.mean() - 30_000 / 257) < 0.01
    assert dither_to_8_bit(np.full((8, 8, 3), 65535, np.uint16)).min() == 255
    assert dither_to_8_bit(np.zeros((8, 8, 3), np.uint16)).max() == 0
    exact = np.arange(256, dtype=np.uint16).repeat(3).reshape(16, 16, 3) * 257
    assert np.array_equal(dither_to_8_bit(exact), exact // 257)


@pytest.mark.parametrize("pixel_format", ["gray", "rgb565le", "rgb24", "bgra", "nv12", "yuv410p"])
def test_every_8_bit_format_reads(pixel_format):
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 200, np.uint8), "rgb24")
    frame = frame.reformat(format=pixel_format)
    frame.pts = 0
    rgb = ToRgb(ColorTags())(frame)
    assert rgb.shape == (16, 16, 3)
    assert np.abs(rgb.astype(int) - 200).max() <= 8  # rgb565 has few colours
    if pixel_format in ("rgb24", "bgra"):
        assert (rgb == 200).all()
