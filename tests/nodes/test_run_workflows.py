"""The shipped workflows, queued as they are."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.nodes.media import frames_of, psnr_db, resized, sound_of
from tests.nodes.prompts import workflow

pytestmark = pytest.mark.comfy

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))

# Per workflow: the node that saves, and frames, height and width of what it saves.
SAVED = {
    "2 Upscale an image": ("6", 1, 720, 1280),
    "3 Restore without enlarging": ("4", 72, 180, 320),
    "5 Tiles with other nodes between": ("10", 8, 360, 640),
    "6 Take the plastic look off": ("8", 24, 180, 320),
    "7 Calibrate the routing": ("10", 4, 720, 1280),
}


@pytest.mark.parametrize("name", SAVED)
def test_workflow_runs_as_it_is(server, name):
    node, count, height, width = SAVED[name]
    run = server.run(workflow(name))
    assert run.is_success, run.history
    frames = [frame for path in run.files(node) for frame in frames_of(path)]
    assert len(frames) == count
    assert {frame.shape for frame in frames} == {(height, width, 3)}


def test_compare_workflow_measures_and_shows(server):
    run = server.run(workflow("4 Degrade, upscale, compare"))
    assert run.is_success, run.history
    metrics = json.loads(run.text("8"))
    assert metrics["reference"] == "truth"
    assert metrics["after"]["psnr_db"] > metrics["before"]["psnr_db"] > 20
    (shown,) = run.history["outputs"]["7"]["oasis_compare"]
    assert shown["metrics"] == metrics
    frames = frames_of(server.base / "temp" / shown["filename"])
    assert len(frames) == shown["frames"] == 8
    assert frames[0].shape == (shown["height"], 2 * shown["width"], 3) == (180, 640, 3)
    assert server.run(workflow("4 Degrade, upscale, compare")).cached >= {"5", "6", "7"}


@pytest.mark.slow
def test_video_workflow_runs_as_it_is(server):
    run = server.run(workflow("1 Upscale a video"))
    assert run.is_success, run.history
    source = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
    (path,) = run.files("4")
    before, after = frames_of(source), frames_of(path)
    assert len(after) == len(before) == 72
    assert sound_of(path) == sound_of(source)
    for index in (0, 35, 71):
        assert psnr_db(after[index], resized(before[index], 1280, 720)) > 30
    again = server.run(workflow("1 Upscale a video"))
    assert "3" in again.cached


@pytest.mark.parametrize("name", [name for name in NAMES if int(name.split()[0]) >= 8])
def test_workflow_lacks_nothing_but_files_of_models(server, name):
    answer = server.post("/prompt", {"prompt": workflow(name)})
    loaders = {"UpscaleModelLoader", "UNETLoader", "CLIPLoader", "VAELoader", "OASISLoadModel"}
    if "prompt_id" in answer:  # ComfyUI before 0.8 does not check choices: the node does
        (message,) = server.wait(answer["prompt_id"]).messages("execution_error")
        assert message["node_type"] in loaders
        return
    wrong = answer["node_errors"].values()
    assert wrong
    assert {node["class_type"] for node in wrong} <= loaders
    kinds = {error["type"] for node in wrong for error in node["errors"]}
    assert kinds == {"value_not_in_list"}


def test_workflows_are_offered_as_templates(server):
    names = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert set(server.get("/workflow_templates")["oasis"]) == names


def test_blueprints_are_offered(server):
    try:
        offered = server.get("/global_subgraphs").values()
    except (urllib.error.HTTPError, json.JSONDecodeError):
        pytest.skip("this ComfyUI knows no blueprints")
    names = {path.stem for path in (ROOT / "subgraphs").glob("*.json")}
    assert names <= {entry["name"] for entry in offered}


def test_help_is_served(server):
    with urllib.request.urlopen(f"{server.url}/extensions/oasis/docs/OASISUpscaleVideo.md") as page:
        assert page.read().startswith(b"# OASIS Upscale Video")
