"""Pictures that move: WebP put together here, PNG and GIF by FFmpeg."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

import oasis_core
from oasis_core.video import (
    TimeWindow,
    VideoError,
    count_frames,
    has_streams,
    is_animated,
    list_images,
    open_source,
    probe,
)

DURATIONS = (40, 80, 120, 40, 0)
SIZE = (24, 16)


def picture(index, alpha=None):
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    pixels = np.stack([x * 9, y * 13, np.full_like(x, 40 * index)], -1).astype(np.uint8)
    return pixels if alpha is None else np.dstack((pixels, alpha))


def webp_chunks(pixels):
    """A lossless WebP's chunks of one `h w 4` picture."""
    height, width, _ = pixels.shape
    encoder = av.CodecContext.create("libwebp", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "bgra"
    encoder.time_base, encoder.options = Fraction(1, 25), {"lossless": "1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]), "bgra")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    data = b"".join(bytes(p) for p in (*encoder.encode(frame), *encoder.encode(None)))
    assert data[12:16] in (b"VP8L", b"VP8X")
    return data[12:] if data[12:16] == b"VP8L" else data[30:]


def write_webp(path, frames):
    """`frames`: (pixels `h w 4`, left, top, duration, flags)."""
    little = lambda number: int(number).to_bytes(3, "little")  # noqa: E731 - a three-byte number
    body = io.BytesIO()
    sides = little(SIZE[0] - 1) + little(SIZE[1] - 1)
    body.write(b"VP8X" + struct.pack("<I", 10) + bytes((0x12, 0, 0, 0)) + sides)
    body.write(b"ANIM" + struct.pack("<I", 6) + bytes(6))
    for pixels, left, top, duration, flags in frames:
        height, width, _ = pixels.shape
        chunks = webp_chunks(pixels)
        head = little(left // 2) + little(top // 2) + little(width - 1) + little(height - 1)
        head += little(duration) + bytes((flags,))
        payload = head + chunks
        body.write(b"ANMF" + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2))
    data = b"WEBP" + body.getvalue()
    path.write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    return path


@pytest.fixture
def animation(tmp_path):
    opaque = np.full(SIZE[::-1], 255, np.uint8)
    frames = [(picture(i, opaque), 0, 0, d, 2) for i, d in enumerate(DURATIONS)]
    return write_webp(tmp_path / "a.webp", frames)


def test_every_frame_and_time(animation):
    assert is_animated(animation)
    assert list_images(animation) is None
    assert not has_streams(animation)
    with open_source(animation) as reader:
        frames = list(reader)
        assert (reader.info.width, reader.info.height, reader.info.num_frames) == (*SIZE, 5)
    assert [frame.pts for frame in frames] == [0, 40, 120, 240, 280]
    assert [frame.duration for frame in frames] == [40, 80, 120, 40, 100]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.pixels, picture(index))
        assert (frame.alpha == 255).all()
    piece = TimeWindow(start_s=0.1, duration_s=0.15, context_frames=1)
    with open_source(animation, window=piece) as reader:
        assert [(f.pts, f.is_context) for f in reader] == [
            (40, True), (120, False), (240, False), (280, True),
        ]  # fmt: skip
    assert count_frames(animation, probe(animation), piece) == 2
    with pytest.raises(VideoError, match="before the last frame"):
        count_frames(animation, probe(animation), TimeWindow(start_s=9))
    between = TimeWindow(start_s=0.13, duration_s=0.1)
    with pytest.raises(VideoError, match=r"no frame of .* begins within 0.1 s from 0.13 s"):
        count_frames(animation, probe(animation), between)
    with open_source(animation, window=between) as reader, pytest.raises(VideoError, match="begin"):
        list(reader)


def test_blending_and_disposal(tmp_path):
    half = np.zeros((8, 8, 4), np.uint8)
    half[...] = (255, 0, 0, 128)
    ground = picture(0, np.full(SIZE[::-1], 255, np.uint8))
    path = write_webp(
        tmp_path / "a.webp",
        [(ground, 0, 0, 40, 2), (half, 4, 2, 40, 1), (half, 10, 4, 40, 2), (half, 0, 0, 40, 0)],
    )
    with open_source(path) as reader:
        frames = list(reader)
    red = ground[2:10, 4:12, :3] * (1 - 128 / 255) + np.array([255, 0, 0]) * (128 / 255)
    assert np.abs(frames[1].pixels[2:10, 4:12] - red).max() <= 1
    np.testing.assert_array_equal(frames[1].pixels[12:], ground[12:, :, :3])
    assert (frames[2].alpha[2:10, 4:10] == 0).all()  # what the second left was taken away
    assert (frames[2].alpha[4:12, 10:18] == 128).all()  # put there, not laid over
    assert (frames[2].alpha[12:] == 255).all()


def test_it_is_upscaled_as_a_film(animation, tmp_path):
    options = {"model": oasis_core.load(device="cpu", dtype="float32"), "scale": 2, "strength": 0}
    report = oasis_core.upscale_file(animation, tmp_path / "o.mkv", codec="ffv1", **options)
    assert report.frames == 5
    with open_source(tmp_path / "o.mkv") as reader:
        assert [round(f.pts * reader.info.time_base * 1000) for f in reader] == [
            0, 40, 120, 240, 280,
        ]  # fmt: skip
        assert reader.info.has_alpha
    with pytest.raises(VideoError, match="holds one picture and the source has 5"):
        oasis_core.upscale_file(animation, tmp_path / "o.jpg", **options)


def test_damage_is_one_sentence(animation):
    data = animation.read_bytes()
    animation.write_bytes(data[:-30])
    with pytest.raises(VideoError, match=r"a.webp' is truncated"):
        open_source(animation)
    place = data.index(b"VP8L", data.index(b"ANMF", data.index(b"ANMF") + 4))
    animation.write_bytes(data[: place + 8] + bytes(20) + data[place + 28 :])
    with open_source(animation) as reader, pytest.raises(VideoError, match="frame 1 of"):
        list(reader)


def test_an_animated_picture_among_others_is_refused(animation, tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    animation.replace(tmp_path / "x" / "a.webp")
    with pytest.raises(VideoError, match="is animated and cannot be one of several"):
        open_source(tmp_path / "x")


def test_gif_and_png(clips, tmp_path):
    gif = clips.write_clip(
        tmp_path / "a.gif", codec="gif", pixel_format="rgb8", pts=4, rate=Fraction(10)
    )
    with open_source(gif) as reader:
        assert not reader.info.has_alpha  # nothing is transparent
        assert [f.pts * reader.info.time_base * 10 for f in reader] == [0, 1, 2, 3]
    png = clips.write_clip(
        tmp_path / "a.png", codec="apng", pixel_format="rgb24", pts=4, rate=Fraction(10),
        container_options={}, format="apng",
    )  # fmt: skip
    assert is_animated(png)
    assert count_frames(png, probe(png)) == 4
    with open_source(png) as reader:
        frames = list(reader)
    np.testing.assert_array_equal(frames[2].pixels, clips.picture(2, 64, 48))
