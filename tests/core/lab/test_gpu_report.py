"""The report for the day there is a GPU, shrunken, on a CPU."""

import copy
import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from oasis_core.cli import main
from oasis_core.lab.gpu_parts import CASES, PartContext, gpu_of_size, memory_rows
from oasis_core.lab.gpu_report import gpu_report
from oasis_core.lab.gpu_scale import FULL, SHORT
from oasis_core.lab.gpu_targets import check_targets
from oasis_core.lab.seedvr2 import bench_beside, bench_seedvr2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "gpu.json"
    command = ["bench", "--gpu-report", str(out), "--short", "--device", "cpu", "--runs", "1"]
    assert main([*command, "--json"]) == 0
    return out


@pytest.mark.slow
def test_every_part_is_measured(written):
    results = json.loads(written.read_text())
    assert results["errors"] == {}
    assert [(r["size_name"], r["routing"], r["decoder"]) for r in results["stages"]] == list(CASES)
    assert all(row["seconds"] > 0 for row in results["stages"])
    assert {row["pattern"] for row in results["attention"]} == {"global", "intra", "window"}
    assert set(results["quality"]["tiny"]) >= {"float32 halo", "bfloat16 halo", "float16 dense"}
    assert results["variants"]["int8"]["psnr_db"] >= 40
    assert results["variants"]["compiled_s"] > 0
    assert results["variants"]["cuda_graph_s"] == "ValueError: needs CUDA, got cpu"
    assert results["memory"][0]["plan"]["num_tiles"] == 1


def test_a_table_lies_beside_it_and_calls_no_shrunken_figure_met(tmp_path):
    out, parts = tmp_path / "gpu.json", []
    options = {"device": "cpu", "dtype": "auto", "num_runs": 1, "seedvr2": None}
    gpu_report(out, SHORT, **options, report=parts.append, only=("stages", "quality"))
    assert parts[:2] == ["stages: measured", "quality: measured"]
    results, table = json.loads(out.read_text()), out.with_suffix(".md").read_text()
    assert table.count("\n| ") == 2 + len(results["targets"])
    verdicts = {row["target"]: row["verdict"] for row in results["targets"]}
    close = {target: v for target, v in verdicts.items() if "against the reference" in target}
    assert {v for target, v in close.items() if "tiny" in target} == {"met"}
    assert {v for target, v in verdicts.items() if target not in close} <= {"shrunken", "open"}
    assert "shrunken" in verdicts.values()


def test_public_models_are_timed_with_each_decoder(tmp_path):
    out = tmp_path / "gpu.json"
    options = {"device": "cpu", "dtype": "float32", "num_runs": 1, "seedvr2": None}
    gpu_report(out, SHORT, **options, report=lambda _: None, only=("public",))
    results = json.loads(out.read_text())
    assert results["errors"] == {}
    rows = results["public"]
    assert [(row["model"], row["routing"], row["decoder"]) for row in rows] == [
        ("infvsr", "global", "wan"),
        ("infvsr", "thirds", "wan"),
        ("infvsr", "thirds", "tiny-both"),
        ("flashvsr-1.1", "global", "tiny"),
        ("flashvsr-1.1", "thirds", "tiny"),
        ("flashvsr-1.1", "thirds", "wan"),
    ]
    assert all(row["peak_bytes"] > 0 and row["seconds"] > 0 for row in rows)
    assert "visual encoder" in rows[0]["stages"]
    assert set(rows[3]["stages"]) == {"projector", "transformer", "decoder"}


def stage(seconds, tflop, fps=1.0):
    return {"seconds": 2 * seconds, "fps": fps,
            "stages": {"transformer": {"seconds": seconds, "tflop": tflop}}}  # fmt: skip


def full_results():
    names = [("720p", "wan"), ("1080p", "tiny"), ("4K", "tiny")]
    rows = []
    for name, decoder in names:
        for routing, values in (("thirds", stage(1.0, 100, 45.0)), ("global", stage(1.5, 200))):
            rows.append({"size_name": name, "routing": routing, "decoder": decoder} | values)
    return {
        "scale": {"sizes": dict.fromkeys(FULL.sizes), "is_full": True},
        "errors": {"quality": "RuntimeError: broken"},
        "stages": rows,
        "attention": [{"backend": "flex", "share_of_dense_rate": x} for x in (0.6, 0.4)],
        "memory": [{"budget_bytes": 8 << 30, "sizes": [[1920, 1080], [3840, 2160]],
                    "peak_bytes": 7 << 30, "tile": [640, 592], "plan": {"tile": [640, 592]}}],
        "seedvr2": {"seconds": 14.0},
    }  # fmt: skip


def test_verdicts_follow_from_the_figures():
    rows = {row["target"]: row for row in check_targets(full_results())}
    verdicts = {target: (row["got"], row["verdict"]) for target, row in rows.items()}
    assert [v for t, v in verdicts.items() if "SeedVR2" in t] == [(7.0, "met")]
    assert verdicts["1080p with the tiny decoder"] == (45.0, "met")
    ratios = [v for t, v in verdicts.items() if "counted ratio" in t]
    assert ratios == [(0.75, "met")] * 3
    assert [v for t, v in verdicts.items() if "FlexAttention" in t] == [(0.4, "missed")]
    assert [v for t, v in verdicts.items() if "8 GiB" in t] == [(7.0, "met")]
    failed = [row for t, row in rows.items() if "against the reference" in t]
    assert all(row["verdict"] == "open" and "broken" in row["reason"] for row in failed)


