import pytest
import torch
import torch.nn.functional as F

from oasis_core.evaluation.flow import lucas_kanade


def textured(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, height // 4 + 2, width // 4 + 2, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic")[0, 0].clamp(0, 1)


@pytest.mark.parametrize("size", [(64, 96), (71, 50), (33, 35)])
def test_equals_the_reference_implementation(size):
    registration = pytest.importorskip("skimage.registration")
    wide = textured(size[0] + 3, size[1] + 2)
    here, there = wide[: size[0], : size[1]], wide[3:, 2:]
    expected = torch.from_numpy(registration.optical_flow_ilk(here.numpy(), there.numpy()))
    difference = (lucas_kanade(here, there) - expected).abs()
    assert difference.median() < 1e-3
    assert (difference.amax(0) > 0.05).float().mean() < 0.05


def test_finds_a_shift_in_rows_and_columns():
    wide = textured(83, 100)
    flow = lucas_kanade(wide[:80, :96], wide[3:, 2:98])
    assert flow[0, 12:-12, 12:-12].median() == pytest.approx(-3, abs=0.05)
    assert flow[1, 12:-12, 12:-12].median() == pytest.approx(-2, abs=0.05)


def test_a_flat_picture_does_not_move():
    assert lucas_kanade(torch.full((40, 40), 0.5), torch.full((40, 40), 0.5)).abs().max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (5, 3), (8, 8), (7, 40)])
def test_the_smallest_pictures_have_a_finite_flow(size):
    flow = lucas_kanade(textured(*size), textured(*size, seed=1))
    assert flow.shape == (2, *size)
    assert torch.isfinite(flow).all()
