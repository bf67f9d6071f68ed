"""docs/oasis-1.3b.toml from public files to trained weights, all of it shrunken."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from oasis_core.checkpoint import load_checkpoint
from oasis_core.cli import main
from oasis_core.training.config import load_training_config
from oasis_core.training.log import LOG_NAME, read_log

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "docs" / "oasis-1.3b.toml"


def small_files(folder):
    """Public Wan2.1 files with random weights: (transformer, VAE)."""
    path = ROOT / "tests" / "core" / "convert" / "test_wan.py"
    spec = importlib.util.spec_from_file_location("small_wan", path)
    wan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wan)
    from oasis_core.model.wan_vae import WanDecoder, WanEncoder

    shapes = {
        wan.original_name_of_vae(part, name): tuple(x.shape)
        for part, kind in (("encoder", WanEncoder), ("decoder", WanDecoder))
        for name, x in kind(wan.VAE_WIDTH).state_dict().items()
    }
    vae = folder / "vae.safetensors"
    wan.save_file(wan.random_tensors(shapes, seed=1), vae)
    tensors = wan.random_tensors(wan.transformer_shapes())
    return wan.write_layout(folder, "comfyui-prefix", tensors), vae


def shrunken(text, footage, folder):
    """The recipe with few steps, small samples and this test's folders."""
    small = {
        "num_steps": "3",
        "warmup_steps": "1",
        "batch_size": "1",
        "num_frames": "5",
        "crop_px": "32",
        "calibrate_window_heads": "1",
        "calibrate_intra_heads": "1",
        "samples_per_shard": "2",
        "data_workers": "1",
        "validate_every": "3",
        "sample_every": "3",
        "data_dirs": f'["{footage.as_posix()}"]',
        "validation_dirs": f'["{(footage / "clip.mkv").as_posix()}"]\nvalidation_px = 64',
        "output_dir": f'"{(folder / "run").as_posix()}"',
        "tensorboard": "false",
    }
    for key, value in small.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count, key
    for name in ("wan-unshuffle", "wan-latent"):
        text = text.replace(f'"{name}.safetensors"', f'"{(folder / name).as_posix()}.safetensors"')
    return text


def test_the_recipe_is_valid_at_full_size():
    config = load_training_config(RECIPE)
    assert [stage.num_frames % 4 for stage in config.stages] == [1, 1]
    heads = config.stages[1].calibrate_window_heads + config.stages[1].calibrate_intra_heads
    assert heads <= 30 * 12
    assert all(stage.latent_weight for stage in config.stages)


@pytest.mark.slow
def test_public_files_become_a_trained_routed_model(footage, tmp_path, capsys):
    transformer, vae = small_files(tmp_path)
    command = ["convert", "--source", "wan2.1", str(transformer)]
    for stem in ("unshuffle", "latent"):
        out = str(tmp_path / f"wan-{stem}.safetensors")
        assert main([*command, out, "--vae", str(vae), "--stem", stem]) == 0
    recipe = tmp_path / "recipe.toml"
    text = shrunken(RECIPE.read_text(encoding="utf-8"), footage, tmp_path)
    recipe.write_text(text, encoding="utf-8")
    assert main(["train", str(recipe)]) == 0, capsys.readouterr().err
    trained = load_checkpoint(tmp_path / "run" / "oasis.safetensors")
    start = load_checkpoint(tmp_path / "wan-unshuffle.safetensors")
    counts = [trained.routing.counts(layer) for layer in range(2)]
    assert [sum(kind) for kind in zip(*counts, strict=True)] == [0, 1, 1]
    new, old = (dict(x.model.named_parameters()) for x in (trained, start))
    name = "transformer.patch_embedding.weight"
    assert not torch.equal(new[name], old[name])
    losses = [float(row["loss"]) for row in read_log(tmp_path / "run" / LOG_NAME)]
    assert len(losses) == 2  # each stage's last step
    assert min(losses) > 0
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 2
