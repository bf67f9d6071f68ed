"""The transformer against diffusers' own, on random weights; needs the extra test-wan."""

import dataclasses

import pytest
import torch

from oasis_core.config import OASIS_1_3B
from oasis_core.convert.keys import original_transformer_name, own_transformer_name
from oasis_core.model.transformer import OasisTransformer
from oasis_core.model.weight_precision import hold_weights

diffusers = pytest.importorskip("diffusers", reason="needs the extra test-wan")

WAN = dataclasses.replace(
    OASIS_1_3B,
    name="wan",
    stem="latent",
    num_context_keys=0,
    text_channels=4096,
    timestep_channels=256,
)
SMALL = dataclasses.replace(
    WAN, width=48, num_layers=3, num_heads=2, ffn_width=80, text_channels=20, timestep_channels=32
)


def pair(config, seed=0):
    """Diffusers' model with random weights, and ours with the same."""
    torch.manual_seed(seed)
    theirs = diffusers.WanTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_size,
        in_channels=config.out_channels,
        out_channels=config.out_channels,
        text_dim=config.text_channels,
        freq_dim=config.timestep_channels,
        ffn_dim=config.ffn_width,
        num_layers=config.num_layers,
    ).eval()
    for name, parameter in theirs.named_parameters():
        if "norm" in name:  # all ones otherwise, which hides a norm that is left out
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    with torch.device("meta"):
        ours = OasisTransformer(config).eval()
    shapes = {name: x.shape for name, x in ours.state_dict().items()}
    state = {}
    for name, tensor in theirs.state_dict().items():
        own = own_transformer_name(original_transformer_name(name))
        state[own] = tensor.reshape(shapes[own])
    ours.load_state_dict(state, strict=True, assign=True)
    return theirs, ours


def run_both(theirs, ours, grid, config, dtype=torch.float32, num_text=7):
    """Both predictions `b c t h w` for a random latent, context and timestep."""
    generator = torch.Generator().manual_seed(1)
    t, h, w = (n * p for n, p in zip(grid, config.patch_size, strict=True))
    latent = torch.randn(2, config.out_channels, t, h, w, generator=generator).to(dtype)
    context = torch.randn(2, num_text, config.text_channels, generator=generator).to(dtype)
    timestep = torch.tensor([937.0, 12.5])
    with torch.inference_mode():
        expected = theirs(latent, timestep, context, return_dict=False)[0]
        _, cells = ours(latent, timestep=timestep, context=context)
    return expected, cells.unflatten(0, (2, t)).transpose(1, 2)


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 3, 2), (5, 4, 7)])
def test_small_model_equals_diffusers_in_float32(grid):
    expected, got = run_both(*pair(SMALL), grid, SMALL)
    assert expected.abs().mean() > 0.05
    assert (got - expected).abs().max() <= 1e-5


def test_small_model_in_bfloat16_is_as_close_to_the_truth_as_diffusers():
    theirs, ours = pair(SMALL)
    truth, _ = run_both(theirs, ours, (3, 4, 5), SMALL)
    theirs.to(torch.bfloat16)
    # What diffusers itself keeps in float32 when it loads a model in half precision.
    for name, parameter in theirs.named_parameters():
        if "scale_shift" in name or "norm" in name or "time_embedder" in name:
            parameter.data = parameter.data.float()
    hold_weights(ours, torch.bfloat16)
    expected, got = run_both(theirs, ours, (3, 4, 5), SMALL, torch.bfloat16)
    rounding = (expected - truth).abs().mean()
    assert (got - truth).abs().mean() <= 1.1 * rounding
    assert (got - expected).abs().max() <= 0.03 * truth.abs().max()


def test_half_precision_weights_are_raised_exactly_for_float32():
    _, ours = pair(SMALL)
    hold_weights(ours, torch.bfloat16)
    latent, context = torch.randn(1, 16, 2, 4, 6), torch.randn(1, 3, 20)
    with torch.inference_mode():
        _, got = ours(latent, context=context)
        dtypes = {name: x.dtype for name, x in ours.named_parameters()}
        hold_weights(ours, torch.float32)
        _, expected = ours(latent, context=context)
    assert torch.equal(got, expected)
    assert dtypes["blocks.0.ffn.expand.weight"] == torch.bfloat16
    assert dtypes["blocks.0.modulation"] == torch.float32


@pytest.mark.slow
def test_full_size_block_equals_diffusers_in_float32():
    config = dataclasses.replace(WAN, num_layers=1)
    expected, got = run_both(*pair(config), (3, 4, 5), config, num_text=512)
    assert (got - expected).abs().max() <= 1e-5


def test_every_public_name_has_a_place_here_and_shapes_agree():
    with torch.device("meta"):
        theirs = diffusers.WanTransformer3DModel(
            num_attention_heads=12, ffn_dim=8960, num_layers=30
        )
        ours = OasisTransformer(WAN)
    names = {own_transformer_name(original_transformer_name(name)) for name in theirs.state_dict()}
    assert names == set(ours.state_dict())
    assert len(names) == 825
    assert sum(x.numel() for x in ours.parameters()) == 1_418_996_800
