import pytest
import torch
import torch.nn.functional as F

from oasis_core.evaluation.metrics import motion, psnr, ssim, to_uint8, warping_error


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


def test_warping_error_follows_the_motion_and_sees_flicker():
    pytest.importorskip("skimage")
    wide = texture(1, 64, 96)
    truth = torch.cat([wide[..., shift : shift + 80] for shift in (0, 1, 2, 3)])
    flows = motion(truth)
    still_error = warping_error(truth, flows)
    unaligned = float((truth[1:] - truth[:-1]).square().mean() * 1000)
    assert still_error < 0.1 * unaligned
    flickering = truth.clone()
    flickering[::2] = (flickering[::2] * 0.9).clamp(0, 1)
    assert warping_error(flickering, flows) > 10 * still_error


def test_to_uint8_rounds():
    assert to_uint8(torch.tensor([0.5, 1.2, -1.0])).tolist() == pytest.approx([128 / 255, 1, 0])
