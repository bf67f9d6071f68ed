import pytest
import torch
import torch.nn.functional as F

from oasis_core.evaluation.clip_scores import compare_clips, match_clips, side_by_side, split_view


@pytest.fixture
def truth():
    generator = torch.Generator().manual_seed(0)
    wide = F.interpolate(torch.rand(1, 3, 8, 14, generator=generator), (32, 56), mode="bicubic")
    wide = wide[0].clamp(0, 1)
    return torch.stack([wide[:, :, shift : shift + 48] for shift in range(3)])  # a pan


def noisy(clip, sigma, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (clip + sigma * torch.randn(clip.shape, generator=generator)).clamp(0, 1)


def test_both_are_measured_against_the_truth(truth):
    values = compare_clips(noisy(truth, 0.1), noisy(truth, 0.02), truth)
    assert values["reference"] == "truth"
    assert values["before"]["psnr_db"] == pytest.approx(20.3, abs=0.7)
    assert values["after"]["psnr_db"] == pytest.approx(34, abs=0.7)
    assert values["after"]["ssim"] > values["before"]["ssim"]
    assert values["after"]["warping_error"] < values["before"]["warping_error"]


def test_without_truth_after_is_measured_against_before(truth):
    values = compare_clips(truth, noisy(truth, 0.02))
    assert values["reference"] == "before"
    assert values["before"]["psnr_db"] is None
    assert values["after"]["psnr_db"] == pytest.approx(34, abs=0.7)
    assert values["before"]["warping_error"] < values["after"]["warping_error"]


def test_stills_and_tiny_pictures_leave_out_what_cannot_be_measured():
    tiny = torch.rand(1, 3, 8, 40)
    values = compare_clips(tiny, tiny)
    assert values["after"] == {"psnr_db": 100.0, "ssim": None, "warping_error": None}


def test_clips_are_brought_to_one_size_and_length(truth):
    small = F.interpolate(truth, scale_factor=0.5, mode="area")
    first, second = match_clips(small[:2], truth)
    assert first.shape == second.shape == (2, 3, 32, 48)
    assert torch.equal(second, truth[:2])
    with pytest.raises(ValueError, match="must be t 3 h w"):
        match_clips(truth[:, :1], truth)


def test_views(truth):
    other = 1 - truth
    pair = side_by_side(truth, other)
    assert torch.equal(pair[..., :48], truth)
    assert torch.equal(pair[..., 48:], other)
    view = split_view(truth, other, 0.25)
    assert torch.equal(view[..., :11], truth[..., :11])
    assert (view[..., 11:13] == 1).all()
    assert torch.equal(view[..., 13:], other[..., 13:])
    with pytest.raises(ValueError, match="share must be in"):
        split_view(truth, other, 1.5)
