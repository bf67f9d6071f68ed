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


def overflowing():
    """Finite weights whose latent is beyond half precision."""
    model = build_model(SMALL)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.transformer.blocks[0].ffn.expand.bias.fill_(60_000)
        model.transformer.blocks[0].ffn.contract.weight.fill_(1.0)
        model.transformer.blocks[0].modulation[5].fill_(1e-3)
    return model


def test_what_overflows_is_repeated_in_float32(caplog):
    video = torch.rand(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    exact = denoise_to_latent(VideoUpscaler(overflowing(), "cpu", "float32"), video, scale=1)
    out = denoise_to_latent(VideoUpscaler(overflowing(), "cpu", "float16"), video, scale=1)
    assert "tile 0 is not finite in torch.float16; repeating in float32" in caplog.text
    assert out.isfinite().all()
    assert (out - exact).abs().max() < 0.02 * exact.abs().max()
    broken = overflowing()
    broken.transformer.head.bias.data[0] = torch.inf
    with pytest.raises(ValueError, match="latent must be finite, got NaN or infinity in tile 0"):
        denoise_to_latent(VideoUpscaler(broken, "cpu", "float16"), video, scale=1)


def test_out_of_memory_repeats_in_smaller_tiles(upscaler, monkeypatch, caplog):
    video = torch.rand(1, 3, 1, 128, 200, generator=torch.Generator().manual_seed(1))
    whole = denoise_to_latent(upscaler, video, scale=1, tile_px=96)
    predict = type(upscaler.restorer).predict_latent

    def limited(self, clip, place, most_px=110):
        if max(clip.shape[3:]) > most_px:
            raise MemoryError
        return predict(self, clip, place)

    monkeypatch.setattr(type(upscaler.restorer), "predict_latent", limited)
    out = denoise_to_latent(upscaler, video, scale=1, tile_px=192)
    assert "out of memory (MemoryError); repeating in tiles of 96 px" in caplog.text
    assert torch.equal(out, whole)
    monkeypatch.setattr(type(upscaler.restorer), "predict_latent", lambda *_: limited(*_, 8))
    with pytest.raises(ValueError, match=r"memory must hold one tile of 104 px"):
        denoise_to_latent(upscaler, video, scale=1)
