"""EXR in and out: light stays linear, is never clipped unsaid, and keeps its numbers."""

import av
import numpy as np
import pytest

from oasis_core.upscale import VideoUpscaler, forecast_file, upscale_file
from oasis_core.video import VideoError, probe
from oasis_core.video.image_writer import ImageEncoder, ImageSpec
from oasis_core.video.images import ImageReader
from oasis_core.video.linear_light import (
    decode_light,
    encode_light,
    from_half_bits,
    light_of,
    read_exr_header,
    to_half_bits,
)

pytestmark = pytest.mark.skipif("exr" not in av.codecs_available, reason="no EXR in this FFmpeg")


@pytest.fixture
def upscaler(point_model):
    return VideoUpscaler(point_model, device="cpu", dtype="float32")


def picture(height=24, width=40, seed=0):
    """Light from the smallest numbers to far above 1, some of it negative, in half precision."""
    random = np.random.default_rng(seed)
    light = np.exp2(random.uniform(-14, 13, (height, width, 3))) * random.choice(
        [1, 1, 1, -1], (height, width, 1)
    )
    return light.astype(np.float16).astype(np.float32)


def write(path, light, alpha=None):
    height, width, _ = light.shape
    spec = ImageSpec(
        suffix=".exr", width=width, height=height, bits=16, has_alpha=alpha is not None
    )
    codes = None if alpha is None else np.rint(alpha * 65535).astype(np.uint16)
    pixels = np.zeros(light.shape, np.uint16)
    path.write_bytes(ImageEncoder(spec).encode(pixels, codes, light=light))
    return path


def read(path):
    with av.open(str(path)) as container:
        return light_of(next(container.decode(video=0)))


def test_the_code_and_its_inverse():
    light = np.float32([0, 1e-6, 0.0031308, 0.18, 1, 1.001, 1000, 65504, -0.5, -300])
    coded = encode_light(light)
    assert np.all(np.diff(coded[:8]) > 0)
    assert coded[3] == pytest.approx(0.4614, abs=1e-4)
    assert coded[4] == pytest.approx(1, abs=1e-7)
    np.testing.assert_allclose(decode_light(coded), light, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(from_half_bits(to_half_bits(light[3:5])), np.float16(light[3:5]))


def test_identity_keeps_every_half(upscaler, tmp_path):
    source = write(tmp_path / "in.exr", picture())
    info = probe(source)
    assert (info.is_linear, info.bit_depth) == (True, 16)
    options = {"upscaler": upscaler, "scale": 1, "strength": 0}
    forecast = forecast_file(source, tmp_path / "out.exr", **options)
    report = upscale_file(source, tmp_path / "out.exr", **options)
    np.testing.assert_array_equal(read(tmp_path / "out.exr")[0], picture())
    assert report.dropped == forecast.dropped == ()


def test_bright_light_survives_enlarging(upscaler, tmp_path):
    light = np.full((24, 24, 3), 0.2, np.float32)
    light[8:16, 8:16] = 1000
    write(tmp_path / "in.exr", light)
    upscale_file(tmp_path / "in.exr", tmp_path / "out.exr", upscaler=upscaler, scale=2, strength=0)
    result = read(tmp_path / "out.exr")[0]
    assert result.shape == (48, 48, 3)
    # No ringing: in the logarithm a bicubic's overshoot would double the brightest.
    assert result.max() == pytest.approx(1000, rel=1e-3)
    assert result.min() >= 0
    assert result[22:26, 22:26].min() == pytest.approx(1000, rel=1e-3)
    assert np.median(result) == pytest.approx(0.2, rel=1e-2)


def test_transparency_is_premultiplied_in_the_file_only(upscaler, tmp_path):
    light, alpha = picture(), np.zeros((24, 40), np.float32)
    alpha[:, 10:] = 0.5
    alpha[:, 20:] = 1
    source = write(tmp_path / "in.exr", np.abs(light), alpha)
    upscale_file(source, tmp_path / "out.exr", upscaler=upscaler, scale=1, strength=0)
    for before, after in zip(read(source), read(tmp_path / "out.exr"), strict=True):
        np.testing.assert_allclose(after, before, rtol=2e-3, atol=1e-6)
    with av.open(str(tmp_path / "out.exr")) as container:
        assert next(container.decode(video=0)).format.name.startswith("gbrap")


def test_other_formats_say_what_they_cannot_hold(upscaler, tmp_path):
    source = write(tmp_path / "in.exr", picture())
    for name, what in (
        ("out.png", "light below 0 and above 1"),
        ("out.mkv", "a video holds coded"),
    ):
        report = upscale_file(source, tmp_path / name, upscaler=upscaler, scale=1, strength=0)
        assert any(what in line for line in report.dropped), name
    with ImageReader([tmp_path / "out.png"]) as reader:
        pixels = next(iter(reader)).pixels
    expected = np.clip(encode_light(picture()), 0, 1)
    assert np.abs(pixels / 65535 - expected).max() < 2 / 65535


def test_sequences_from_coded_pictures(upscaler, tmp_path):
    codes = np.linspace(0, 65535, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint16)
    encoder = ImageEncoder(ImageSpec(suffix=".png", width=40, height=24, bits=16))
    for index in range(3):
        (tmp_path / f"in_{index}.png").write_bytes(encoder.encode(codes))
    report = upscale_file(
        tmp_path / "in_%d.png", tmp_path / "o_%d.exr", upscaler=upscaler, scale=1, strength=0,
        compare="side",
    )  # fmt: skip
    assert report.frames == 3
    light = read(tmp_path / "o_2.exr")[0]
    np.testing.assert_allclose(light, decode_light(codes / np.float32(65535)), rtol=1e-3, atol=1e-7)
    assert probe(tmp_path / "o_2.compare.exr").width == 80


def test_what_is_not_read_is_named(upscaler, tmp_path, caplog):
    source = write(tmp_path / "in.exr", picture())
    data = source.read_bytes()
    extra = b"owner\x00string\x00\x04\x00\x00\x00Anna"
    named = tmp_path / "named.exr"
    named.write_bytes(data[:8] + extra + data[8:])
    assert read_exr_header(named).attributes == ("owner",)
    assert read_exr_header(source).other_channels == ()
    broken = picture()
    broken[0, 0] = np.nan
    broken[1, 1] = np.inf
    write(source, broken)
    upscale_file(source, tmp_path / "o.exr", upscaler=upscaler, scale=1, strength=0, overwrite=True)
    assert "6 samples are not finite numbers" in caplog.text
    assert read(tmp_path / "o.exr")[0].max() == 65504


def test_a_cut_file_is_one_sentence(upscaler, tmp_path):
    source = write(tmp_path / "in.exr", picture())
    source.write_bytes(source.read_bytes()[:200])
    with pytest.raises(VideoError, match="is not a picture that FFmpeg can read"):
        upscale_file(source, tmp_path / "o.exr", upscaler=upscaler, scale=1)


def test_a_header_whose_sizes_lead_back_ends(tmp_path):
    # Taken as signed, the size of this attribute leads back to its own name for ever.
    path = tmp_path / "loop.exr"
    size = (-len(b"loop\0int\0") - 4).to_bytes(4, "little", signed=True)
    path.write_bytes(b"v/1\x01" + bytes(4) + b"loop\0int\0" + size + bytes(20))
    assert read_exr_header(path).attributes in ((), ("loop",))
