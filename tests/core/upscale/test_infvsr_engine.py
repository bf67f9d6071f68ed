"""A shrunken InfVSR through the engine: its public files, any length and size, memory, routing."""

import dataclasses

import pytest
import torch
from infvsr_files import REFERENCE, public_tensors, write_files

import oasis_core
from oasis_core.config import INFVSR
from oasis_core.convert.infvsr import InfvsrFiles, convert_infvsr
from oasis_core.families.wan_memory import MemoryModel
from oasis_core.model.denoiser import build_model
from oasis_core.model.live_bytes import LiveTensorBytes
from oasis_core.upscale import VideoUpscaler

SMALL = dataclasses.replace(
    INFVSR, name="small-infvsr", width=48, num_layers=2, num_heads=4, ffn_width=64,
    text_channels=12, vae_width=4, tiny_width=4, tiny_encoder_width=4, visual_width=32,
)  # fmt: skip


def random_model(config=SMALL, seed=0):
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        is_gain = "norm" in name and not name.endswith("bias")
        parameter.copy_(1 + 0.1 * noise if is_gain else scale * noise)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    write_files(folder, public_tensors())
    files = InfvsrFiles(
        transformer=folder / "InfVSR.ckpt",
        visual=folder / "ram_swin_large_14m.pth",
        visual_lora=folder / "DAPE.pth",
        vae=folder / "Wan2.1_VAE.pth",
        tiny=folder / "taew2_1.pth",
    )
    out = folder / "infvsr.safetensors"
    convert_infvsr(files, out, dtype=torch.float32, reference=REFERENCE)
    return out


@pytest.fixture(scope="module")
def upscaler():
    model = random_model()
    model.choose_decoder("tiny-both")
    return VideoUpscaler(model, device="cpu")


@pytest.mark.parametrize("decoder", ["wan", "tiny", "tiny-both"])
def test_from_public_files_to_pixels(checkpoint, clip, decoder):
    upscaler = oasis_core.load(checkpoint, device="cpu", decoder=decoder)
    used = {name for name, part in upscaler.model.named_children() if part is not None}
    assert ("encoder" in used) == (decoder != "tiny-both")
    assert ("tiny_encoder" in used) == (decoder == "tiny-both")
    assert upscaler.model_hash.endswith(f"-{decoder}")
    video = clip(6, 9, 13)
    out = upscaler.upscale(video, size=(41, 27), shots=False)
    plain = upscaler.upscale(video, size=(41, 27), strength=0)
    assert out.shape == (1, 3, 6, 27, 41)
    assert 0.01 < (out - plain).abs().mean() < 0.5


def test_memory_is_known_before_it_is_used():
    # Wide and many blocks, so that the keys they keep of the chunk before are what counts.
    config = dataclasses.replace(SMALL, width=192, num_layers=8, ffn_width=192)
    model = random_model(config)
    model.choose_decoder("tiny-both")
    predict = MemoryModel(model.config, 4)
    size = (17, 64, 96)
    source = torch.randn(1, 16, 1 + size[0] // 4, size[1] // 8, size[2] // 8)
    with torch.inference_mode(), LiveTensorBytes() as live:
        model.transformer(source, context=torch.zeros(1, 145, 12))
    tokens = 3 * size[1] * size[2] // 256
    kept = predict._kept_keys(tokens) + predict._kept_keys(145)
    expected = predict.rates.per_token * tokens + kept
    assert kept > 0.6 * expected
    assert 0.75 <= live.peak / expected <= 1.25
    assert predict(*size) >= predict.rates.visual > 0
