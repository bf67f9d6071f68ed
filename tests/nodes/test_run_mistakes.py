"""What users get wrong: each is answered in a sentence, and the queue goes on."""

import json

import av
import numpy as np
import pytest

from tests.nodes.prompts import (
    LOAD,
    MODEL,
    SETTINGS,
    assert_goes_on,
    empty_images,
    image_prompt,
    node_prompt,
    video_prompt,
)

pytestmark = pytest.mark.comfy

OURS = ("ValueError", "VideoError", "CheckpointError", "DegradationError")


@pytest.fixture(scope="module", autouse=True)
def goes_on_afterwards(server):
    yield
    assert_goes_on(server)


def refusal(server, prompt):
    """What ComfyUI says of a prompt, before running it or of node 3."""
    answer = server.post("/prompt", {"prompt": prompt})
    if "prompt_id" not in answer:
        return json.dumps(answer["node_errors"])
    run = server.wait(answer["prompt_id"])
    (message,) = run.messages("execution_error")
    # An error of ours, not one of Python or torch further down.
    assert message["exception_type"].rpartition(".")[2] in OURS
    return message["exception_message"]


# Values of inputs


def widgets_of(server, node):
    """Name, type and limits of the widgets of a node, as ComfyUI knows them."""
    inputs = server.get(f"/object_info/{node}")[node]["input"]
    for name, (kind, *rest) in {**inputs.get("required", {}), **inputs.get("optional", {})}.items():
        yield name, "COMBO" if isinstance(kind, list) else kind, rest[0] if rest else {}


@pytest.mark.parametrize("node", SETTINGS)
def test_numbers_beyond_the_limits_are_refused(server, clip, node):
    for name, kind, limits in widgets_of(server, node):
        if kind in ("INT", "FLOAT"):
            for value in (limits["min"] - 1, limits["max"] + 1):
                assert name in refusal(server, node_prompt(node, **{name: value})), value


@pytest.mark.parametrize("node", SETTINGS)
def test_no_number_is_refused(server, clip, node):
    for name, kind, _ in widgets_of(server, node):
        if kind == "FLOAT":  # Python's JSON, and so ComfyUI's, knows NaN, which no limit stops
            text = refusal(server, node_prompt(node, **{name: float("nan")}))
            assert name in text
            assert "nan" in text.lower()


@pytest.mark.parametrize("node", SETTINGS)
def test_unknown_choices_are_refused(server, clip, node):
    for name, kind, _ in widgets_of(server, node):
        if kind == "COMBO":
            text = refusal(server, node_prompt(node, **{name: "unknown"}))
            assert name in text
            # ComfyUI before 0.8 does not check choices.
            assert "value_not_in_list" in text or f"{name} must be" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 32768, "height": 32768}, "OASIS Upscale Video"),
        ({"tile_px": 8}, "tile_px must be at least"),
    ],
)
def test_impossible_settings_are_refused_in_words(server, changes, said):
    assert said in refusal(server, image_prompt(empty_images(64, 64, 8), **changes))


# Images


@pytest.mark.parametrize("node", ["OASISUpscaleImages", "OASISDegrade", "OASISCalibrateRouting"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", "images must be finite"),
        ("no frames", "images must be a batch"),
        ("gray", "images must be a batch"),
        ("one picture", "images must be a batch"),
    ],
)
def test_odd_images_are_refused_in_words(server, node, kind, said):
    source = {"class_type": "OddImages", "inputs": {"kind": kind}}
    assert said in refusal(server, node_prompt(node, source))


@pytest.mark.parametrize("kind", ["nan", "no frames", "gray", "one picture"])
def test_odd_images_are_not_compared(server, kind):
    source = {"class_type": "OddImages", "inputs": {"kind": kind}}
    assert "images must be" in refusal(server, node_prompt("OASISCompare", source))


@pytest.mark.parametrize("kind", ["no frames", "one picture"])
def test_odd_images_are_not_split(server, kind):
    source = {"class_type": "OddImages", "inputs": {"kind": kind}}
    assert "images must be a batch" in refusal(server, node_prompt("OASISSplitTiles", source))


@pytest.mark.parametrize("node", ["OASISUpscaleImages", "OASISDegrade", "OASISSplitTiles"])
@pytest.mark.parametrize("kind", ["rgba", "half", "beyond", "strided", "infinite"])
def test_unusual_images_are_taken(server, node, kind):
    source = {"class_type": "OddImages", "inputs": {"kind": kind}}
    run = server.run(node_prompt(node, source))
    assert run.is_success, run.history


def test_pictures_of_one_pixel(server):
    source = {"class_type": "OddImages", "inputs": {"kind": "one pixel"}}
    assert "at least" in refusal(server, node_prompt("OASISCalibrateRouting", source))
    for node in ("OASISUpscaleImages", "OASISCompare", "OASISDegrade", "OASISSplitTiles"):
        assert server.run(node_prompt(node, source)).is_success


# Files


def test_file_that_is_no_video_is_refused_in_words(server):
    (server.base / "input" / "broken.mp4").write_bytes(b"not a video" * 100)
    assert "broken.mp4" in refusal(server, video_prompt("broken.mp4"))


def test_sound_without_pictures_is_refused_in_words(server):
    path = server.base / "input" / "sound.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        block.sample_rate = 48000
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    assert "sound.mp4" in refusal(server, video_prompt("sound.mp4"))


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../b", "folder/", "a\0b"])
def test_result_outside_the_output_folder_is_refused_before_any_work(server, clip, name):
    text = refusal(server, video_prompt(file_name=name))
    assert "file_name must be a name within the output folder" in text


@pytest.mark.parametrize("name", ["nowhere.mp4", "../models/oasis/foreign.safetensors"])
def test_video_outside_the_folder_is_refused(server, name):
    assert name in refusal(server, video_prompt(name))


@pytest.mark.parametrize("name", ["nowhere.safetensors", "../../input/small.mp4", "/etc/hostname"])
def test_model_outside_the_list_is_refused(server, name):
    text = refusal(server, node_prompt("OASISLoadModel", model_name=name))
    assert "value_not_in_list" in text or "model_name must be one of" in text


def test_foreign_model_file_is_refused_in_words(server):
    (server.base / "models" / "oasis" / "foreign.safetensors").write_bytes(b"\0" * 64)
    prompt = image_prompt(empty_images())
    values = {**MODEL, "model_name": "foreign.safetensors", "dtype": "auto"}
    prompt["1"] = {**LOAD, "inputs": values}
    assert "foreign.safetensors cannot be read" in refusal(server, prompt)
