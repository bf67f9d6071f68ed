"""The workflows and help pages as files: complete, consistent and in both forms."""

import ast
import importlib.util
import itertools
import json
import re
from pathlib import Path

import pytest

from oasis_core.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
SUBGRAPHS = sorted((ROOT / "subgraphs").glob("*.json"))
SHOWN_CORE_NAMES = {
    "Get Image from Batch",
    "Load Image",
    "Load Upscale Model",
    "Load Video",
    "Sharpen Image",
}
SLOT_PX, TITLE_PX = 20, 30
CORE_NODES = {
    "CLIPLoader",
    "CLIPTextEncode",
    "CreateVideo",
    "EmptyHunyuanLatentVideo",
    "GetVideoComponents",
    "ImageFromBatch",
    "ImageSharpen",
    "KSampler",
    "MarkdownNote",
    "ModelSamplingSD3",
    "PreviewAny",
    "PreviewImage",
    "SaveImage",
    "SaveVideo",
    "UNETLoader",
    "UpscaleModelLoader",
    "VAEDecode",
    "VAELoader",
}
OPTIONAL = {
    "OASISCompare": {"truth"},
    "OASISStitchTiles": {"images"},
    "OASISUpscaleTiles": {"images"},
}
LATER = {name for name, choice in OPTIONS.items() if choice.node and choice.node.is_later}
"""Inputs that a workflow need not name."""


def _node_ids():
    """`node_id` of every schema under nodes/, read without ComfyUI."""
    ids = {}
    for path in (ROOT / "nodes").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.keyword) and call.arg == "node_id":
                ids[ast.literal_eval(call.value)] = path
    return ids


NODE_IDS = _node_ids()


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    graph = json.loads(request.param.read_text(encoding="utf-8"))
    api = json.loads((request.param.parent / "api" / request.param.name).read_text("utf-8"))
    return graph, api


def test_there_are_workflows_and_nodes():
    assert len(WORKFLOWS) >= 8
    assert len(NODE_IDS) >= 11
    assert {p.name for p in (ROOT / "workflows" / "api").iterdir()} == {p.name for p in WORKFLOWS}
    pictures = {p.stem for p in (ROOT / "workflows").glob("*.jpg")}  # in the list of templates
    assert pictures == {p.stem for p in WORKFLOWS}


def test_no_link_runs_under_a_node_and_no_node_lies_on_another(workflow):
    graph, _ = workflow
    boxes = {n["id"]: (*n["pos"], *n["size"]) for n in graph["nodes"]}
    for link, source, slot, target, position, _ in graph["links"]:
        x, y, width, _ = boxes[source]
        start = x + width, y + 10 + SLOT_PX * slot
        end = boxes[target][0], boxes[target][1] + 10 + SLOT_PX * position
        assert start[0] < end[0], "links go from left to right"
        for share in range(1, 100):
            part = share / 100  # as the page bends it
            bent = 3 * part**2 - 2 * part**3
            place = [a + (b - a) * at for a, b, at in zip(start, end, (part, bent), strict=True)]
            others = [box for node, box in boxes.items() if node not in (source, target)]
            assert not any(_holds(box, place) for box in others), link
    for first, second in itertools.combinations(boxes.values(), 2):
        apart = [
            first[a] + first[a + 2] <= second[a] - title
            or second[a] + second[a + 2] <= first[a] - title
            for a, title in ((0, 0), (1, TITLE_PX))
        ]
        assert any(apart), (first, second)


def _holds(box, place):
    x, y, width, height = box
    return x < place[0] < x + width and y - TITLE_PX < place[1] < y + height


