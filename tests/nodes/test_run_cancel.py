"""Cancelling every node at moments drawn by a seed, told by how often it looks, not by a watch."""

import itertools
from random import Random

import pytest

from tests.nodes.prompts import STRENGTHS, assert_goes_on, empty_images, node_prompt

pytestmark = pytest.mark.comfy

NUM_QUICK, NUM_LONG = 3, 20
LEAST_LOOKS = {
    "OASISDegrade": 60,
    "OASISUpscaleImages": 150,
    "OASISUpscaleVideo": 150,
    "OASISUpscaleTiles": 200,
    "OASISCalibrateRouting": 20,
    "OASISCompare": 80,
    "OASISSplitTiles": 8,
    "OASISStitchTiles": 4,
}
"""At every frame, tile, pass or layer of its work."""
CHANGES = {
    "OASISCompare": {"flicker": True, "max_frames": 8},
    "OASISDegrade": {"preset": "consistent"},
    "OASISUpscaleTiles": {"scale": 1.0},
}
COLOURS = itertools.count(1)
"""So that no cache holds what is before the node."""


def prompt_with(node, looks):
    """The node, number 3, cancelled at its look of that number; never for 0."""
    changes, source = dict(CHANGES.get(node, {})), empty_images(96, 96, 8)
    source["inputs"]["color"] = next(COLOURS)
    is_video = node == "OASISUpscaleVideo"
    if is_video:
        changes["strength"] = next(STRENGTHS)  # a job of its own, which goes on with no other
    prompt = node_prompt(node, None if is_video else source, **changes)
    kind = "CancelVideoAt" if is_video else "CancelAt"
    values = {"value": ["2", 0], "node": "3", "looks": looks}
    for step in prompt.values():
        for name, value in step["inputs"].items():
            if value == ["2", 0]:
                step["inputs"][name] = ["8", 0]
    prompt["8"] = {"class_type": kind, "inputs": values}
    return prompt


def looks_of(server):
    count, longest_s = (server.base / "temp" / "looks.txt").read_text().split()
    return int(count), float(longest_s)


def assert_ends_at_its_next_look(server, node, num_moments):
    run = server.run(prompt_with(node, 0))
    assert run.is_success, run.history
    total, longest_s = looks_of(server)
    print(f"{node}: {total} looks, at most {longest_s} s apart")  # noqa: T201 - with pytest -s
    assert total >= LEAST_LOOKS[node]
    random = Random(node)
    for looks in [1, *(random.randint(1, total - 1) for _ in range(num_moments - 1))]:
        run = server.run(prompt_with(node, looks))
        (message,) = run.messages("execution_interrupted")
        assert message["node_id"] == "3"
        assert looks_of(server)[0] == looks  # that look was its last
    assert_goes_on(server)


@pytest.mark.parametrize("node", LEAST_LOOKS)
def test_a_node_ends_at_its_next_look(server, clip, node):
    assert_ends_at_its_next_look(server, node, NUM_QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("node", LEAST_LOOKS)
def test_a_node_ends_at_its_next_look_twenty_times(server, clip, node):
    assert_ends_at_its_next_look(server, node, NUM_LONG)
