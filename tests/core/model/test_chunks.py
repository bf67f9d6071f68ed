"""Chunks that see the chunk before: one masked attention over the whole clip says the same."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from oasis_core.config import INFVSR
from oasis_core.model.attention import attention_flops, routed_attention
from oasis_core.model.attention_window import halo_window_attention, window_mask
from oasis_core.model.chunks import ChunkKeys, KeyValues
from oasis_core.model.denoiser import build_model
from oasis_core.model.head_distances import head_distances
from oasis_core.model.routing import HeadPattern, HeadRouting, calibrate
from oasis_core.model.window_flex import flex_is_available, flex_window_attention

WINDOW = (3, 5, 5)
SMALL = dataclasses.replace(
    INFVSR,
    name="small-infvsr",
    width=48,
    num_layers=2,
    num_heads=4,
    ffn_width=64,
    text_channels=12,
    vae_width=4,
    tiny_width=4,
    tiny_encoder_width=4,
    visual_width=32,
)
ROUTING = HeadRouting(
    patterns=((*(HeadPattern(kind) for kind in (2, 0, 1, 2)),),) * 2, window=WINDOW
)


def random_model(config=SMALL, seed=0):
    """Every tensor random, at a size that neither fades away nor saturates."""
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.copy_(0.1 * noise + (0 if name.endswith("bias") else 1))
        elif parameter.ndim > 1:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.1 * noise)
    return model


def random_heads(grid, num_past, num_heads, dtype=torch.float32):
    generator = torch.Generator().manual_seed(num_heads)
    frame = grid[1] * grid[2]
    sizes = (math.prod(grid), *[(num_past + grid[0]) * frame] * 2)
    return tuple(torch.randn(2, num_heads, n, 8, generator=generator).to(dtype) for n in sizes)


def plain_masks(grid, num_past, counts, window):
    """One boolean mask `n m` per head, by coordinates."""
    t, h, w = grid
    frames = torch.arange(num_past + t).repeat_interleave(h * w)
    query = frames[num_past * h * w :]
    rows = torch.arange(h).repeat_interleave(w).repeat(num_past + t)
    columns = torch.arange(w).repeat((num_past + t) * h)
    near = torch.ones(len(query), len(frames), dtype=torch.bool)
    for position, size in zip((frames, rows, columns), window, strict=True):
        own = position[num_past * h * w :]
        near &= (own[:, None] - position[None, :]).abs() <= size // 2
    masks = [torch.ones_like(near)] * counts[0]
    masks += [query[:, None] == frames[None, :]] * counts[1]
    return torch.stack(masks + [near] * counts[2])


@pytest.mark.parametrize("backend", ["auto", "dense", "halo"])
@pytest.mark.parametrize("counts", [(1, 2, 3), (0, 0, 2), (2, 0, 0), (0, 2, 0)])
@pytest.mark.parametrize(
    ("grid", "num_past"), [((3, 5, 7), 3), ((1, 6, 4), 3), ((3, 4, 5), 1), ((2, 1, 9), 3)]
)
@pytest.mark.parametrize("window", [WINDOW, (5, 3, 7), (1, 3, 3), (9, 5, 5)])
def test_every_head_sees_of_the_chunk_before_what_its_pattern_says(
    grid, num_past, counts, backend, window
):
    q, k, v = random_heads(grid, num_past, sum(counts))
    result = routed_attention(
        q, k, v, grid=grid, counts=counts, window=window, backend=backend, num_past=num_past
    )
    masks = plain_masks(grid, num_past, counts, window)
    reference = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[None])
    assert (result - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert torch.equal(
        window_mask(grid, window, num_past=num_past),
        plain_masks(grid, num_past, (0, 0, 1), window)[0],
    )
    pairs = int(masks.sum())
    assert attention_flops(grid, counts, 8, window, num_past) == 4 * 8 * pairs


@pytest.mark.skipif(not flex_is_available(), reason="torch without FlexAttention")
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize(("grid", "num_past"), [((3, 5, 7), 1), ((1, 6, 4), 2)])
def test_flex_sees_the_same(grid, num_past):
    q, k, v = random_heads(grid, num_past, 2)
    options = {"grid": grid, "window": (5, 5, 5), "num_past": num_past}
    result = flex_window_attention(q, k, v, compiled=False, **options)
    masks = plain_masks(grid, num_past, (0, 0, 2), (5, 5, 5))
    reference = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[None])
    assert (result - reference).abs().max() <= 1e-5


def test_halo_gradients_reach_the_chunk_before():
    heads = [x.double().requires_grad_() for x in random_heads((2, 5, 6), 2, 2)]
    masks = plain_masks((2, 5, 6), 2, (0, 0, 2), WINDOW)
    results = []
    for attend in (
        lambda: F.scaled_dot_product_attention(*heads, attn_mask=masks[None]),
        lambda: halo_window_attention(*heads, grid=(2, 5, 6), window=WINDOW, num_past=2),
    ):
        output = attend()
        results.append((output, *torch.autograd.grad(output.square().sum(), heads)))
    for reference, result in zip(*results, strict=True):
        assert (result - reference).abs().max() <= 1e-12 * reference.abs().max()


def test_keys_that_do_not_fit_are_refused():
    q, k, v = random_heads((2, 3, 4), 1, 1)
    with pytest.raises(ValueError, match=r"the keys must be those of num_past \+ 2 frames"):
        routed_attention(q, k, v, grid=(2, 3, 4), counts=(1, 0, 0), window=WINDOW)


def test_distances_count_the_chunk_before():
    grid, num_past = (2, 4, 5), 3
    q, k, _ = random_heads(grid, num_past, 3, torch.float64)
    got = head_distances(
        q,
        k,
        grid=grid,
        window=WINDOW,
        num_queries=1000,
        generator=torch.Generator().manual_seed(0),
        num_past=num_past,
        keys_per_chunk=17,
    )
    attention = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(dim=-1)
    intra, near = plain_masks(grid, num_past, (0, 1, 1), WINDOW)
    for mask, distance, uniform in (
        (intra, got.intra, got.uniform_intra),
        (near, got.window, got.uniform_window),
    ):
        mass = (attention * mask).sum(dim=-1)
        assert torch.allclose(distance, -mass.log().mean(dim=(0, 2)), atol=1e-10)
        assert uniform == pytest.approx(float((100 / mask.sum(dim=1).double()).log().mean()))


def whole_clip(model, source, context):
    """The same transformer in one go: every block attends over the whole clip under one mask."""
    config, transformer = model.config, model.transformer
    frames = torch.arange(source.shape[2])
    h, w = (n // p for n, p in zip(source.shape[3:], config.patch_size[1:], strict=True))
    chunk = (frames // config.chunk_latents).repeat_interleave(h * w)
    visible = (chunk[:, None] - chunk[None, :] == 1) | (chunk[:, None] == chunk[None, :])

    def attend(q, k, v, *, grid, counts, window, backend):
        masks = plain_masks(grid, 0, counts, window) & visible
        return F.scaled_dot_product_attention(q, k, v, attn_mask=masks[None])

    config = dataclasses.replace(config, chunk_latents=0)
    before, transformer.config = transformer.config, config
    parts = [block.attention for block in transformer.blocks]
    attends = [part.attend for part in parts]
    for part in parts:
        part.attend = attend
    try:
        return transformer(source, context=context)[1]
    finally:
        transformer.config = before
        for part, function in zip(parts, attends, strict=True):
            part.attend = function


@pytest.mark.parametrize("num_latents", [1, 3, 4, 9, 11])
@pytest.mark.parametrize("routing", [None, ROUTING])
def test_chunk_by_chunk_equals_one_masked_pass(num_latents, routing):
    model = random_model()
    if routing is not None:
        model.transformer.apply_routing(routing)
    generator = torch.Generator().manual_seed(7)
    source = torch.randn(2, 16, num_latents, 6, 8, generator=generator)
    context = torch.randn(2, 9, 12, generator=generator)
    with torch.inference_mode():
        _, got = model.transformer(source, context=context)
        expected = whole_clip(model, source, context)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-5
    # A chunk knows nothing of those that follow.
    with torch.inference_mode():
        _, begun = model.transformer(source[:, :, :3], context=context)
    length = min(3, num_latents)
    assert torch.equal(begun.unflatten(0, (2, -1)), got.unflatten(0, (2, -1))[:, :length])


def test_calibration_measures_all_chunks():
    model = random_model()
    clip = torch.rand(1, 3, 33, 32, 48, generator=torch.Generator().manual_seed(1))
    routing = calibrate(model, [clip], num_queries=8)
    assert routing.distances.grid == (9, 2, 3)
    assert sum(routing.counts(layer)[2] for layer in range(2)) == 2
    assert len(routing.distances.raw) == 2
    assert all(pair[1] > 0 for row in routing.distances.raw for pair in row)


def test_parts_that_do_not_fit_are_refused():
    for change, message in (
        ({"visual_width": 33}, "visual_width must be a multiple of 32"),
        ({"text_channels": 0}, "needs text_channels"),
        ({"encoder": "tiny", "tiny_encoder_width": 0}, "needs tiny_encoder_width above 0"),
        ({"encoder": "other"}, "encoder must be one of wan, tiny"),
        ({"sigma": 1.5}, r"sigma must be in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SMALL, **change)


def test_a_call_that_failed_may_be_repeated():
    """A compiled block that fails runs once more as it is; the keys must not be taken twice."""
    keys, values = torch.ones(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
    chunk = ChunkKeys(KeyValues(2 * keys, values))
    first = chunk.with_past(keys, values)
    again = chunk.with_past(keys, values)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0][..., 0].tolist() == [[[2, 2, 1, 1]]]
    assert torch.equal(chunk.kept.keys, keys)
