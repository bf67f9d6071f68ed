"""The front end in a real browser: both renderers, mouse and keyboard.

Needs the extra `test-web` and a Chromium: Playwright's own, or the one at OASIS_CHROMIUM or on the
path. With OASIS_SCREENSHOTS, a folder, pictures of what was tested are left there to be looked at.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from oasis_core.options import OPTIONS

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
WAIT_MS = 300_000
STAGE = ".oasis-stage"
LAST_WITHOUT_VUE = [1, 27]
READY = """() => window.app?.extensionManager && window.app?.graph
    && window.LiteGraph?.registered_node_types?.OASISCompare"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra test-web")
    found = os.environ.get("OASIS_CHROMIUM") or shutil.which("chromium")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags.append("--lang=en-US")  # or the page takes the machine's language
        try:
            browser = playwright.chromium.launch(executable_path=found, args=flags)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(params=["classic", "vue"])
def page(request, browser, server):
    """A page of ComfyUI with one of its renderers."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(WAIT_MS)
    page.goto(server.url)
    page.wait_for_function(READY)
    version = page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")
    is_early = [int(part) for part in version.split(".")[:2]] <= LAST_WITHOUT_VUE
    if is_early and request.param == "vue":
        page.close()
        pytest.skip(f"Nodes 2.0 of front end {version} draw no elements, ComfyUI's own neither")
    settings = {
        "Comfy.VueNodes.Enabled": request.param == "vue",
        "Comfy.TutorialCompleted": True,
        "Comfy.Locale": "en",
    }
    load_with(page, settings)
    yield page
    folder = os.environ.get("OASIS_SCREENSHOTS")
    if folder:
        name = request.node.name.replace("[", "_").replace("]", "")
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
    page.close()


def load_with(page, settings):
    """Load the page anew with settings."""
    page.evaluate(
        """async (values) => {
            for (const [name, value] of Object.entries(values))
                await app.extensionManager.setting.set(name, value);
        }""",
        settings,
    )
    page.reload()
    page.wait_for_function(READY)
    # The page opens a graph of its own once it has started, which must not come after ours.
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")  # the list of templates, on a first visit


def open_workflow(page, name):
    """As the list of templates opens it."""
    page.evaluate(
        """async (name) => {
            const { api } = await import("/scripts/api.js");
            const address = api.apiURL(`/workflow_templates/oasis/${name}.json`);
            await app.loadGraphData(await (await fetch(address)).json(), true, true, name);
        }""",
        name,
    )
    page.wait_for_timeout(1000)
    fit(page)


def fit(page):
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(500)


def eventually(page, condition):
    """Wait for what the page does by and by: seeking in a video, drawing."""
    end = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(50)


def run(page):
    """Press Run; the nodes that came from the cache."""
    page.evaluate(
        """async () => {
            const { api } = await import("/scripts/api.js");
            window.ended = null;
            let cached = [];
            api.addEventListener("execution_cached", (e) => (cached = e.detail.nodes));
            for (const name of ["execution_success", "execution_error"])
                api.addEventListener(name, () => (window.ended = { name, cached }));
            await app.queuePrompt(0, 1);
        }"""
    )
    page.wait_for_function("window.ended")
    ended = page.evaluate("window.ended")
    assert ended["name"] == "execution_success"
    return set(ended["cached"])


def prompt_of(page):
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def picture(page):
    return page.evaluate("() => document.querySelector('.oasis-stage canvas').toDataURL()")


def split_of(page):
    return int(page.get_attribute(STAGE, "aria-valuenow"))


def count_of(page):
    return page.inner_text(".oasis-count")


def test_compare_viewer_by_mouse_and_keyboard(page):
    open_workflow(page, "4 Degrade, upscale, compare")
    run(page)
    page.wait_for_function("document.querySelector('.oasis-stage video').readyState >= 2")
    fit(page)
    assert "PSNR" in page.inner_text(".oasis-numbers")
    box = page.locator(STAGE).bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, middle, steps=5)
    page.mouse.up()
    assert abs(split_of(page) - 20) <= 2
    page.keyboard.press("Shift+ArrowRight")
    assert abs(split_of(page) - 30) <= 2
    assert_time_by_keyboard(page)
    assert_place_by_keyboard(page)


def assert_time_by_keyboard(page):
    assert count_of(page) == "1/8"
    first = picture(page)
    page.keyboard.press(".")
    assert count_of(page) == "2/8"
    eventually(page, lambda: picture(page) != first)
    page.keyboard.press("End")
    assert count_of(page) == "8/8"
    page.keyboard.press(",")
    page.keyboard.press("Space")
    eventually(page, lambda: not is_paused(page))
    page.keyboard.press("Space")
    eventually(page, lambda: is_paused(page))
    page.keyboard.press("Home")
    eventually(page, lambda: picture(page) == first)


def is_paused(page):
    return page.evaluate("() => document.querySelector('.oasis-stage video').paused")


def assert_place_by_keyboard(page):
    first = picture(page)
    for key in ("x", "+", "Alt+ArrowRight"):
        before = picture(page)
        page.keyboard.press(key)
        assert picture(page) != before, key
    page.keyboard.press("0")
    page.keyboard.press("x")
    assert picture(page) == first
    page.mouse.wheel(0, -300)
    eventually(page, lambda: picture(page) != first)
    page.keyboard.press("0")


def test_viewer_is_filled_again_after_another_tab(page):
    open_workflow(page, "4 Degrade, upscale, compare")
    run(page)
    numbers = page.inner_text(".oasis-numbers")
    assert "PSNR" in numbers
    open_workflow(page, "1 Upscale a video")
    eventually(page, lambda: page.locator(STAGE).count() == 0)
    page.evaluate("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    page.wait_for_function("document.querySelector('.oasis-stage video')?.readyState >= 2")
    assert page.inner_text(".oasis-numbers") == numbers


def test_viewer_is_filled_again_after_a_reload(page):
    open_workflow(page, "4 Degrade, upscale, compare")
    run(page)
    numbers = page.inner_text(".oasis-numbers")
    assert "PSNR" in numbers
    page.wait_for_timeout(3000)  # the page stores its graph by and by
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_function("document.querySelector('.oasis-stage video')?.readyState >= 2")
    assert page.inner_text(".oasis-numbers") == numbers


SEND = """async ([name, detail]) => {
    const { api } = await import("/scripts/api.js");
    api.dispatchEvent(new CustomEvent(name, { detail }));
}"""
FINISHED = {"unit": "frames", "done": 12, "total": 12, "seconds": 90, "fps": 0.13, "finished": True}
WORKING = {"unit": "frames", "done": 3, "total": 12, "seconds": 9, "stage": "motion"}


def test_a_line_is_that_of_the_run_at_hand(page):
    open_workflow(page, "1 Upscale a video")
    status = page.locator(".oasis-status[data-node=OASISUpscaleVideo]")
    node = page.evaluate("() => app.graph.nodes.find((n) => n.type === 'OASISUpscaleVideo').id")

    def after(name, detail):
        page.evaluate(SEND, [name, detail])
        return status.inner_text()

    for end in ("execution_interrupted", "execution_error", "execution_success"):
        assert after("executing", str(node)) == "starting"
        assert status.get_attribute("aria-valuenow") == "0"
        working = after("oasis.progress", {"node": str(node), **WORKING})
        assert working == "finding motion \u00b7 3/12 frames"
        assert after(end, {}) == f"stopped \u00b7 {working}"
        assert after("executing", str(node)) == "starting"
        finished = after("oasis.progress", {"node": str(node), **FINISHED})
        assert finished == "12/12 frames \u00b7 in 1:30 \u00b7 0.130 fps"
        assert after(end, {}) == finished
    after("executing", str(node))
    assert after("oasis.progress", {"node": str(node), "kept": True}) == (
        "unchanged since an earlier run"
    )


def test_nothing_of_the_front_end_reaches_the_prompt(page):
    for name in ("4 Degrade, upscale, compare", "7 Calibrate the routing"):
        open_workflow(page, name)
        api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
        for _ in range(2):
            prompt = prompt_of(page)
            for node, values in api.items():
                if values["class_type"].startswith("OASIS"):
                    # What came later stands at its default where a workflow does not name it.
                    assert set(prompt[node]["inputs"]) - set(OPTIONS) == {
                        name for name in values["inputs"] if name not in OPTIONS
                    }
            cached = run(page)
        ours = {node for node, values in api.items() if values["class_type"].startswith("OASIS")}
        assert cached >= ours
        saved = page.evaluate("() => app.graph.serialize().nodes")
        graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        values = {node["id"]: node["widgets_values"] for node in graph["nodes"]}
        for node in saved:
            if node["type"].startswith("OASIS"):
                stored, own = node.get("widgets_values", []), values[node["id"]]
                assert stored[: len(own)] == own, node["type"]
                widgets = [port for port in node["inputs"] if "widget" in port]
                seed = "fixed" in own  # what a seed does afterwards is no input
                assert len(stored) <= len(widgets) + seed, node["type"]


def test_status_line_and_routing_map(page):
    open_workflow(page, "7 Calibrate the routing")
    # Values that no other test uses, so that nothing comes from the cache.
    page.evaluate(
        """() => {
            const widget = (type, name) =>
                app.graph.nodes.find((n) => n.type === type).widgets.find((w) => w.name === name);
            const isVue = app.extensionManager.setting.get("Comfy.VueNodes.Enabled");
            widget("OASISLoadModel", "dtype").value = isVue ? "bfloat16" : "float32";
            widget("OASISUpscaleImages", "strength").value = Math.random();
        }"""
    )
    run(page)
    status = page.locator(".oasis-status[data-node=OASISUpscaleImages]")
    eventually(page, lambda: "4/4 frames" in status.inner_text())
    assert status.get_attribute("aria-valuenow") == "4"
    facts = page.inner_text(".oasis-facts")
    assert "parameters" in facts
    assert "Apache-2.0" in facts
    assert page.locator(".oasis-cell").count() == 18
    page.locator(".oasis-cell").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".oasis-details").startswith("layer 1, head 1")
    # Opened again, as after closing the page, all of it comes from the cache.
    page.evaluate("async () => await app.loadGraphData(app.graph.serialize())")
    run(page)
    eventually(page, lambda: "unchanged" in status.inner_text())
    eventually(page, lambda: page.locator(".oasis-cell").count() == 18)


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "workflows").glob("*.json")))
def test_workflow_opens_without_missing_nodes(page, name):
    open_workflow(page, name)
    unknown = page.evaluate(
        """() => app.graph.nodes.map((node) => node.type)
            .filter((type) => !LiteGraph.registered_node_types[type])"""
    )
    # The page draws notes itself and has registered them under its own names.
    assert set(unknown) <= {"MarkdownNote"}
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    prompt = prompt_of(page)
    for node, values in api.items():
        assert prompt[node]["class_type"] == values["class_type"]
        for key, value in values["inputs"].items():
            assert prompt[node]["inputs"][key] == value, (node, key)


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "subgraphs").glob("*.json")))
def test_blueprint_becomes_its_nodes(page, name):
    blueprint = json.loads((ROOT / "subgraphs" / f"{name}.json").read_text("utf-8"))
    page.evaluate(
        """async (graph) => {
            await app.loadGraphData(graph, true, true, "blueprint");
            const clip = LiteGraph.createNode("OASISExampleClip");
            app.graph.add(clip);
            clip.connect(0, app.graph.nodes.find((n) => n.type !== "OASISExampleClip"), 0);
        }""",
        blueprint,
    )
    page.wait_for_timeout(1000)
    fit(page)
    (inner,) = blueprint["definitions"]["subgraphs"]
    kinds = [step["class_type"] for step in prompt_of(page).values()]
    assert sorted(kinds) == sorted(["OASISExampleClip", *(n["type"] for n in inner["nodes"])])


def test_page_speaks_chinese(page):
    load_with(page, {"Comfy.Locale": "zh"})
    open_workflow(page, "4 Degrade, upscale, compare")
    names = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text("utf-8"))
    title = page.evaluate("() => LiteGraph.registered_node_types.OASISCompare.title")
    assert title == names["OASISCompare"]["display_name"]
    words = json.loads((ROOT / "locales" / "zh" / "main.json").read_text("utf-8"))["oasis"]
    assert page.inner_text(".oasis-message") == words["empty"]
    assert page.locator(f".oasis-bar button[aria-label={words['play']}]").count() == 1
    fit(page)
