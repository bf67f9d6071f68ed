import math

import pytest
import torch

from oasis_core.training.adversary import Adversary, relativistic_loss
from oasis_core.training.config import StageConfig
from oasis_core.training.losses import (
    cell_error,
    charbonnier,
    draw_flat_clips,
    flat_error,
    frame_difference,
    frequency,
    grid_error,
    latent_error,
    log_mean_square,
    pixel_losses,
    root_mean_square,
)


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


def test_charbonnier_epsilon_is_its_value_at_zero():
    truth = torch.zeros(1, 3, 1, 2, 2)
    assert charbonnier(truth, truth, epsilon=0.1) == pytest.approx(0.1)


def test_frequency_of_one_wave_lies_in_its_coefficient_only():
    truth = torch.zeros(1, 1, 1, 8, 8)
    wave = 0.5 * torch.cos(2 * torch.pi * torch.arange(8) / 8)
    restored = truth + wave
    # Orthonormal: the wave's amplitude 0.5 gives one coefficient of 0.5 * 64 / 2 / 8 = 2.
    assert frequency(restored, truth) == pytest.approx(2 / (8 * 5 * 2), rel=1e-4)
    assert frequency(truth, truth) == 0


def test_latent_error_is_the_mean_square():
    latent = torch.zeros(1, 4, 2, 3, 3)
    assert latent_error(latent + 0.5, latent) == pytest.approx(0.25)


def test_a_stage_weighs_its_losses():
    stage = StageConfig(
        name="s",
        num_steps=1,
        learning_rate=1.0,
        final_learning_rate=1.0,
        temporal_weight=2.0,
        frequency_weight=3.0,
        charbonnier_epsilon=0.01,
    )
    truth = torch.rand(1, 3, 2, 8, 8)
    restored = torch.rand(1, 3, 2, 8, 8)
    parts = pixel_losses(stage, restored, truth)
    assert parts["charbonnier"] == charbonnier(restored, truth, 0.01)
    assert parts["temporal"] == 2 * frame_difference(restored, truth)
    assert parts["frequency"] == 3 * frequency(restored, truth)


def test_root_mean_square_weighs_clips_by_their_own_error():
    truth = torch.zeros(2, 3, 2, 4, 4)
    restored = torch.cat([truth[:1] + 0.3, truth[1:] + 0.1])
    assert root_mean_square(restored, truth) == pytest.approx(0.2, abs=1e-4)


def test_log_mean_square_is_the_mean_of_psnrs():
    truth = torch.zeros(2, 3, 2, 4, 4)
    restored = torch.cat([truth[:1] + 0.3, truth[1:] + 0.05])
    psnrs = [-20 * math.log10(0.3), -20 * math.log10(0.05)]
    decibels = -20 / math.log(10) * log_mean_square(restored, truth)
    assert decibels == pytest.approx(sum(psnrs) / 2, abs=0.01)
    exact = truth.clone().requires_grad_()
    log_mean_square(exact, truth).backward()
    assert torch.equal(exact.grad, truth)


@pytest.mark.parametrize("loss", [root_mean_square, log_mean_square])
def test_a_stage_may_train_for_psnr(loss):
    rates = {"learning_rate": 1.0, "final_learning_rate": 1.0}
    stage = StageConfig(
        name="s", num_steps=1, pixel_loss=loss.__name__, temporal_weight=2.0, **rates
    )
    truth, restored = torch.rand(2, 1, 3, 2, 8, 8)
    parts = pixel_losses(stage, restored, truth)
    assert parts[loss.__name__] == loss(restored, truth)
    change = loss(restored.diff(dim=2), truth.diff(dim=2))
    assert parts["temporal"] == 2 * change


def test_discriminator_learns_to_tell_and_the_generator_loss_reaches_only_the_restored():
    adversary = Adversary(seed=0, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(2, 3, 2, 32, 32, generator=generator)
    restored = torch.full_like(truth, 0.5)
    before = relativistic_loss(adversary.network(truth), adversary.network(restored))
    for step in range(20):
        adversary.train_step(restored, truth, 2e-3, noise_seeds=[2 * step, 2 * step + 1])
    after = relativistic_loss(adversary.network(truth), adversary.network(restored))
    assert after < 0.7 * before
    restored = restored.requires_grad_(True)
    for parameter in adversary.network.parameters():
        parameter.grad = None
    adversary.generator_loss(restored, truth).backward()
    assert restored.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in adversary.network.parameters())
    assert all(parameter.requires_grad for parameter in adversary.network.parameters())


def test_discriminator_state_continues_exactly():
    first, second = (Adversary(seed=0, device=torch.device("cpu")) for _ in range(2))
    clips = torch.rand(2, 1, 3, 1, 16, 16)
    first.train_step(*clips, 1e-3, noise_seeds=[0])
    second.load_state_tensors({k: v.clone() for k, v in first.state_tensors().items()})
    for adversary in (first, second):
        adversary.train_step(*clips, 1e-3, noise_seeds=[1])
    for left, right in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(left, right)


def test_cells_and_grids_are_told_from_detail():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 3, 2, 64, 64, generator=generator)
    brighter = truth + 0.1
    assert cell_error(brighter, truth) == pytest.approx(0.1, abs=1e-6)
    assert grid_error(brighter, truth) == pytest.approx(0, abs=1e-6)
    weave = torch.zeros(64, 64)
    weave[::4] = 0.1
    # A quarter of the rows is off by 0.1: 0.075 from their mean, the others by 0.025.
    assert grid_error(truth + weave, truth) == pytest.approx(0.0375, abs=1e-6)
    noise = 0.1 * torch.randn(truth.shape, generator=generator)
    assert grid_error(truth + noise, truth) < 0.02
    assert cell_error(truth, truth) == grid_error(truth, truth) == 0


def test_flat_clips_are_flat_and_their_worst_pixel_counts():
    flat = draw_flat_clips(16, seed=3)
    assert flat.shape == (16, 3, 1, 16, 16)
    assert torch.equal(flat, flat[..., :1, :1].expand_as(flat))
    assert set(flat[:4].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(flat, draw_flat_clips(16, seed=3))
    assert not torch.equal(flat, draw_flat_clips(16, seed=4))
    residual = torch.zeros(2, 3, 1, 16, 16)
    residual[0, 1, 0, 5, 7] = -0.5
    assert flat_error(residual) == pytest.approx(0.25 + 0.5 / residual.numel())