@pytest.mark.parametrize("path", SUBGRAPHS, ids=lambda path: path.stem)
def test_blueprints_are_whole_and_like_the_workflows(path):
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    (outer,), (inner,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"]
    assert outer["title"] == inner["name"] == path.stem
    nodes = {node["id"]: node for node in inner["nodes"]}
    for link in inner["links"]:
        number, source, target = link["id"], link["origin_id"], link["target_id"]
        if source in nodes:
            assert number in nodes[source]["outputs"][link["origin_slot"]]["links"]
        else:
            assert number in inner["inputs"][link["origin_slot"]]["linkIds"]
        if target in nodes:
            assert nodes[target]["inputs"][link["target_slot"]]["link"] == number
        else:
            assert number in inner["outputs"][link["target_slot"]]["linkIds"]
    known = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
    for node, widget in outer["properties"]["proxyWidgets"]:
        kind = nodes[int(node)]["type"]
        assert kind not in known or widget in known[kind]["inputs"], widget
    shipped = {
        node["type"]: node["widgets_values"]
        for workflow in WORKFLOWS
        for node in json.loads(workflow.read_text(encoding="utf-8"))["nodes"]
        if workflow.name.startswith(("1 ", "10 "))
    }
    for node in nodes.values():
        assert len(node["widgets_values"]) == len(shipped[node["type"]]), node["type"]


def test_notes_name_nodes_and_inputs_as_the_page_does(workflow):
    graph, _ = workflow
    defs = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    known = {node["display_name"] for node in defs.values()} | SHOWN_CORE_NAMES
    for node in graph["nodes"]:
        known |= set(defs.get(node["type"], {}).get("inputs", {}))
    (note,) = (n["widgets_values"][0] for n in graph["nodes"] if n["type"] == "MarkdownNote")
    named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", note)
    files = {name for name in named if "/" in name or name.endswith(".safetensors")}
    assert set(named) - files <= known


def test_workflows_use_only_our_nodes_and_old_core_ones(workflow):
    graph, api = workflow
    used = {node["type"] for node in graph["nodes"]}
    assert used <= CORE_NODES | set(NODE_IDS)
    assert {node["class_type"] for node in api.values()} == used - {"MarkdownNote"}


def test_both_forms_have_the_same_links(workflow):
    graph, api = workflow
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = set()
    for link, source, slot, target, position, kind in graph["links"]:
        assert nodes[target]["inputs"][position]["link"] == link
        output = nodes[source]["outputs"][slot]
        assert link in output["links"]
        assert kind == "*" or output["type"] in kind.split(",")
        assert kind == nodes[target]["inputs"][position]["type"]
        links.add((str(source), slot, str(target), nodes[target]["inputs"][position]["name"]))
    assert links == {
        (*value, target, name)
        for target, node in api.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }


def test_both_forms_have_the_same_values(workflow):
    graph, api = workflow
    for node in graph["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values = [v for v in api[str(node["id"])]["inputs"].values() if not isinstance(v, list)]
        shown = [v for v in node["widgets_values"] if v != "fixed"]  # what a seed does afterwards
        assert shown == values


def test_api_form_gives_every_input_of_our_nodes(workflow):
    # The locale's inputs are those of the schemas, which another test checks inside ComfyUI.
    locale = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for node in workflow[1].values():
        if node["class_type"] in NODE_IDS:
            known = set(locale[node["class_type"]].get("inputs", {}))
            assert set(node["inputs"]) <= known
            missing = known - set(node["inputs"])
            assert missing <= OPTIONAL.get(node["class_type"], set()) | LATER


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_node_has_a_help_page_of_its_inputs_and_outputs(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith("# OASIS ")
    assert page.isascii()
    node = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))[node_id]
    rows = re.findall(r"^\| ([a-z0-9_, ]+?)(?: \(.+?\))? \|", page, re.MULTILINE)
    said = {name for row in rows for name in row.split(", ")}
    assert said == set(node.get("inputs", {})) | {port["name"] for port in node["outputs"].values()}


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_node_has_a_help_page_in_chinese_of_what_its_locale_says(node_id):
    path = ROOT / "docs" / "make_zh_help.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    node = json.loads(maker.LOCALE.read_text(encoding="utf-8"))[node_id]
    page = (ROOT / "web" / "docs" / node_id / "zh.md").read_text(encoding="utf-8")
    assert page == maker.page(node_id, node), "run python docs/make_zh_help.py"


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_node_is_prefixed_and_has_a_file_of_its_own(node_id):
    assert node_id.startswith("OASIS")
    assert len([path for path in NODE_IDS.values() if path == NODE_IDS[node_id]]) == 1


def test_only_the_adapters_touch_comfyui_itself():
    for path in (ROOT / "nodes").rglob("*.py"):
        names = set()
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(item, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in item.names}
            elif isinstance(item, ast.ImportFrom) and not item.level:
                names.add(item.module.partition(".")[0])
        touched = names & {"comfy", "folder_paths", "nodes", "server", "execution"}
        assert not touched or path.parent.name == "_adapters", path
        assert "oasis_core" not in names, f"{path}: only relative imports find the pack"
