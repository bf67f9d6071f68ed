"""The stages bench on a shrunken model, and once at full size."""

import dataclasses
import json

import pytest
import torch

from oasis_core.bench.stages import apply_counts, bench_stages, random_model
from oasis_core.checkpoint import save_checkpoint
from oasis_core.cli import main
from oasis_core.config import OASIS_1_3B
from oasis_core.model.denoiser import build_model
from oasis_core.model.routing import HeadRouting
from oasis_core.upscale.memory import peak_rss_bytes

SMALL = dataclasses.replace(
    OASIS_1_3B, width=48, num_layers=2, num_heads=4, ffn_width=64, vae_width=4, tiny_width=4
)


def test_stages_of_a_file_from_the_shell(tmp_path, capsys):
    config = dataclasses.replace(SMALL, stem="latent")
    path = tmp_path / "small.safetensors"
    routing = HeadRouting.all_global(config.num_layers, config.num_heads)
    save_checkpoint(path, build_model(config), routing, {})
    command = ["bench", "--model", str(path), "--only", "stages", "--size", "60x40"]
    assert main([*command, "--frames", "7", "--runs", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["stages"]
    assert list(result["stages"]) == ["encoder", "transformer", "decoder"]
    assert (result["frames"], result["size"]) == (9, [64, 48])
    assert sum(row["seconds"] for row in result["stages"].values()) == result["seconds"]
    assert all(row["share_of_roofline"] > 0 for row in result["stages"].values())
    assert main([*command, "--runs", "1"]) == 0
    assert "of the roofline" in capsys.readouterr().out


def test_models_without_a_latent_are_refused(capsys):
    assert main(["bench", "--only", "stages"]) == 1
    assert "needs a latent model, got oasis-tiny" in capsys.readouterr().err
    assert main(["bench", "--random-weights", "--model", "oasis-9b"]) == 1
    assert "random weights are for presets" in capsys.readouterr().err


@pytest.mark.slow
def test_full_size_step_on_a_small_tile_runs_on_a_cpu():
    # Without bfloat16 arithmetic a processor takes ten times as long over it as over float32.
    is_fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    dtype = "bfloat16" if is_fast else "float32"
    model, _, dtype = random_model("oasis-1.3b", "cpu", dtype, None)
    counts = [(4, 4, 4)] * OASIS_1_3B.num_layers
    apply_counts(model, counts)
    result = bench_stages(model, counts, size=(64, 64), num_frames=5, num_runs=0, dtype=dtype)
    assert result["frames"] == 5
    assert result["seconds"] > 0
    assert peak_rss_bytes() < 12e9
    with torch.inference_mode():
        assert torch.isfinite(model(torch.rand(1, 3, 1, 32, 32, dtype=dtype))).all()
