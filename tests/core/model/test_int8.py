import dataclasses
import logging

import pytest
import torch
from torch import nn

import oasis_core
from oasis_core.checkpoint import save_checkpoint
from oasis_core.lab.golden import golden_model, golden_video
from oasis_core.lab.streams import overlap_groups, overlapped_attention
from oasis_core.model.agreement import agreement_db
from oasis_core.model.attention import routed_attention
from oasis_core.model.int8 import Int8Linear, hold_int8
from oasis_core.model.routing import HeadRouting
from oasis_core.model.transformer import RoutedSelfAttention


def test_rounding_is_half_a_step_of_the_row():
    linear = nn.Linear(16, 8)
    linear.weight.data[3] *= 100
    rounded = Int8Linear(linear)
    held = rounded.weight.float() * rounded.scale
    step = linear.weight.abs().amax(dim=1) / 127
    assert ((held - linear.weight).abs().amax(dim=1) <= 0.51 * step).all()
    x = torch.randn(2, 5, 16)
    assert torch.allclose(rounded(x), nn.functional.linear(x, held, linear.bias), atol=1e-5)
    assert rounded(x.bfloat16()).dtype == torch.bfloat16


def test_held_in_8_bits_the_pictures_stay_within_40_db_at_half_the_memory():
    model, video = golden_model("tiny"), golden_video()[:, :, :5]
    with torch.inference_mode():
        expected = video + model(video)
    before = sum(x.nbytes for x in model.transformer.blocks.state_dict().values())
    psnr_db = hold_int8(model, video)
    after = sum(x.nbytes for x in model.transformer.blocks.state_dict().values())
    with torch.inference_mode():
        got = video + model(video)
    assert agreement_db(got, expected) == pytest.approx(psnr_db, abs=0.01)
    assert 40 <= psnr_db < 90
    assert after < 0.4 * before  # float32 here


def test_what_rounding_would_spoil_is_left_alone(caplog):
    model, video = golden_model("tiny"), golden_video()[:, :, :1, :32, :32]
    for block in model.transformer.blocks:
        # One huge column sets the step of each row, and nothing else is left of it.
        block.ffn.expand.weight[:, 0] = 1e4
        block.modulation[4, 0] = -1.0
        block.modulation[3, 0] = 0.0
    with torch.inference_mode():
        expected = model(video)
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="within 40 dB"):
        hold_int8(model, video)
    with torch.inference_mode():
        assert torch.equal(model(video), expected)


def test_weights_that_give_no_numbers_are_not_held_in_8_bits():
    model, video = golden_model("tiny"), golden_video()[:, :, :1, :32, :32]
    model.transformer.blocks[0].ffn.contract.bias[0] = torch.inf
    with pytest.raises(ValueError, match="within 40 dB of the model's own, got -inf dB"):
        hold_int8(model, video)


def test_groups_beside_each_other_are_the_same_function_and_can_be_switched_off():
    model = golden_model("tiny")
    attention = next(m for m in model.modules() if isinstance(m, RoutedSelfAttention))
    plain = attention.attend
    overlap_groups(model)
    assert attention.attend is overlapped_attention
    overlap_groups(model, is_on=False)
    assert attention.attend is plain


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_overlapped_attention_equals_the_groups_in_turn(device):
    q, k, v = (torch.randn(1, 6, 3 * 9 * 11, 32, device=device) for _ in range(3))
    options = {"grid": (3, 9, 11), "counts": (2, 2, 2), "window": (3, 5, 5)}
    with torch.inference_mode():
        expected = routed_attention(q, k, v, **options)
        got = overlapped_attention(q, k, v, **options)
    assert torch.allclose(got, expected, atol=1e-6)


def test_from_file_to_pixels_through_the_public_interface(tmp_path):
    path = tmp_path / "golden.safetensors"
    model = golden_model("tiny")
    model.config = dataclasses.replace(model.config, vae_width=0)  # only its tiny decoder is stored
    save_checkpoint(path, model, HeadRouting.all_global(2, 6), {})
    video = golden_video()[:, :, :5, :32, :48]
    plain = oasis_core.load(path, device="cpu", dtype="float32")
    small = oasis_core.load(path, device="cpu", dtype="float32", int8=True)
    assert small.model_hash == f"{plain.model_hash}-int8"
    got, expected = (upscaler.upscale(video, scale=1) for upscaler in (small, plain))
    assert 40 <= agreement_db(got, expected) < 90
    with pytest.raises(ValueError, match="8-bit weights are for large models, got oasis-tiny"):
        oasis_core.load("oasis-tiny", device="cpu", int8=True)
