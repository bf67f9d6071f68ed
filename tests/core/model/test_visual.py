"""The visual encoder against a plain definition of Swin, written frame by frame from the paper."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from oasis_core.convert.visual_keys import own_visual_name
from oasis_core.model.visual import NUM_TOKENS, VisualEncoder, feature_channels, prepare_picture

WIDTH, OUT = 32, 12
DEPTHS = (2, 2, 4, 2)
HEADS = (1, 2, 4, 8)


def published_weights(seed=0, depths=DEPTHS):
    """Random tensors with the names and shapes of RAM's file, at a small width."""
    shapes = {
        "visual_encoder.patch_embed.proj.weight": (WIDTH, 3, 4, 4),
        "visual_encoder.patch_embed.proj.bias": (WIDTH,),
        "image_proj.weight": (OUT, 8 * WIDTH),
        "image_proj.bias": (OUT,),
    }

    def norm(name, n):
        shapes.update({f"visual_encoder.{name}.{p}": (n,) for p in ("weight", "bias")})

    def linear(name, inputs, outputs, bias=True):
        shapes[f"visual_encoder.{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"visual_encoder.{name}.bias"] = (outputs,)

    norm("patch_embed.norm", WIDTH)
    for stage, depth in enumerate(depths):
        n = WIDTH * 2**stage
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            norm(f"{prefix}.norm1", n)
            norm(f"{prefix}.norm2", n)
            linear(f"{prefix}.attn.qkv", n, 3 * n)
            linear(f"{prefix}.attn.proj", n, n)
            shapes[f"visual_encoder.{prefix}.attn.relative_position_bias_table"] = (529, n // 32)
            linear(f"{prefix}.mlp.fc1", n, 4 * n)
            linear(f"{prefix}.mlp.fc2", 4 * n, n)
        if stage < 3:
            norm(f"layers.{stage}.downsample.norm", 4 * n)
            linear(f"layers.{stage}.downsample.reduction", 4 * n, 2 * n, bias=False)
    norm("norm", 8 * WIDTH)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        scale = torch.Size(shape[1:]).numel() ** -0.5 if len(shape) > 1 else 0.3
        scale = 1.0 if "bias_table" in name else scale
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        tensors[name] = mean + scale * torch.randn(shape, generator=generator)
    return tensors


def plain_forward(weights, image):
    """Each query looks its neighbours up by their coordinates; no windows are cut, none rolled."""

    def get(name):
        return weights[f"visual_encoder.{name}"]

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"))

    def linear(name, x):
        return F.linear(x, get(f"{name}.weight"), weights.get(f"visual_encoder.{name}.bias"))

    x = F.conv2d(image, get("patch_embed.proj.weight"), get("patch_embed.proj.bias"), stride=4)
    x = norm("patch_embed.norm", x.permute(0, 2, 3, 1))
    for stage, depth in enumerate(DEPTHS):
        side = x.shape[1]
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            shift = 6 if block % 2 and side > 12 else 0
            x = x + plain_attention(prefix, norm(f"{prefix}.norm1", x), linear, get, shift)
            y = F.gelu(linear(f"{prefix}.mlp.fc1", norm(f"{prefix}.norm2", x)))
            x = x + linear(f"{prefix}.mlp.fc2", y)
        if stage < 3:
            corners = [x[:, r::2, c::2] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = norm(f"layers.{stage}.downsample.norm", torch.cat(corners, dim=-1))
            x = linear(f"layers.{stage}.downsample.reduction", x)
    x = norm("norm", x).flatten(1, 2)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
    return F.linear(x, weights["image_proj.weight"], weights["image_proj.bias"])


def plain_attention(prefix, x, linear, get, shift):
    """Shifted windows as a partition of the plane: borders at shift, shift + 12, ..."""
    batch, side, _, channels = x.shape
    heads = channels // 32
    q, k, v = linear(f"{prefix}.attn.qkv", x).view(batch, side, side, 3, heads, 32).unbind(3)
    table = get(f"{prefix}.attn.relative_position_bias_table")
    out = torch.zeros(batch, side, side, heads, 32)
    borders = sorted({0, side, *range(shift or 12, side, 12)})
    spans = list(itertools.pairwise(borders))
    for top, bottom in spans:
        for left, right in spans:
            box = (slice(None), slice(top, bottom), slice(left, right))
            rows, columns = torch.meshgrid(
                torch.arange(bottom - top), torch.arange(right - left), indexing="ij"
            )
            rows, columns = rows.flatten(), columns.flatten()
            dy, dx = (y[:, None] - y[None, :] + 11 for y in (rows, columns))
            bias = table[dy * 23 + dx].permute(2, 0, 1)
            parts = [y[box].flatten(1, 2).transpose(1, 2) for y in (q, k, v)]
            scores = parts[0] @ parts[1].transpose(-1, -2) * 32**-0.5 + bias
            mixed = (scores.softmax(dim=-1) @ parts[2]).transpose(1, 2)
            out[box] = mixed.view(batch, bottom - top, right - left, heads, 32)
    return linear(f"{prefix}.attn.proj", out.flatten(3))


@pytest.fixture(scope="module")
def encoder():
    encoder = VisualEncoder(WIDTH, OUT, DEPTHS).eval()
    state = {own_visual_name(name): x for name, x in published_weights().items()}
    encoder.load_state_dict(state, strict=True)
    return encoder


def test_equals_the_plain_definition(encoder):
    image = torch.randn(2, 3, 384, 384, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        got, expected = encoder(image), plain_forward(published_weights(), image)
    assert got.shape == (2, NUM_TOKENS, OUT) == (2, 145, OUT)
    assert 0.1 < expected.std() < 10
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_bfloat16_is_close(encoder):
    from oasis_core.model.weight_precision import raised

    image = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = encoder(image)
        with raised(encoder, torch.bfloat16):
            got = encoder(image.bfloat16())
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).abs().mean() <= 0.05 * expected.abs().mean()


def test_published_size():
    with torch.device("meta"):
        encoder = VisualEncoder(192, 512)
    expected = {own_visual_name(n): None for n in published_weights(depths=(2, 2, 18, 2))}
    assert set(encoder.state_dict()) == set(expected)
    # 196.74 M as published, without the classifier over 1000 names.
    num = sum(p.numel() for n, p in encoder.named_parameters() if not n.startswith("project"))
    assert num == 196_735_516 - 1000 * (1536 + 1)
    assert feature_channels(192) == 1536


def test_a_picture_is_scaled_and_normalised():
    grey = prepare_picture(torch.full((1, 3, 37, 1001), 0.5))
    assert grey.shape == (1, 3, 384, 384)
    expected = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert (grey - expected.view(1, 3, 1, 1)).abs().max() <= 1e-5
    ramp = torch.linspace(0, 1, 768).expand(1, 3, 96, 768)
    means = prepare_picture(ramp)[0, 0].mean(dim=0) * 0.229 + 0.485
    assert (means - torch.linspace(0, 1, 768).view(384, 2).mean(dim=1)).abs().max() <= 5e-3
