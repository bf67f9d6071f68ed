import pytest
import torch
import torch.nn.functional as F

from oasis_core.convert.keys import own_tiny_name
from oasis_core.model.tiny_decoder import TinyDecoder
from oasis_core.model.wan_vae import stream_decode

WIDTH = 8
STAGES = (32, 16, 8, 8)


def published_weights(seed=0):
    """Random tensors with the names and shapes of taew2_1.pth's decoder, at a small width."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"1.weight": (STAGES[0], 16, 3, 3), "1.bias": (STAGES[0],)}
    shapes |= {"22.weight": (3, STAGES[3], 3, 3), "22.bias": (3,)}
    for stage, (n, growth) in enumerate(zip(STAGES, (1, 2, 2), strict=False)):
        first = 3 + 6 * stage
        for block in range(first, first + 3):
            for conv, inputs in ((0, 2 * n), (2, n), (4, n)):
                shapes[f"{block}.conv.{conv}.weight"] = (n, inputs, 3, 3)
                shapes[f"{block}.conv.{conv}.bias"] = (n,)
        shapes[f"{first + 4}.conv.weight"] = (n * growth, n, 1, 1)
        shapes[f"{first + 5}.weight"] = (STAGES[stage + 1], n, 3, 3)
    return {
        f"decoder.{name}": 0.1 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def published_forward(weights, latent):
    """The published definition in a few lines: frame after frame, block after block."""

    def conv(name, x, **options):
        w = weights[f"decoder.{name}.weight"]
        return F.conv2d(x, w, weights.get(f"decoder.{name}.bias"), padding=w.shape[-1] // 2)

    frames = [F.relu(conv("1", 3 * torch.tanh(x / 3))) for x in latent.unbind(2)]
    for stage, growth in enumerate((1, 2, 2)):
        first = 3 + 6 * stage
        for block in range(first, first + 3):
            pasts = [torch.zeros_like(frames[0]), *frames[:-1]]
            outs = []
            for x, past in zip(frames, pasts, strict=True):
                y = F.relu(conv(f"{block}.conv.0", torch.cat([x, past], 1)))
                y = conv(f"{block}.conv.4", F.relu(conv(f"{block}.conv.2", y)))
                outs.append(F.relu(y + x))
            frames = outs
        frames = [F.interpolate(x, scale_factor=2) for x in frames]
        frames = [y for x in frames for y in conv(f"{first + 4}.conv", x).chunk(growth, 1)]
        frames = [conv(f"{first + 5}", x) for x in frames]
    frames = [conv("22", F.relu(x)).clamp(0, 1) for x in frames]
    return torch.stack(frames[3:], dim=2)


@pytest.fixture(scope="module")
def decoder():
    decoder = TinyDecoder(WIDTH).eval()
    state = {own_tiny_name(name): x for name, x in published_weights().items()}
    decoder.load_state_dict(state, strict=True)
    return decoder


@pytest.mark.parametrize("num_latents", [1, 2, 4])
def test_equals_the_published_definition(decoder, num_latents):
    latent = torch.randn(2, 16, num_latents, 3, 5)
    with torch.inference_mode():
        got, _ = decoder(latent)
        expected = published_forward(published_weights(), latent)
    assert got.shape == (2, 3, 4 * num_latents - 3, 24, 40)
    assert 0.01 < expected.std() < 0.4  # neither flat nor all black and white
    assert (got - expected).abs().max() <= 1e-5


def test_streaming_equals_decoding_at_once(decoder):
    latent = torch.randn(1, 16, 4, 4, 3)
    with torch.inference_mode():
        at_once, _ = decoder(latent)
        streamed = torch.cat(list(stream_decode(decoder, latent)), dim=2)
    assert torch.allclose(streamed, at_once, atol=1e-5)


def test_published_size():
    with torch.device("meta"):
        decoder = TinyDecoder(64)
    assert sum(x.numel() for x in decoder.parameters()) == 9_844_611
