import dataclasses

import pytest
import torch

import oasis_core
from oasis_core.config import OASIS_1_3B
from oasis_core.model.denoiser import build_model
from oasis_core.model.wan_vae import LATENT_MEAN, LATENT_STD
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.latents import denoise_to_latent

SMALL = dataclasses.replace(
    OASIS_1_3B,
    name="small-1.3b",
    width=48,
    num_layers=2,
    num_heads=4,
    ffn_width=64,
    vae_width=4,
)


@pytest.fixture(scope="module")
def upscaler():
    model = build_model(SMALL)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return VideoUpscaler(model, device="cpu", dtype="float32", model_hash="test")


@torch.inference_mode()
def test_latent_is_the_models_own_in_the_space_of_the_vae(upscaler):
    video = torch.rand(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(1))
    latent = denoise_to_latent(upscaler, video, scale=1)
    assert latent.shape == (1, 16, 2, 4, 6)
    mean, std = (torch.tensor(v).view(16, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    decoded = torch.cat(list(upscaler.model.decode((latent - mean) / std)), dim=2)
    torch.testing.assert_close(decoded, video + upscaler.model(video), atol=1e-4, rtol=1e-4)


def test_odd_sizes_and_lengths_are_filled_up(upscaler):
    seen = []
    latent = denoise_to_latent(
        upscaler,
        torch.rand(1, 3, 3, 30, 70),
        scale=2,
        tile_px=64,
        on_progress=lambda *at: seen.append(at),
    )
    assert latent.shape == (1, 16, 2, 8, 18)
    assert latent.isfinite().all()
    assert seen[-1] == (len(seen), len(seen))
    assert len(seen) > 1


def test_models_without_such_a_latent_are_refused_by_name():
    with pytest.raises(ValueError, match=r"got oasis-tiny, which predicts none"):
        denoise_to_latent(oasis_core.load(device="cpu"), torch.rand(1, 3, 1, 16, 16), scale=1)
