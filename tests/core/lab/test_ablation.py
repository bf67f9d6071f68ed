import dataclasses
import json

import pytest
import torch

from oasis_core import config as config_module
from oasis_core.commands.ablate import GROUPS as GROUP_NAMES
from oasis_core.config import OASIS_TINY
from oasis_core.evaluation.pictures import encode_picture
from oasis_core.lab import ablation
from oasis_core.training.config import StageConfig, TrainingConfig, TrainingError

SMALL = dataclasses.replace(
    OASIS_TINY,
    name="small",
    stem_channels=16,
    out_channels=16,
    width=24,
    num_layers=2,
    num_heads=3,
    ffn_width=24,
    num_stem_blocks=1,
    num_decoder_blocks=1,
)


@pytest.fixture(autouse=True)
def _small_preset(monkeypatch):
    monkeypatch.setitem(config_module.PRESETS, "small", SMALL)


def recipe(tmp_path):
    stage = StageConfig(
        name="one",
        num_steps=4,
        learning_rate=1e-3,
        final_learning_rate=1e-3,
        batch_size=1,
        num_frames=2,
        context_frames=1,
        crop_px=32,
        degradations={"light": 0.5, "consistent": 0.3, "inconsistent": 0.2},
    )
    second = dataclasses.replace(
        stage, name="two", calibrate_window_heads=4, calibrate_intra_heads=1
    )
    return TrainingConfig(
        model="small",
        data_dirs=(str(tmp_path / "data"),),
        output_dir="unused",
        stages=(stage, second),
        samples_per_shard=4,
        uses_per_sample=1,
        autocast_bf16=False,
    )


def test_routing_variants_change_the_calibration_only(tmp_path):
    base = recipe(tmp_path)
    (tmp_path / "no-transformer.json").write_text(json.dumps({"convs": 20, "steps": [5, 9]}))
    routed, everything, window, convolutions = (
        ablation.plan_variant(name, base, 3, tmp_path) for name in ablation.GROUPS["routing"]
    )
    assert [stage.calibrate_window_heads for stage in routed.stages] == [-1, 4]
    assert [stage.calibrate_window_heads for stage in everything.stages] == [-1, -1]
    assert [stage.calibrate_window_heads for stage in window.stages] == [-1, 6]
    assert window.stages[1].calibrate_intra_heads == 0
    assert all(s.skip_transformer for s in convolutions.stages)
    assert [(s.num_steps, s.calibrate_window_heads) for s in convolutions.stages] == [
        (5, -1),
        (9, -1),
    ]
    configs = (routed, everything, window, convolutions)
    for config in configs:
        assert config.seed == 3
        assert [s.degradations for s in config.stages] == [s.degradations for s in base.stages]
    assert len({config.output_dir for config in configs}) == 4


def test_curriculum_variants_move_the_real_world_share_only(tmp_path):
    shares = {
        name: [
            stage.degradations
            for stage in ablation.plan_variant(name, recipe(tmp_path), 1, tmp_path).stages
        ]
        for name in ablation.GROUPS["curriculum"]
    }
    constant, changing = {"light": 0.5, "consistent": 0.5}, {"light": 0.5, "inconsistent": 0.5}
    assert shares == {
        "consistent only": [constant, constant],
        "inconsistent only": [changing, changing],
        "consistent, then inconsistent": [constant, changing],
    }


def test_a_curriculum_of_one_stage_and_unknown_variants_are_refused(tmp_path):
    base = recipe(tmp_path)
    single = dataclasses.replace(base, stages=base.stages[:1])
    with pytest.raises(TrainingError, match="at least two stages, got one"):
        ablation.plan_variant("consistent, then inconsistent", single, 1, tmp_path)
    with pytest.raises(TrainingError, match="variant must be one of"):
        ablation.plan_variant("all intra", base, 1, tmp_path)


@pytest.mark.slow
def test_deeper_yardsticks_cost_more_and_the_planned_one_is_kept(tmp_path):
    network = ablation.routed_reference(recipe(tmp_path))
    assert [block.attention.counts for block in network.transformer.blocks] == [
        (0, 0, 3),
        (1, 1, 1),
    ]
    config = ablation.plan_variant("single-frame conv net", recipe(tmp_path), 1, tmp_path)
    kept = json.loads((tmp_path / "single-frame-conv-net.json").read_text())
    assert config.yardstick_convs == kept["convs"] >= 1
    assert [stage.num_steps for stage in config.stages] == kept["steps"]
    (tmp_path / "single-frame-conv-net.json").write_text(json.dumps({"convs": 7, "steps": [2, 3]}))
    again = ablation.plan_variant("single-frame conv net", recipe(tmp_path), 2, tmp_path)
    assert again.yardstick_convs == 7
    assert [stage.num_steps for stage in again.stages] == [2, 3]


def test_table_has_mean_spread_and_worst_clip(tmp_path):
    def run(seed, gain, worst):
        row = {"mean_gain_db": gain, "least_gain_db": worst, "temporal_difference": 0.5}
        summary = dict.fromkeys(ablation.EVALUATED, row)
        return {
            "variant": "recipe",
            "seed": seed,
            "steps": 9,
            "train_s": 60.0,
            "ms_per_frame": 12.0 + seed,
            "summary": summary,
        }

    text = ablation.write_table(tmp_path, [run(1, 1.0, 0.2), run(2, 1.2, -0.1)]).read_text()
    assert "| recipe | 2 | 9 | 1.0 | 13.0 | +1.100 +- 0.141 (-0.10) | 0.50 |" in text


@pytest.mark.slow
def test_an_ablation_trains_measures_and_goes_on(tmp_path):
    generator = torch.Generator().manual_seed(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(2):
        texture = torch.rand(1, 3, 24, 24, generator=generator)
        image = torch.nn.functional.interpolate(texture, size=(96, 96), mode="bicubic")[0]
        (folder / f"{index}.png").write_bytes(encode_picture(image))
    (tmp_path / "single-frame-conv-net.json").write_text(json.dumps({"convs": 1, "steps": [2, 2]}))
    options = {
        "variants": ("recipe", "single-frame conv net"),
        "seeds": (1,),
        "clips": [folder / "0.png"],
        "num_frames": 1,
    }
    lines = []
    table = ablation.run_ablation(recipe(tmp_path), tmp_path, **options, report=lines.append)
    assert [line.split(",")[0] for line in lines] == ["recipe", "single-frame conv net"]
    result = json.loads((tmp_path / "recipe" / "seed_1" / "result.json").read_text())
    assert set(result["summary"]) == set(ablation.EVALUATED)
    first = table.read_text()
    before = (tmp_path / "recipe" / "seed_1" / "state.safetensors").stat().st_mtime_ns
    assert ablation.run_ablation(recipe(tmp_path), tmp_path, **options).read_text() == first
    kept = tmp_path / "recipe" / "seed_1" / "result.json"
    assert json.loads(kept.read_text()) == result
    ablation.run_ablation(recipe(tmp_path), tmp_path, **options, middle_px=64)
    again = json.loads(kept.read_text())
    assert again["summary"] != result["summary"]
    assert again["train_s"] == result["train_s"]
    assert (tmp_path / "recipe" / "seed_1" / "state.safetensors").stat().st_mtime_ns == before


def test_groups_match_the_command():
    assert tuple(ablation.GROUPS) == GROUP_NAMES
    assert {name for names in ablation.GROUPS.values() for name in names} == set(ablation.VARIANTS)
