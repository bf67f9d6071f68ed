"""What ComfyUI sees: the pack loaded by its own loader, in its own interpreter."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.comfy

NODES = (
    "OASISLoadModel",
    "OASISFromUpscaleModel",
    "OASISUpscaleVideo",
    "OASISUpscaleImages",
    "OASISCompare",
    "OASISSplitTiles",
    "OASISUpscaleTiles",
    "OASISStitchTiles",
    "OASISDegrade",
    "OASISCalibrateRouting",
    "OASISApplyRouting",
    "OASISDenoiseToLatent",
    "OASISExampleClip",
)
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# The working imports of a first run, which ComfyUI's start must not pay for.
LAZY = ("oasis_core.checkpoint", "oasis_core.model", "oasis_core.upscale", "oasis_core.degradation")


@pytest.fixture(params=NODES)
def node(request, pack):
    return pack["nodes"][request.param]


def test_the_pack_offers_exactly_its_nodes(pack):
    assert pack["is_loaded"]
    assert sorted(pack["nodes"]) == sorted(NODES)
    assert sorted(pack["public"]) == ["WEB_DIRECTORY", "comfy_entrypoint"]


def test_loading_is_quick_and_leaves_the_work_for_later(pack):
    print(f"loaded in {pack['seconds']:.3f} s")  # noqa: T201 - for docs/comfyui.md, with pytest -s
    assert pack["seconds"] < 0.3
    heavy = [name for name in pack["imported"] if any(name.endswith(lazy) for lazy in LAZY)]
    assert not heavy


def test_broken_optional_packages_change_nothing(pack):
    assert pack["run"]["shape"] == [2, 32, 32, 3]


def test_the_model_leaves_when_others_need_the_memory(pack):
    assert pack["run"]["unloaded"] == 1
    assert pack["run"]["is_same"]


def test_a_renamed_node_would_be_replaced(pack):
    listed = pack["replacements"]
    if listed is None:
        pytest.skip("this ComfyUI knows no replacements")
    (entry,) = listed["OASISOldName"]
    assert entry["new_node_id"] == "OASISDegrade"


def test_choices_are_those_of_the_core(pack):
    for name, (shown, core) in pack["constants"].items():
        if name == "codecs":  # those that Save Video can copy into an MP4, and a lossless one
            assert set(shown) < set(core)
        else:
            assert shown == core, name


def test_execute_takes_the_inputs_in_order(node):
    # ComfyUI passes by name; an empty optional one is not passed and so needs a default, last.
    own = [port for port in node["inputs"] if not is_later(node, port)]
    ids = sorted(own, key=lambda port: bool(port["optional"]))
    assert node["parameters"] == [port["id"] for port in ids]
    # What came later stands last, where the widgets of older workflows do not count it.
    assert node["inputs"][: len(own)] == own


def is_later(node, port):
    """Whether the node takes an input from the table of options, by whatever name."""
    is_named = port["id"] in node["parameters"]
    return node["takes_later"] and port["optional"] and not is_named


def test_required_inputs_have_their_default_in_the_schema_only(node):
    own = [port for port in node["inputs"] if not is_later(node, port)]
    assert node["defaults"] == [port["id"] for port in own if port["optional"]]
    for port in node["inputs"]:
        if port["type"] in WIDGETS:
            assert not port["optional"] or is_later(node, port)
            assert port["default"] is not None or port["options"], port["id"]


def test_everything_is_explained(node):
    assert node["category"] == "OASIS"
    assert node["display_name"].startswith("OASIS ")
    assert node["description"].endswith(".")
    for port in node["inputs"] + node["outputs"]:
        assert port["tooltip"], port
    for port in node["outputs"]:
        assert port["display_name"]


def test_ids_of_inputs_and_outputs_differ(node):
    # ComfyUI up to 0.3.75 refuses a name on both sides.
    inputs = {port["id"] for port in node["inputs"]}
    assert not inputs & {port["id"] for port in node["outputs"]}


def test_few_inputs_are_visible(node):
    shown = [port["id"] for port in node["inputs"] if not port["advanced"]]
    if any(port["advanced"] for port in node["inputs"]):  # ComfyUI from 0.11 on
        assert len(shown) <= 8, shown


def test_english_locale_says_what_the_schemas_say(pack):
    defs = locale("en")
    assert sorted(defs) == sorted(NODES)
    for name, node in pack["nodes"].items():
        assert defs[name]["display_name"] == node["display_name"]
        assert defs[name]["description"] == node["description"]
        inputs = {port["id"]: port["tooltip"] for port in node["inputs"]}
        assert {key: port["tooltip"] for key, port in defs[name]["inputs"].items()} == inputs
        outputs = [(port["display_name"], port["tooltip"]) for port in node["outputs"]]
        assert [(p["name"], p["tooltip"]) for p in defs[name]["outputs"].values()] == outputs


def test_translations_are_complete():
    english, chinese = locale("en"), locale("zh")
    for name, node in english.items():
        assert node.keys() == chinese[name].keys()
        for ports in ("inputs", "outputs"):
            assert node[ports].keys() == chinese[name][ports].keys()
            assert all(port["tooltip"] and port["name"] for port in chinese[name][ports].values())
    words = json.loads((ROOT / "locales" / "zh" / "main.json").read_text("utf-8"))["oasis"]
    source = (ROOT / "web" / "text.js").read_text("utf-8")
    assert sorted(words) == sorted(re.findall(r"^  (\w+): \"", source, re.MULTILINE))


def locale(language):
    path = ROOT / "locales" / language / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8"))
