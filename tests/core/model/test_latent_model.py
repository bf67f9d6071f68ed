"""A shrunken oasis-1.3b with random weights, from pixels to pixels."""

import dataclasses

import pytest
import torch

from oasis_core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from oasis_core.config import OASIS_1_3B
from oasis_core.model.denoiser import OasisModel, build_model
from oasis_core.model.routing import HeadPattern, HeadRouting, calibrate
from oasis_core.model.weight_precision import hold_weights, weight_dtype

SMALL = dataclasses.replace(
    OASIS_1_3B,
    name="small-1.3b",
    width=48,
    num_layers=2,
    num_heads=4,
    ffn_width=64,
    vae_width=4,
    tiny_width=4,
)
ROUTING = HeadRouting(
    patterns=((*(HeadPattern(kind) for kind in (2, 0, 1, 2)),),) * 2, window=(3, 5, 5)
)


def random_model(config=SMALL, seed=0):
    """Every tensor random, at a size that neither fades away nor saturates."""
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.copy_(1 + 0.1 * noise)
        elif parameter.ndim > 1:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.1 * noise)
    return model


def random_clip(num_frames=5, height=32, width=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, num_frames, height, width, generator=generator)


@pytest.fixture(scope="module")
def model():
    model = random_model()
    model.transformer.apply_routing(ROUTING)
    return model


def test_the_transformer_cannot_be_left_out(model):
    with pytest.raises(ValueError, match="is all transformer, so it cannot"):
        model.leave_out_transformer()


@pytest.mark.parametrize("num_frames", [1, 5, 9])
@pytest.mark.parametrize("decoder", ["wan", "tiny"])
def test_residual_is_decoded_prediction_minus_input(num_frames, decoder):
    model = random_model()
    model.choose_decoder(decoder)
    video = random_clip(num_frames)
    with torch.inference_mode():
        residual = model(video)
        part = model.wan_decoder if decoder == "wan" else model.tiny_decoder
        decoded, _ = part(model.predict_latent(video))
    assert residual.shape == video.shape
    assert decoded.std() > 0.01
    assert torch.allclose(residual + video, decoded, atol=1e-5)


def test_velocity_is_taken_from_the_input_latent():
    config = dataclasses.replace(SMALL, stem="latent", prediction="velocity", timestep=600.0)
    model = random_model(config)
    video = random_clip()
    with torch.inference_mode():
        latent = model.encode(video)
        _, velocity = model.transformer(latent)
        got = model.predict_latent(latent)
        residual = model(video)
    assert latent.shape == (1, 16, 2, 4, 6)
    velocity = velocity.unflatten(0, (1, 2)).transpose(1, 2)
    assert torch.allclose(got, latent - 0.6 * velocity, atol=1e-6)
    assert residual.shape == video.shape


def test_float32_input_is_computed_in_float32_whatever_the_weights_are_held_in(model):
    video = random_clip()
    lowered = random_model()
    lowered.transformer.apply_routing(ROUTING)
    hold_weights(lowered, torch.float16)
    with torch.inference_mode():
        precise = lowered(video)
        half = lowered(video.half())
        assert weight_dtype(lowered) == torch.float16
        hold_weights(lowered, torch.float32)
        assert torch.equal(lowered(video), precise)
    assert half.dtype == torch.float16
    assert 0 < (half.float() - precise).abs().mean() < 2e-3


@pytest.mark.parametrize(("num_frames", "pad"), [(2, 5), (4, 5), (8, 9)])
def test_other_frame_counts_are_refused(model, num_frames, pad):
    with pytest.raises(ValueError, match=rf"must be 4k\+1 .*, got {num_frames}; pad to {pad}"):
        model(random_clip(num_frames))


def test_model_without_decoder_says_so():
    config = dataclasses.replace(SMALL, decoder="none", vae_width=0, tiny_width=0)
    with pytest.raises(ValueError, match="convert it again with --vae or --tiny"):
        random_model(config)(random_clip())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoint_round_trip(tmp_path, model, dtype):
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, random_model(), ROUTING, {"licence": "CC0"}, dtype)
    loaded = load_checkpoint(path)
    assert loaded.model.config == SMALL
    assert weight_dtype(loaded.model) == dtype
    assert loaded.model.transformer.blocks[0].modulation.dtype == torch.float32
    video = random_clip()
    with torch.inference_mode():
        error = (loaded.model(video) - model(video)).abs().max()
    assert error == 0 if dtype == torch.float32 else 0 < error < 0.1


def test_only_the_chosen_decoder_is_loaded(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, random_model(), ROUTING, {})
    loaded = load_checkpoint(path, decoder="tiny").model
    assert loaded.wan_decoder is None
    assert loaded.config.decoder == "tiny"
    without = dataclasses.replace(SMALL, tiny_width=0)
    save_checkpoint(path, random_model(without), ROUTING, {})
    with pytest.raises(CheckpointError, match=r"decoder must be one that .* has \(wan\), got 'tin"):
        load_checkpoint(path, decoder="tiny")


@pytest.mark.parametrize("stem", ["unshuffle", "latent"])
def test_heads_are_calibrated_whatever_the_transformer_reads(stem):
    model = random_model(dataclasses.replace(SMALL, stem=stem))
    clips = [random_clip(5, 64, 64, seed) for seed in range(2)]
    routing = calibrate(model, clips, quotas={"window": 3, "intra": 2}, num_queries=16)
    assert sum(routing.counts(layer)[2] for layer in range(2)) == 3
    assert routing.distances.grid == (2, 4, 4)


def test_preset_has_the_public_sizes():
    with torch.device("meta"):
        model = OasisModel(OASIS_1_3B)
    decoders = sum(p.numel() for name, p in model.named_parameters() if "_decoder." in name)
    assert decoders == 73_295_331 + 272 + 9_844_611