def test_what_did_not_fit_is_open_and_not_met():
    results = copy.deepcopy(full_results())
    results["stages"] = [{**row, "error": "out of memory"} for row in results["stages"]]
    verdicts = [r["verdict"] for r in check_targets(results) if "SeedVR2" in r["target"]]
    assert verdicts == ["open"]


def test_a_reason_names_the_part_that_lacks():
    results = full_results()
    results["stages"] = [{**row, "error": "out of memory"} for row in results["stages"]]
    del results["memory"]
    results["errors"]["memory"] = "RuntimeError: broken, too"
    reasons = {row["target"]: row["reason"] for row in check_targets(results)}
    assert [v for t, v in reasons.items() if "SeedVR2" in t] == ["ours did not fit"]
    assert [v for t, v in reasons.items() if "peak memory" in t] == ["RuntimeError: broken, too"]


def test_running_out_of_a_gpus_memory_is_missed():
    results = full_results()
    (row,) = results["memory"]
    del row["peak_bytes"]
    row |= {"reason": "CUDA out of memory", "has_run_out": True}
    (found,) = [r for r in check_targets(results) if "peak memory" in r["target"]]
    assert (found["got"], found["verdict"]) == (None, "missed")


def test_a_tile_that_had_to_shrink_is_missed():
    results = full_results()
    results["memory"][0]["tile"] = [320, 592]
    (found,) = [r for r in check_targets(results) if "peak memory" in r["target"]]
    assert (found["got"], found["verdict"]) == (None, "missed")
    assert found["reason"].endswith("the planned 592x640 px tiles, went on with 592x320 px")


def test_full_and_short_measure_the_same_things():
    assert list(FULL.sizes) == list(SHORT.sizes)
    assert FULL.config.num_heads == 12


def test_what_is_no_checkout_is_refused(tmp_path, capsys):
    assert main(["bench", "--compare", str(tmp_path)]) == 1
    assert "--compare needs --gpu-report or --random-weights" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be a checkout of github"):
        bench_seedvr2(tmp_path, size=(64, 48), num_frames=5, num_runs=1, device="cpu")


@pytest.mark.slow
def test_code_that_fails_is_said_in_one_sentence(tmp_path):
    (tmp_path / "configs_3b").mkdir()
    (tmp_path / "configs_3b" / "main.yaml").write_text("a: 1\n")
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "config.py").write_text("raise ImportError('no omegaconf here')\n")
    with pytest.raises(ValueError, match=r"SeedVR2's own code .* no omegaconf here"):
        bench_seedvr2(tmp_path, size=(64, 48), num_frames=5, num_runs=1, device="cpu")


needs_posix = pytest.mark.skipif(
    os.name == "nt", reason="a virtual environment lies elsewhere there"
)


def fake_checkout(folder, script):
    """A checkout of SeedVR2 as far as it is looked at, whose interpreter is a shell script."""
    (folder / "configs_3b").mkdir()
    (folder / "configs_3b" / "main.yaml").write_text("a: 1\n")
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(script)
    python.chmod(0o755)


@needs_posix
def test_it_is_given_the_frames_that_ours_restored(tmp_path):
    fake_checkout(tmp_path, '#!/bin/sh\nprintf \'{"seconds": 3.0, "asked": %s}\\n\' "$3"\n')
    ours = {"size": [96, 64], "frames": 9, "device_type": "cpu", "seconds": 2.0}
    theirs = bench_beside(tmp_path, ours, num_runs=1)
    assert (theirs["asked"]["size"], theirs["asked"]["frames"]) == ([96, 64], 9)
    assert theirs["times_ours"] == 1.5
    with pytest.raises(ValueError, match="multiples of 16 px, got 100x64"):
        bench_beside(tmp_path, ours | {"size": [100, 64]}, num_runs=1)


@needs_posix
def test_its_own_interpreter_is_used_also_by_a_relative_path(tmp_path, monkeypatch):
    fake_checkout(tmp_path, '#!/bin/sh\necho "{\\"in\\": \\"$PWD\\"}"\n')
    monkeypatch.chdir(tmp_path.parent)
    options = {"size": (64, 48), "num_frames": 5, "num_runs": 1, "device": "cpu"}
    assert bench_seedvr2(Path(tmp_path.name), **options) == {"in": str(tmp_path.resolve())}


def test_code_that_does_not_end_is_stopped_and_said(tmp_path):
    (tmp_path / "configs_3b").mkdir()
    (tmp_path / "configs_3b" / "main.yaml").write_text("a: 1\n")
    with pytest.raises(ValueError, match=r"within 0\.05 s, but it was stopped"):
        bench_seedvr2(
            tmp_path, size=(64, 48), num_frames=5, num_runs=1, device="cpu", timeout_s=0.05
        )


@pytest.mark.gpu
@pytest.mark.parametrize("gib", [6, 8, 12, 16, 24])
def test_1080p_to_4k_stays_inside_a_smaller_gpu(gib):
    scale = dataclasses.replace(FULL, budgets=(gib << 30,))
    (row,) = memory_rows(PartContext.make(scale, "cuda", "auto", 1))
    assert row["peak_bytes"] <= gib << 30
    assert row["tile"] == row["plan"]["tile"]  # it never ran out of memory on the way


@pytest.mark.gpu
def test_a_larger_gpu_than_there_is_cannot_be_tried():
    with (
        pytest.raises(ValueError, match="can be tried on a larger one only"),
        gpu_of_size(torch.device("cuda"), 1 << 50),
    ):
        pass
