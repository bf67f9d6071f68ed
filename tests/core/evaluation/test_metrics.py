import pytest
import torch
import torch.nn.functional as F

from oasis_core.evaluation.metrics import psnr, psnr_y, ssim, ssim_rgb, to_uint8


def texture(t=1, h=64, w=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(t, 3, h // 4, w // 4, generator=generator)
    return F.interpolate(coarse, size=(h, w), mode="bicubic").clamp(0, 1)


def test_psnr_of_a_known_error():
    truth = torch.full((2, 3, 8, 8), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-4)


def test_psnr_is_averaged_over_frames_not_errors():
    truth = torch.zeros(2, 3, 8, 8)
    clip = truth.clone()
    clip[0] += 0.1
    clip[1] += 0.01
    assert psnr(clip, truth) == pytest.approx(30, abs=1e-3)


def test_ssim_is_one_for_equal_and_agrees_with_scikit_image():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    truth = texture()
    clip = (
        truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    ).clamp(0, 1)
    assert ssim(truth, truth) == pytest.approx(1, abs=1e-5)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    x, y = ((v * weights).sum(1)[0].numpy() for v in (clip, truth))
    _, index_map = structural_similarity(
        x,
        y,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(clip, truth) == pytest.approx(index_map[5:-5, 5:-5].mean(), abs=1e-3)


def test_rgb_ssim_sees_colour_that_luma_does_not():
    truth = texture()
    shifted = truth.clone()
    # Opposite changes of red and green that leave 0.299 R + 0.587 G as it was.
    pattern = 0.1 * texture(seed=3)[:, :1]
    shifted[:, :1] += pattern * 0.587
    shifted[:, 1:2] -= pattern * 0.299
    assert ssim(shifted, truth) == pytest.approx(1, abs=1e-4)
    assert ssim_rgb(shifted, truth) < 0.998
    assert ssim_rgb(truth, truth) == pytest.approx(1, abs=1e-5)


def test_psnr_on_y_has_the_limited_range_of_the_published_convention():
    truth = torch.full((1, 3, 16, 16), 0.5)
    # A grey error of d changes Y by d * 219/255, so PSNR-Y is 1.32 dB above PSNR.
    assert psnr_y(truth + 0.1, truth) == pytest.approx(20 + 1.322, abs=1e-2)


def test_ssim_of_tiny_frames_is_refused():
    with pytest.raises(ValueError, match="at least 11x11, got 8x8"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_to_uint8_rounds():
    assert to_uint8(torch.tensor([0.5, 1.2, -1.0])).tolist() == pytest.approx([128 / 255, 1, 0])
