"""Every node with inputs drawn at random: a result or one clear sentence, and the queue goes on."""

import json
import re
from random import Random

import pytest

from tests.nodes.prompts import LOAD, SETTINGS, assert_goes_on, node_prompt
from tests.nodes.test_run_mistakes import OURS, widgets_of

pytestmark = pytest.mark.comfy

QUICK, LONG = range(26), range(26, 400)
LARGEST = {
    "width": 128,
    "height": 128,
    "scale": 8.0,
    "frames": 9,
    "crop_px": 128,
    "preview_s": 2.0,
    "max_frames": 50,
    "detail": 1.0,
}
"""So that a test takes seconds; values beyond the limits have tests of their own."""
LARGE = ("target",)
"""Widgets that make pictures of thousands of pixels, and have tests of their own."""
EDGE_SHARE = 0.15
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")


def drawn(random, name, kind, limits):
    """A value of a widget within its limits."""
    if kind == "BOOLEAN":
        return random.random() < 0.5
    if kind == "STRING":
        return random.choice(("", "fuzz/a", "a b", "%date%", "..", "../out", "/x", "a\0b", "ä"))
    least, most = limits["min"], min(limits["max"], LARGEST.get(name, limits["max"]))
    edge = random.random()
    if edge < EDGE_SHARE:
        return random.choice((least, limits.get("default", least), most))
    value = least + (most - least) * random.random() ** 3
    return int(value) if kind == "INT" else value


def choices_of(info, name):
    kind, *rest = {**info.get("required", {}), **info.get("optional", {})}[name]
    return kind if isinstance(kind, list) else rest[0]["options"]


def fuzz_prompt(server, seed):
    """A node with half of its widgets and all of its pictures at random."""
    random = Random(seed)
    node = list(SETTINGS)[seed % len(SETTINGS)]
    info = server.get(f"/object_info/{node}")[node]["input"]
    changes = {}
    for name, kind, limits in widgets_of(server, node):
        if name in LARGE or isinstance(SETTINGS[node].get(name, []), list):
            continue
        if random.random() < 0.5:
            continue
        if kind == "COMBO":
            changes[name] = random.choice(choices_of(info, name))
        elif kind in WIDGETS:
            changes[name] = drawn(random, name, kind, limits)
        elif kind == "MASK":
            changes[name] = ["10", 0]
    if node == "OASISLoadModel" or changes.get("model_name"):
        changes["model_name"] = LOAD["inputs"]["model_name"]
    prompt = node_prompt(node, **changes)
    if ["10", 0] in changes.values():
        prompt["10"] = {"class_type": "RandomMask", "inputs": {"seed": seed}}
    if "2" in prompt:
        is_video = "video" in SETTINGS[node] or (node == "OASISCompare" and random.random() < 0.5)
        kind = "RandomVideo" if is_video else "RandomImages"
        prompt["2"] = {"class_type": kind, "inputs": {"seed": seed}}
    if node == "OASISCompare" and random.random() < 0.5:
        prompt["9"] = {"class_type": "RandomImages", "inputs": {"seed": seed + 1}}
        prompt["3"]["inputs"]["after"] = ["9", 0]
    return prompt


def assert_clear(message):
    """One sentence of ours: what must hold, what was given, what to do; no path, no traceback."""
    kind = message["exception_type"].rpartition(".")[2]
    text = message["exception_message"].strip()
    assert kind in OURS, message
    assert "." not in message["exception_type"], message["exception_type"]  # no path of the pack
    assert "\n" not in text, text
    assert 20 < len(text) < 400, text
    assert not re.search(r"/custom_nodes/|oasis_core|Traceback|<[a-z]+ object", text), text


def assert_answers(server, seed):
    prompt = fuzz_prompt(server, seed)
    answer = server.post("/prompt", {"prompt": prompt})
    if "prompt_id" not in answer:
        assert answer["node_errors"], (prompt, answer)  # ComfyUI's own limits
        return
    run = server.wait(answer["prompt_id"])
    if run.is_success:
        return
    (message,) = run.messages("execution_error")
    drawn_from = json.dumps([prompt["3"], prompt.get("2"), prompt.get("9"), prompt.get("10")])
    print(drawn_from, *message.pop("traceback")[-3:])  # noqa: T201 - shown by pytest
    assert message["node_type"].startswith("OASIS"), message["node_type"]
    assert_clear(message)


@pytest.mark.parametrize("seed", QUICK)
def test_anything_ends_in_a_result_or_one_sentence(server, clip, seed):
    assert_answers(server, seed)
    assert_goes_on(server)


@pytest.mark.slow
@pytest.mark.parametrize("seed", LONG)
def test_anything_at_length_ends_in_a_result_or_one_sentence(server, clip, seed):
    assert_answers(server, seed)
    assert_goes_on(server)
