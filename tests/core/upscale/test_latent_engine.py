"""A shrunken oasis-1.3b through the engine: 4k+1 frames, half-precision weights, memory, files."""

import dataclasses
import json
import logging
import re

import pytest
import torch

import oasis_core
from oasis_core.checkpoint import save_checkpoint
from oasis_core.config import OASIS_1_3B
from oasis_core.families import wan
from oasis_core.families.catalog import restorer_of
from oasis_core.families.wan_memory import MemoryModel
from oasis_core.model.denoiser import build_model
from oasis_core.model.live_bytes import LiveTensorBytes
from oasis_core.model.routing import HeadRouting
from oasis_core.model.weight_precision import weight_dtype
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.precision import choose_dtype

SMALL = dataclasses.replace(
    OASIS_1_3B, name="small-1.3b", width=48, num_layers=2, num_heads=4, ffn_width=64, vae_width=4,
    tiny_width=4,
)  # fmt: skip


def random_model(config=SMALL, seed=0):
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(1 + 0.1 * noise if "norm" in name else scale * noise)
    return model


@pytest.fixture(scope="module")
def upscaler():
    model = random_model()
    model.choose_decoder("tiny")
    return VideoUpscaler(model, device="cpu")


@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 6, 13])
def test_any_number_of_frames_and_odd_sizes(upscaler, clip, num_frames):
    video = clip(num_frames, 9, 13)
    out = upscaler.upscale(video, size=(41, 27), segment_frames=5)
    assert out.shape == (1, 3, num_frames, 27, 41)
    plain = upscaler.upscale(video, size=(41, 27), strength=0)
    assert (out - plain).abs().mean() > 0.01


def test_segments_are_whole_strides_with_a_halo_of_one_latent(upscaler):
    plan = upscaler.plan((320, 180), (1280, 720))
    assert plan.halo_frames == 4
    assert (plan.segment_frames + 2 * plan.halo_frames) % 4 == 1
    assert plan.overlap_px == wan.OVERLAP_PX


def test_weights_are_held_in_the_arithmetic_and_float32_is_the_default_on_a_cpu():
    model = random_model()
    assert choose_dtype(restorer_of(model), torch.device("cpu"), "auto").dtype == torch.float32
    assert weight_dtype(VideoUpscaler(model, device="cpu", dtype="bfloat16").model) == (
        torch.bfloat16
    )


def test_bfloat16_is_close_to_float32(clip):
    video = clip(5, 16, 24)
    precise, rough = (
        VideoUpscaler(random_model(), device="cpu", dtype=dtype).upscale(video, scale=2)
        for dtype in ("float32", "bfloat16")
    )
    psnr_db = -10 * torch.log10((precise - rough).square().mean())
    assert 40 <= psnr_db < 90


def test_float16_overflow_is_repeated_in_float32(clip, caplog):
    model = random_model()
    with torch.no_grad():
        model.transformer.blocks[0].ffn.expand.bias.fill_(60_000)
        model.transformer.blocks[0].ffn.contract.weight.fill_(1.0)
        model.transformer.blocks[0].modulation[5].fill_(1e-3)
    video = clip(1, 16, 16)
    expected = VideoUpscaler(model, device="cpu", dtype="float32").upscale(video, scale=2)
    with caplog.at_level(logging.WARNING):
        out = VideoUpscaler(model, device="cpu", dtype="float16").upscale(video, scale=2)
    assert "not finite in torch.float16; repeating in float32" in caplog.text
    assert weight_dtype(model) == torch.float16
    assert (out - expected).abs().max() < 0.02  # the weights are rounded, the arithmetic is not


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["wan", "tiny"])
@pytest.mark.parametrize("stem", ["unshuffle", "latent"])
def test_dry_run_knows_the_memory_of_a_real_run(stem, decoder):
    config = dataclasses.replace(SMALL, stem=stem, vae_width=8, tiny_width=8)
    model = random_model(config)
    model.choose_decoder(decoder)
    predict = MemoryModel(model.config, 4)
    for size in ((5, 128, 96), (9, 64, 160)):
        with torch.inference_mode(), LiveTensorBytes() as live:
            model(torch.rand(1, 3, *size))
        assert 0.75 <= live.peak / predict(*size) <= 1.25


