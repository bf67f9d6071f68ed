"""Captures of old tapes: DV with its fields, shape of pixels and 4:1:1, and very small films."""

from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_core.upscale import VideoUpscaler, upscale_file
from oasis_core.video import open_source, probe


@pytest.fixture
def upscaler(point_model):
    return VideoUpscaler(point_model, "cpu", "float32")


def dv(path, num_frames=4):
    """NTSC DV as camcorders wrote it: a bar that moves 12 pixels from field to field."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("dvvideo", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 720, 480, "yuv411p"
        stream.codec_context.sample_aspect_ratio = Fraction(8, 9)
        stream.codec_context.flags |= 1 << 18  # AV_CODEC_FLAG_INTERLACED_DCT
        for number in range(num_frames):
            grey = np.full((480, 720, 3), 60, np.uint8)
            for field in (0, 1):  # DV shows the lower one first
                left = 100 + 24 * number + 12 * field
                grey[1 - field :: 2, left : left + 80] = 200
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv411p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def combing(pixels):
    """How far rows are on average from the mean of their neighbours."""
    rows = pixels[..., 1].astype(np.float64)
    return np.abs(rows[1:-1] - 0.5 * (rows[:-2] + rows[2:])).mean()


def test_a_dv_capture_goes_through_without_combs(upscaler, tmp_path, caplog):
    source = dv(tmp_path / "tape.avi")
    info = probe(source)
    assert (info.is_interlaced, info.sample_aspect_ratio) == (True, Fraction(8, 9))
    assert info.pixel_format == "yuv411p"
    options = {"upscaler": upscaler, "size": (360, 480), "strength": 0, "codec": "ffv1"}
    results = {}
    for name, deinterlace in (("combed", False), ("whole", True)):
        upscale_file(source, tmp_path / f"{name}.mkv", deinterlace=deinterlace, **options)
        with open_source(tmp_path / f"{name}.mkv") as reader:
            results[name] = [combing(frame.pixels) for frame in reader]
            written = reader.info
        assert (written.num_frames or 4) == 4
        assert written.sample_aspect_ratio == info.sample_aspect_ratio
        assert len(results[name]) == 4
    assert "use --deinterlace" in caplog.text
    assert min(results["combed"]) > 4
    assert max(results["whole"]) < 0.2 * min(results["combed"])


@pytest.mark.parametrize("size", [(160, 120), (40, 30), (16, 12)])
def test_very_small_films_neither_fail_nor_ring(upscaler, tmp_path, clips_of_size, size):
    source = clips_of_size(size)
    upscale_file(
        source, tmp_path / "o.mkv", upscaler=upscaler, scale=4, strength=0, codec="ffv1", grain=0
    )
    with open_source(tmp_path / "o.mkv") as reader:
        pixels = np.stack([frame.pixels for frame in reader]).astype(int)
    assert pixels.shape[1:3] == (4 * size[1], 4 * size[0])
    # Bicubic's own overshoot at a hard edge is 7 % of it; ringing would come back behind it.
    row = pixels[0, size[1] * 2, :, 1]
    edge = int(np.argmax(np.abs(np.diff(row))))
    assert np.abs(row[: max(1, edge - 12)] - row[0]).max() <= 2
    assert np.abs(row[edge + 12 :] - row[-1]).max() <= 2


@pytest.fixture
def clips_of_size(tmp_path):
    def make(size):
        width, height = size
        path = tmp_path / f"small_{width}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
            for _ in range(3):
                grey = np.full((height, width, 3), 40, np.uint8)
                grey[:, width // 2 :] = 210
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="bgr0")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
