"""What is meant for GPUs, as far as a CPU can prove it."""

import dataclasses
import logging
import time

import pytest
import torch

from oasis_core.config import FLASHVSR, INFVSR, OASIS_1_3B
from oasis_core.model.attention import routed_attention
from oasis_core.model.compiled import compile_model
from oasis_core.model.denoiser import build_model
from oasis_core.model.wan_vae import WanDecoder
from oasis_core.model.weight_precision import to_channels_last
from oasis_core.model.window_choice import fastest_backend
from oasis_core.upscale.precision import preferred_dtype

CPU = torch.device("cpu")


def slow():
    time.sleep(0.02)
    return torch.zeros(1)


def quick():
    return torch.zeros(1)


def broken():
    raise RuntimeError("no compiler here\nand a long trace")


def test_the_faster_backend_is_chosen_and_measured_once():
    calls = []

    def counted():
        calls.append(1)
        return quick()

    shape = ("test", object())
    assert fastest_backend(shape, {"halo": slow, "flex": counted}, CPU) == "flex"
    measured = len(calls)
    assert fastest_backend(shape, {"halo": slow, "flex": counted}, CPU) == "flex"
    assert len(calls) == measured
    assert fastest_backend(("test", object()), {"halo": quick, "flex": slow}, CPU) == "halo"


def test_a_backend_that_fails_is_left_out_with_one_line(caplog):
    with caplog.at_level(logging.WARNING):
        assert fastest_backend(("test", object()), {"halo": slow, "flex": broken}, CPU) == "halo"
    assert "window backend flex failed and is left out" in caplog.text
    assert "long trace" not in caplog.text
    with pytest.raises(RuntimeError, match="no compiler"):
        fastest_backend(("test", object()), {"halo": broken}, CPU)


def small_model():
    config = dataclasses.replace(
        OASIS_1_3B, width=48, num_layers=2, num_heads=4, ffn_width=64, vae_width=4, tiny_width=0
    )
    model = build_model(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.transformer.head.weight, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.slow
def test_compiled_model_gives_the_same():
    model, video = small_model(), torch.rand(1, 3, 5, 32, 32)
    with torch.inference_mode():
        expected = model(video)
        compile_model(model, backend="eager")
        got = model(video)
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [INFVSR, FLASHVSR], ids=lambda preset: preset.name)
def test_compiled_blocks_hand_keys_from_chunk_to_chunk(preset, caplog):
    config = dataclasses.replace(
        preset, width=48, num_layers=2, num_heads=4, ffn_width=64, vae_width=4, tiny_width=0,
        tiny_guide=0, decoder="wan", encoder="wan", tiny_encoder_width=0, visual_width=0,
        text_channels=0, num_context_keys=3, projector_width=4 if preset.projector_width else 0,
    )  # fmt: skip
    model = build_model(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.transformer.head.weight, generator=torch.Generator().manual_seed(1))
    source = torch.randn(1, 16, 10, 16, 16, generator=torch.Generator().manual_seed(2))
    guide = torch.randn(1, 10, 8, 8, 48) if preset.projector_width else None
    with torch.inference_mode():
        expected = model.predict_latent(source, guide=guide)
        compile_model(model, backend="eager")
        with caplog.at_level(logging.WARNING, logger="oasis_core"):
            got = model.predict_latent(source, guide=guide)
    assert caplog.text == ""  # it compiled
    assert torch.allclose(got, expected, atol=1e-5)


def test_a_compiler_that_fails_is_given_up_once(caplog):
    tried = []

    def failing(graph, inputs):
        tried.append(1)
        raise RuntimeError("unsupported GPU")

    model, video = small_model(), torch.rand(1, 3, 5, 32, 32)
    with torch.inference_mode():
        expected = model(video)
        compile_model(model, backend=failing)
        with caplog.at_level(logging.WARNING, logger="oasis_core"):
            assert torch.equal(model(video), expected)
            assert torch.equal(model(video), expected)
    assert len(tried) == 1
    assert caplog.text.count("torch.compile failed, going on without it") == 1


def test_channels_last_weights_give_the_same_pictures():
    decoder = WanDecoder(4).eval()
    latent = torch.randn(1, 16, 3, 4, 6)
    with torch.inference_mode():
        expected, _ = decoder(latent)
        to_channels_last(decoder)
        weight = decoder.levels[0].blocks[0].conv1.weight
        got, _ = decoder(latent)
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(got, expected, atol=1e-5)


def test_cpu_arithmetic_is_float32():
    assert preferred_dtype(CPU) == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_routed_attention_on_cuda_equals_the_masked_reference(dtype):
    grid, device = (5, 20, 24), torch.device("cuda")
    generator = torch.Generator(device=device).manual_seed(0)
    q, k, v = (
        torch.randn(1, 6, 2400, 128, generator=generator, device=device, dtype=dtype)
        for _ in range(3)
    )
    options = {"grid": grid, "counts": (2, 2, 2), "window": (3, 5, 5)}
    with torch.inference_mode():
        expected = routed_attention(q.float(), k.float(), v.float(), backend="dense", **options)
        for backend in ("auto", "halo", "flex"):
            got = routed_attention(q, k, v, backend=backend, **options)
            assert (got.float() - expected).abs().max() < 0.03, backend
