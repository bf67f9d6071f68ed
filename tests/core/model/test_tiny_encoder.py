import pytest
import torch
import torch.nn.functional as F

from oasis_core.convert.keys import own_tiny_encoder_name
from oasis_core.model.tiny_encoder import TinyEncoder, stream_encode_tiny

WIDTH = 8


def published_weights(seed=0, n=WIDTH):
    """Random tensors with the names and shapes of taew2_1.pth's encoder, at a small width."""
    shapes = {"0.weight": (n, 3, 3, 3), "0.bias": (n,)}
    shapes |= {"17.weight": (16, n, 3, 3), "17.bias": (16,)}
    for first, pooled in ((2, 2), (7, 2), (12, 1)):
        shapes[f"{first}.conv.weight"] = (n, pooled * n, 1, 1)
        shapes[f"{first + 1}.weight"] = (n, n, 3, 3)
        for block in range(first + 2, first + 5):
            for conv, inputs in ((0, 2 * n), (2, n), (4, n)):
                shapes[f"{block}.conv.{conv}.weight"] = (n, inputs, 3, 3)
                shapes[f"{block}.conv.{conv}.bias"] = (n,)
    generator = torch.Generator().manual_seed(seed)
    return {
        f"encoder.{name}": torch.randn(shape, generator=generator)
        * (0.5 * torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.1)
        for name, shape in shapes.items()
    }


def published_forward(weights, video):
    """The published definition in a few lines: frame after frame, block after block."""

    def conv(name, x, stride=1):
        w = weights[f"encoder.{name}.weight"]
        bias = weights.get(f"encoder.{name}.bias")
        return F.conv2d(x, w, bias, stride=stride, padding=w.shape[-1] // 2)

    frames = list(video.unbind(2))
    frames += frames[-1:] * (-len(frames) % 4)
    frames = [F.relu(conv("0", x)) for x in frames]
    for first, pooled in ((2, 2), (7, 2), (12, 1)):
        groups = [frames[i : i + pooled] for i in range(0, len(frames), pooled)]
        frames = [conv(f"{first}.conv", torch.cat(group, 1)) for group in groups]
        frames = [conv(f"{first + 1}", x, stride=2) for x in frames]
        for block in range(first + 2, first + 5):
            pasts, outs = [torch.zeros_like(frames[0]), *frames[:-1]], []
            for x, past in zip(frames, pasts, strict=True):
                y = F.relu(conv(f"{block}.conv.0", torch.cat([x, past], 1)))
                outs.append(F.relu(x + conv(f"{block}.conv.4", F.relu(conv(f"{block}.conv.2", y)))))
            frames = outs
    return torch.stack([conv("17", x) for x in frames], dim=2)


@pytest.fixture(scope="module")
def encoder():
    encoder = TinyEncoder(WIDTH).eval()
    state = {own_tiny_encoder_name(name): x for name, x in published_weights().items()}
    encoder.load_state_dict(state, strict=True)
    return encoder


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_streaming_equals_the_published_definition(encoder, num_frames):
    video = torch.rand(2, 3, num_frames, 24, 40, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        got = stream_encode_tiny(encoder, video)
        expected = published_forward(published_weights(), video)
    assert got.shape == (2, 16, (num_frames + 3) // 4, 3, 5)
    assert expected.std() > 0.01
    assert (got - expected).abs().max() <= 1e-5


def test_at_once_equals_streamed_and_looks_no_further_than_its_four_frames(encoder):
    video = torch.rand(1, 3, 12, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        at_once, _ = encoder(video)
        assert (stream_encode_tiny(encoder, video) - at_once).abs().max() <= 1e-6
        video[:, :, 8:] = 0.5
        changed, _ = encoder(video)
    assert torch.equal(changed[:, :, :2], at_once[:, :, :2])
    assert not torch.equal(changed[:, :, 2], at_once[:, :, 2])


def test_published_size_and_names():
    with torch.device("meta"):
        encoder = TinyEncoder(64)
    assert sum(p.numel() for p in encoder.parameters()) == 1_470_928
    names = {own_tiny_encoder_name(name) for name in published_weights()}
    assert names == set(encoder.state_dict())
    others = ("decoder.1.weight", "encoder.1.weight", "encoder.18.weight", "encoder.2.weight")
    for other in (*others, "encoder.5.conv.0.surprise"):
        assert own_tiny_encoder_name(other) is None
