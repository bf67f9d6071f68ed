import math

import pytest
import torch

from oasis_core.degradation import operators
from oasis_core.degradation.codec import compress
from oasis_core.degradation.kernels import gaussian_family_kernel, sinc_kernel


def smooth_clip(t=3, h=48, w=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(t, 3, 5, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("family", ["gaussian", "generalized", "plateau"])
def test_kernels_sum_to_one_and_are_symmetric(family):
    kernel = gaussian_family_kernel(
        13, sigma_x=2.0, sigma_y=0.7, angle=0.6, beta=1.5, family=family
    )
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-6)


def test_sinc_passes_low_and_stops_high_frequencies():
    kernel = sinc_kernel(21, math.pi / 3)
    spectrum = torch.fft.fft2(kernel, s=(64, 64)).abs()
    assert spectrum[0, 0] == pytest.approx(1, abs=1e-5)
    assert spectrum[0, 4] > 0.9
    assert spectrum[0, 28] < 0.1


def test_blur_of_an_impulse_is_the_kernel():
    clip = torch.zeros(2, 3, 31, 33)
    clip[:, :, 15, 16] = 1
    kernel = gaussian_family_kernel(
        7, sigma_x=1.0, sigma_y=2.0, angle=0.3, beta=1.0, family="gaussian"
    )
    blurred = operators.blur(clip, [kernel])
    assert torch.allclose(blurred[1, 2, 12:19, 13:20], kernel.flip(0, 1), atol=1e-6)


def test_every_frame_can_have_its_own_kernel():
    clip = smooth_clip()
    kernels = [sinc_kernel(9, c) for c in (1.2, 2.0, 3.0)]
    together = operators.blur(clip, kernels)
    for i, kernel in enumerate(kernels):
        assert torch.allclose(together[i : i + 1], operators.blur(clip[i : i + 1], [kernel]))


@pytest.mark.parametrize("gray", [True, False])
def test_gaussian_noise_has_the_asked_strength_per_frame(gray):
    clip = torch.full((2, 3, 200, 200), 0.5)
    noisy = operators.gaussian_noise(clip, [0.02, 0.1], gray, torch.Generator().manual_seed(1))
    deviation = (noisy - clip).std(dim=(1, 2, 3))
    assert deviation.tolist() == pytest.approx([0.02, 0.1], rel=0.02)
    is_same_in_all_channels = torch.equal(noisy[:, 0], noisy[:, 1])
    assert is_same_in_all_channels == gray


def test_poisson_noise_grows_with_brightness():
    clip = torch.cat([torch.full((1, 3, 200, 200), v) for v in (0.1, 0.9)])
    noisy = operators.poisson_noise(clip, [1.0], False, torch.Generator().manual_seed(1))
    deviation = ((noisy - clip) * 255).std(dim=(1, 2, 3))
    assert deviation.tolist() == pytest.approx([(255 * v) ** 0.5 for v in (0.1, 0.9)], rel=0.03)


def test_jpeg_is_gentle_at_100_and_worse_with_lower_quality():
    clip = smooth_clip()
    errors = [(operators.jpeg(clip, [q]) - clip).abs().mean().item() for q in (100, 60, 10)]
    assert errors[0] < 0.006
    assert errors[0] < errors[1] < errors[2]


def test_jpeg_agrees_with_a_real_encoder():
    pytest.importorskip("PIL")
    import io

    import numpy as np
    from PIL import Image

    clip = smooth_clip(t=1)
    pixels = (clip[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40, subsampling="4:2:0")
    real = np.asarray(Image.open(buffer)).astype("float32")
    ours = (operators.jpeg(clip, [40.0])[0].permute(1, 2, 0) * 255).numpy()
    assert abs(ours - real).mean() < 1.0
    assert abs(pixels.astype("float32") - real).mean() > abs(ours - real).mean()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libx265"])
@pytest.mark.parametrize("size", [(48, 64), (9, 13), (35, 50)])
def test_codecs_keep_frames_and_size_and_lose_something(codec, size):
    clip = smooth_clip(5, *size) + 0.05 * torch.rand(5, 3, *size)
    result = compress(clip.clamp(0, 1), codec, 28)
    assert result.shape == clip.shape
    assert 0.001 < (result - clip).abs().mean() < 0.2


def test_worse_quality_is_worse():
    clip = (smooth_clip(4) + 0.1 * torch.rand(4, 3, 48, 64)).clamp(0, 1)
    errors = [(compress(clip, "libx264", q) - clip).abs().mean() for q in (16, 26, 36)]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize(("codec", "quality"), [("libx264", 17), ("mpeg4", 4)])
@pytest.mark.parametrize("level", [40, 120, 200])
def test_compression_keeps_the_mean_brightness_and_colour(codec, quality, level):
    noise = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    clip = ((level + 8 * noise) / 255).mul(255).round().clamp(0, 255) / 255
    drift = (compress(clip, codec, quality) - clip).mean(dim=(0, 2, 3)) * 255
    # Conversions that truncate would be off by one level or more.
    assert drift.abs().max() < 0.5
