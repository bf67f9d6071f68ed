import pytest
import torch

from oasis_core.training.losses import charbonnier, frame_difference


def test_charbonnier_is_the_absolute_error_for_large_differences():
    truth = torch.zeros(1, 3, 2, 4, 4)
    assert charbonnier(truth + 0.5, truth) == pytest.approx(0.5, abs=1e-5)
    assert charbonnier(truth, truth) == pytest.approx(1e-3)


def test_charbonnier_has_a_gradient_at_zero():
    restored = torch.zeros(1, 3, 1, 2, 2, requires_grad=True)
    charbonnier(restored, torch.zeros_like(restored)).backward()
    assert torch.isfinite(restored.grad).all()


def test_frame_difference_ignores_a_constant_error_and_sees_flicker():
    truth = torch.rand(1, 3, 4, 4, 4)
    assert frame_difference(truth + 0.1, truth) == pytest.approx(0, abs=1e-6)
    flicker = truth.clone()
    flicker[:, :, ::2] += 0.1
    assert frame_difference(flicker, truth) == pytest.approx(0.1, abs=1e-5)
    assert frame_difference(truth[:, :, :1], truth[:, :, :1]) == 0