@pytest.mark.slow
def test_decoder_tiles_change_rounding_only_and_their_memory_is_known():
    model = random_model(dataclasses.replace(SMALL, vae_width=8))
    model.choose_decoder("wan")
    size, runs = (5, 32, 640), []
    video = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for tile in (None, 64):
        if tile:
            model.tile_decoder(tile)
        with torch.inference_mode(), LiveTensorBytes() as live:
            result = model(video)
        assert 0.75 <= live.peak / MemoryModel(model.config, 4, tile)(*size) <= 1.25
        runs.append((result, live.peak))
    (whole, all_bytes), (tiled, tile_bytes) = runs
    assert (tiled - whole).abs().max() <= 1e-5
    assert not torch.equal(tiled, whole)  # the tiles were used
    assert tile_bytes < 0.6 * all_bytes


def test_impossible_decoder_tiles_are_refused():
    model = random_model()
    for tile in (0, 56, 100):
        with pytest.raises(ValueError, match=f"multiple of 8 px and at least 64, got {tile}"):
            model.tile_decoder(tile)
    model.choose_decoder("tiny")
    with pytest.raises(ValueError, match=r"are for Wan's decoder, small-1\.3b uses 'tiny'"):
        model.tile_decoder(64)
    with pytest.raises(ValueError, match="are for Wan's decoder, oasis-tiny uses 'conv'"):
        oasis_core.load("oasis-tiny", device="cpu", decoder_tile=64)


def test_less_memory_means_smaller_tiles(monkeypatch):
    model = random_model(dataclasses.replace(SMALL, tiny_width=32))
    model.choose_decoder("tiny")
    upscaler, areas = VideoUpscaler(model, device="cpu"), []
    for gib in (16, 4, 2):
        monkeypatch.setattr("oasis_core.upscale.plan.free_bytes", lambda _, n=gib: n << 30)
        plan = upscaler.plan((480, 270), (1920, 1080))
        areas.append(plan.tile[0] * plan.tile[1])
        assert plan.estimated_bytes <= gib << 29
    assert areas[0] > areas[1] > areas[2]


def test_info_says_what_a_preset_without_weights_needs(capsys):
    from oasis_core.cli import main

    assert main(["info", "oasis-1.3b", "--json"]) == 0
    needs = json.loads(capsys.readouterr().out)["memory in bfloat16, 33 frames"]
    whole = {name: float(needs[name].split()[0]) for name in ("1280x720", "3840x2160")}
    # 2 bytes for each of 1.33e9 parameters, and the decoder's 500 kB per latent cell.
    assert needs["weights"] == "2.48 GiB"
    assert whole["1280x720"] == pytest.approx(2.47 + 14_400 * 499_264 / 2**30 + 0.34, abs=0.1)
    assert whole["3840x2160"] > 8 * whole["1280x720"] - 8 * 2.47
    assert re.fullmatch(r"tiles of \d+x\d+ px, any size", needs["8 GiB"])


def test_a_file_is_upscaled_from_the_shell(tmp_path, write_video, read_video, capsys):
    from oasis_core.cli import main

    model_path, out = tmp_path / "small.safetensors", tmp_path / "out.mkv"
    routing = HeadRouting.all_global(SMALL.num_layers, SMALL.num_heads)
    save_checkpoint(model_path, random_model(), routing, {"licence": "CC0"}, torch.bfloat16)
    source = write_video(lengths=(6,))
    command = ["upscale", str(source), str(out), "--model", str(model_path), "--decoder", "tiny"]
    assert main([*command, "--scale", "2", "--codec", "ffv1", "--json"]) == 0
    frames, times = read_video(out)
    assert frames.shape == (6, 48, 64, 3)
    assert times == read_video(source)[1]
    assert '"model": "small-1.3b"' in capsys.readouterr().out
    assert main([*command[:-1], "wan", "--overwrite", "--scale", "2", "--codec", "ffv1"]) == 0
    whole = read_video(out)[0]
    assert not (whole == frames).all()
    tiled = [*command[:-1], "wan", "--decoder-tile", "64", "--overwrite", "--scale", "2"]
    assert main([*tiled, "--codec", "ffv1"]) == 0
    assert abs(read_video(out)[0].astype(int) - whole).max() <= 1
