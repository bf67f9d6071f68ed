"""What the page is told of a node at work: the truth in every stage, by the test's own clock."""

import importlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def status_module():
    """The module under packages that are not run, since those of the nodes import ComfyUI."""
    for name, folder in (("pack_at_rest", ROOT), ("pack_at_rest.nodes", ROOT / "nodes")):
        package = sys.modules.setdefault(name, types.ModuleType(name))
        package.__path__ = [str(folder)]
    return importlib.import_module("pack_at_rest.nodes._status")


class Run:
    """A status with its messages and a clock that is set by hand."""

    def __init__(self, unit="frames"):
        module = status_module()
        self.now_s, self.sent = 100.0, []
        self.status = module.Status(self.sent.append, unit, clock=lambda: self.now_s)

    @property
    def last(self):
        return self.sent[-1]

    def work(self, seconds, stage, done, total, step=0, steps=0):
        self.now_s += seconds / 2
        self.status.stage(stage, step, steps)
        self.now_s += seconds / 2
        self.status.report(done, total)


def test_the_first_message_comes_at_once_and_belongs_to_this_run():
    run = Run()
    assert run.last["stage"] == "start"
    assert run.last["done"] == 0
    assert "eta_s" not in run.last


def test_every_stage_is_told_when_it_begins_and_its_steps_as_they_go():
    run = Run()
    for name in ("load", "precision", "plan", "read"):
        run.status.stage(name)
        assert run.last["stage"] == name
    for index in range(21):
        run.now_s += 0.5
        run.status.stage("motion", index, 21)
        assert (run.last["step"], run.last["steps"]) == (index + 1, 21)


def test_steps_that_come_fast_are_told_four_times_a_second():
    run = Run()
    for index in range(1000):
        run.now_s += 0.001
        run.status.stage("read", index, 1000)
    assert 4 <= len(run.sent) <= 6


def test_no_time_left_before_it_can_be_known_and_then_a_good_one():
    run = Run()
    run.work(40.0, "read", 0, 100)  # silence at the start is no slowness
    seen = []
    for done in range(1, 100):
        run.work(1.0, "model", done, 100)
        seen.append(run.last.get("eta_s"))
    assert seen[0] is seen[1] is None
    assert all(left is None for left in seen[:4])
    known = [(done, left) for done, left in enumerate(seen, start=1) if left is not None]
    assert len(known) > 90
    assert all(left == pytest.approx(100 - done, rel=0.01) for done, left in known)


def test_a_time_left_runs_out_while_nothing_is_reported():
    run = Run()
    for done in range(1, 7):
        run.work(1.0, "model", done, 8)
    left = run.last["eta_s"]
    run.now_s += 1.0
    run.status.stage("measure", 1, 8)
    assert run.last["eta_s"] == pytest.approx(left - 1.0)
    run.now_s += 5.0
    run.status.stage("measure", 2, 8)
    assert "eta_s" not in run.last


def test_a_node_without_stages_is_at_work_once_it_counts():
    run = Run("steps")
    run.now_s += 1.0
    run.status.report(0.5, 3)
    assert run.last["stage"] == "work"


def test_the_end_is_frames_divided_by_seconds():
    run = Run()
    for done in range(1, 51):
        # Slow, then fast: the speed of the last seconds would be another.
        run.work(2.0 if done < 25 else 0.5, "model", done, 50)
    run.status.finish()
    assert run.last["finished"]
    assert run.last["seconds"] == pytest.approx(run.now_s - 100)
    assert run.last["fps"] == pytest.approx(50 / run.last["seconds"])
    assert "eta_s" not in run.last


def test_frames_of_an_earlier_run_count_neither_for_speed_nor_for_the_time_left():
    run = Run()
    run.work(0.5, "read", 400, 1000)
    for done in range(401, 601):
        run.work(1.0, "model", done, 1000)
    assert run.last["eta_s"] == pytest.approx(400, rel=0.02)
    for done in range(601, 1001):
        run.work(1.0, "model", done, 1000)
    run.status.finish()
    assert run.last["fps"] == pytest.approx(600 / 600.5, rel=0.01)


def test_a_result_of_an_earlier_run_is_called_so():
    run = Run()
    run.status.kept()
    assert run.last == {"kept": True}


def words(facts):
    """What the page shows for a message."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run JavaScript")
    code = (
        f"import {{ describe }} from {json.dumps((ROOT / 'web/status_line.js').as_uri())};"
        f"console.log(JSON.stringify({json.dumps(facts)}.map(describe)));"
    )
    done = subprocess.run(
        [node, "--input-type=module", "-e", code], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"this node cannot: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout)


def test_the_words_on_the_line():
    run = Run()
    run.work(1.0, "motion", 0.0, 50, 6, 21)
    first = run.last
    run.status.place(shot=1, segment=2)
    for done in range(1, 26):
        run.work(1.0, "model", done, 50)
    middle = run.last
    run.status.report(50, 50)
    run.status.finish()
    assert words([first, middle, run.last]) == [
        "finding motion 7/21",
        "model at work \u00b7 25/50 frames \u00b7 0:25 left \u00b7 shot 1 \u00b7 segment 2",
        "50/50 frames \u00b7 in 0:26 \u00b7 1.92 fps",
    ]
    tiles = Run("tiles")
    tiles.work(1.0, "model", 2.5, 8)
    assert words([tiles.last]) == ["model at work \u00b7 2/8 tiles"]
