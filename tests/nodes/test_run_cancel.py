"""Cancelling every node at every stage, told by how often a node looks for it, not by a watch."""

import pytest

from tests.nodes.prompts import assert_goes_on, empty_images, node_prompt

pytestmark = pytest.mark.comfy

LOOKS = {
    "OASISDegrade": (3, 20, 60),
    "OASISUpscaleImages": (5, 40, 200),
    "OASISUpscaleTiles": (5, 40, 200),
    "OASISCalibrateRouting": (3, 20),
    "OASISCompare": (5, 30, 80),
    "OASISSplitTiles": (2, 6),
    "OASISStitchTiles": (2, 3),
}
"""How many looks into a node it is cancelled; each is at another frame, tile, pass or layer."""
CHANGES = {
    "OASISCompare": {"flicker": True, "max_frames": 8},
    "OASISDegrade": {"preset": "consistent"},
    "OASISUpscaleTiles": {"scale": 1.0},
}


@pytest.mark.parametrize(
    ("node", "looks"), [(node, looks) for node, many in LOOKS.items() for looks in many]
)
def test_a_node_ends_at_its_next_look(server, node, looks):
    # A colour of its own, so that no cache holds what is before the node.
    source = empty_images(96, 96, 8)
    source["inputs"]["color"] = 1000 * looks + list(LOOKS).index(node)
    prompt = node_prompt(node, source, **CHANGES.get(node, {}))
    prompt["8"] = {
        "class_type": "CancelAt",
        "inputs": {"images": ["2", 0], "node": "3", "looks": looks},
    }
    for key, values in prompt.items():
        if key != "8":
            for name, value in values["inputs"].items():
                if value == ["2", 0]:
                    values["inputs"][name] = ["8", 0]
    run = server.run(prompt)
    (message,) = run.messages("execution_interrupted")
    assert message["node_id"] == "3"
    assert_goes_on(server)
