import pytest
import torch

from oasis_core.convert.keys import original_vae_name, own_vae_name
from oasis_core.model.live_bytes import LiveTensorBytes
from oasis_core.model.wan_vae import (
    WanDecoder,
    WanEncoder,
    decode_in_tiles,
    stream_decode,
    stream_encode,
)

WIDTH = 8


def randomised(module, seed=0):
    """The module with random gains too, and weights large enough that nothing fades away."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "gamma" in name else 0.1 * noise)
    return module.eval()


def random_latent(num_frames, height=5, width=3, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 16, num_frames, height, width, generator=generator)


@pytest.fixture(scope="module")
def decoder():
    return randomised(WanDecoder(WIDTH))


@pytest.fixture(scope="module")
def encoder():
    return randomised(WanEncoder(WIDTH), seed=1)


@pytest.fixture(scope="module")
def pair():
    """Diffusers' VAE with random weights, and ours with the same."""
    diffusers = pytest.importorskip("diffusers", reason="needs the extra test-wan")
    torch.manual_seed(0)
    theirs = randomised(diffusers.AutoencoderKLWan(base_dim=WIDTH), seed=3)
    parts = {"encoder": WanEncoder(WIDTH), "decoder": WanDecoder(WIDTH)}
    states = {name: {} for name in parts}
    for name, tensor in theirs.state_dict().items():
        part, _, own = own_vae_name(original_vae_name(name)).partition(".")
        states[part][own] = tensor.flatten() if name.endswith("gamma") else tensor
    for name, part in parts.items():
        part.load_state_dict(states[name], strict=True)
        part.eval()
    statistics = [
        torch.tensor(values).view(-1, 1, 1, 1)
        for values in (theirs.config.latents_mean, theirs.config.latents_std)
    ]
    return theirs, parts["encoder"], parts["decoder"], statistics


@pytest.mark.parametrize("num_frames", [1, 5, 9, 33])
def test_decoder_equals_diffusers(pair, num_frames):
    theirs, _, ours, (mean, deviation) = pair
    latent = random_latent((num_frames + 3) // 4, height=3, width=2)
    with torch.inference_mode():
        expected = theirs.decode(latent * deviation + mean, return_dict=False)[0] / 2 + 0.5
        got, _ = ours(latent)
    assert got.shape == (1, 3, num_frames, 24, 16)
    assert expected.std() > 0.02
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("num_frames", [1, 5, 9, 33])
def test_encoder_equals_diffusers(pair, num_frames):
    theirs, ours, _, (mean, deviation) = pair
    video = torch.rand(1, 3, num_frames, 24, 40)
    with torch.inference_mode():
        moments = theirs.encode(video * 2 - 1).latent_dist.mode()
        got, _ = ours(video)
    expected = (moments - mean) / deviation
    assert expected.std() > 0.02
    assert (got - expected).abs().max() <= 1e-5


def test_decoder_in_bfloat16_is_as_close_to_the_truth_as_diffusers(pair):
    theirs, _, ours, (mean, deviation) = pair
    latent = random_latent(3)
    with torch.inference_mode():
        truth, _ = ours(latent)
        denormalised = (latent * deviation + mean).bfloat16()
        expected = theirs.bfloat16().decode(denormalised, return_dict=False)[0].float() / 2 + 0.5
        got, _ = ours.bfloat16()(latent.bfloat16())
    theirs.float(), ours.float()
    assert (got.float() - truth).abs().mean() <= 1.2 * (expected - truth).abs().mean()


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_streaming_decode_is_bit_equal(decoder, num_frames):
    latent = random_latent(num_frames, batch=2)
    with torch.inference_mode():
        at_once, _ = decoder(latent)
        streamed = list(stream_decode(decoder, latent))
    assert [part.shape[2] for part in streamed] == [1] + [4] * (num_frames - 1)
    assert torch.equal(torch.cat(streamed, dim=2), at_once)


def test_streaming_encode_equals_encoding_at_once(encoder):
    video = torch.rand(1, 3, 13, 16, 24)
    with torch.inference_mode():
        at_once, _ = encoder(video)
        assert torch.allclose(stream_encode(encoder, video), at_once, atol=1e-5)


def test_the_cache_is_a_value_and_can_be_used_twice(decoder):
    latent = random_latent(3)
    with torch.inference_mode():
        _, cache = decoder(latent[:, :, :1])
        first, _ = decoder(latent[:, :, 1:2], cache)
        decoder(latent[:, :, 2:], cache)
        again, _ = decoder(latent[:, :, 1:2], cache)
    assert torch.equal(first, again)


def test_frames_never_see_later_latents(decoder):
    latent = random_latent(3)
    changed = latent.clone()
    changed[:, :, 2] += 1
    with torch.inference_mode():
        before, after = decoder(latent)[0], decoder(changed)[0]
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.equal(before[:, :, 5], after[:, :, 5])


def test_tiled_decode_with_the_full_halo_is_the_untiled_result(decoder):
    latent = random_latent(2, height=31, width=3)
    with torch.inference_mode():
        whole, _ = decoder(latent)
        tiled = decode_in_tiles(decoder, latent, tile=8)
        rough = decode_in_tiles(decoder, latent, tile=8, halo=2)
    assert (tiled - whole).abs().max() <= 1e-5
    assert (rough - whole).abs().max() > 1e-3
    assert rough.shape == whole.shape


def test_tiles_need_less_memory_than_the_whole(decoder):
    latent, peaks = random_latent(2, height=4, width=64), []
    for decode in (lambda: decoder(latent), lambda: decode_in_tiles(decoder, latent, tile=8)):
        with torch.inference_mode(), LiveTensorBytes() as live:
            decode()
        peaks.append(live.peak)
    assert peaks[1] < 0.7 * peaks[0]


@pytest.mark.parametrize(("tile", "halo"), [(0, 13), (8, -1)])
def test_impossible_tiles_are_refused(decoder, tile, halo):
    with pytest.raises(ValueError, match="tile must be at least 1 and halo at least 0"):
        decode_in_tiles(decoder, random_latent(1), tile, halo)


def test_gradients_reach_the_latent(decoder):
    latent = random_latent(2, height=2, width=2).requires_grad_()
    decoder(latent)[0].mean().backward()
    assert latent.grad.abs().sum() > 0


def test_published_sizes():
    with torch.device("meta"):
        encoder, decoder = WanEncoder(96), WanDecoder(96)
    counts = [sum(x.numel() for x in part.parameters()) for part in (encoder, decoder)]
    assert counts == [53_595_872 + 1_056, 73_295_331 + 272]
    assert sum(len(part.state_dict()) for part in (encoder, decoder)) == 194
