"""The front end in a real browser: both renderers, mouse and keyboard.

Needs the extra `test-web` and a Chromium: Playwright's own, or the one at OASIS_CHROMIUM or on the
path.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
WAIT_MS = 300_000
SHOT = ".oasis-stage"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra test-web")
    found = os.environ.get("OASIS_CHROMIUM") or shutil.which("chromium")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
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
    page.goto(server.url, timeout=WAIT_MS)
    ready = "window.app?.extensionManager && window.app?.graph"
    page.wait_for_function(ready, timeout=WAIT_MS)
    page.evaluate(
        """async (isVue) => {
            const settings = app.extensionManager.setting;
            await settings.set("Comfy.VueNodes.Enabled", isVue);
            await settings.set("Comfy.TutorialCompleted", true);
        }""",
        request.param == "vue",
    )
    page.reload(timeout=WAIT_MS)
    page.wait_for_function(ready, timeout=WAIT_MS)
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")  # the list of templates
    yield page
    page.close()


def open_workflow(page, name):
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate("async (graph) => { await app.loadGraphData(graph); }", graph)
    page.wait_for_timeout(1000)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")


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
    page.wait_for_function("window.ended", timeout=WAIT_MS)
    ended = page.evaluate("window.ended")
    assert ended["name"] == "execution_success"
    return set(ended["cached"])


def prompt_of(page):
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def picture(page):
    return page.evaluate("() => document.querySelector('.oasis-stage canvas').toDataURL()")


def split_of(page):
    return int(page.get_attribute(SHOT, "aria-valuenow"))


def count_of(page):
    return page.inner_text(".oasis-count")


def test_compare_viewer_by_mouse_and_keyboard(page):
    open_workflow(page, "4_degrade_upscale_compare")
    run(page)
    page.wait_for_function("document.querySelector('.oasis-stage video').readyState >= 2")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1000)
    assert "PSNR" in page.inner_text(".oasis-numbers")
    box = page.locator(SHOT).bounding_box()
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
    page.wait_for_timeout(500)
    assert picture(page) != first
    page.keyboard.press("End")
    assert count_of(page) == "8/8"
    page.keyboard.press(",")
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert not page.evaluate("() => document.querySelector('.oasis-stage video').paused")
    page.keyboard.press("Space")
    assert page.evaluate("() => document.querySelector('.oasis-stage video').paused")
    page.keyboard.press("Home")
    page.wait_for_timeout(500)
    assert picture(page) == first


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
    page.wait_for_timeout(500)
    assert picture(page) != first
    page.keyboard.press("0")


def test_nothing_of_the_front_end_reaches_the_prompt(page):
    for name in ("4_degrade_upscale_compare", "7_calibrate_routing"):
        open_workflow(page, name)
        api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
        for _ in range(2):
            prompt = prompt_of(page)
            for node, values in api.items():
                if values["class_type"].startswith("OASIS"):
                    assert set(prompt[node]["inputs"]) == set(values["inputs"])
            cached = run(page)
        ours = {node for node, values in api.items() if values["class_type"].startswith("OASIS")}
        assert cached >= ours
        saved = page.evaluate("() => app.graph.serialize().nodes")
        graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        values = {node["id"]: node["widgets_values"] for node in graph["nodes"]}
        for node in saved:
            if node["type"].startswith("OASIS"):
                assert node.get("widgets_values", []) == values[node["id"]], node["type"]


def test_status_line_and_routing_map(page):
    open_workflow(page, "7_calibrate_routing")
    # Another seed, so that nothing comes from the cache.
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find((n) => n.type === "OASISUpscaleImages");
            node.widgets.find((w) => w.name === "strength").value = Math.random();
        }"""
    )
    run(page)
    page.wait_for_timeout(500)
    assert "4/4 frames" in page.inner_text(".oasis-status")
    assert page.get_attribute(".oasis-status", "aria-valuenow") == "4"
    assert page.locator(".oasis-cell").count() == 18
    page.locator(".oasis-cell").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".oasis-details").startswith("layer 1, head 1")


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "workflows").glob("*.json")))
def test_workflow_opens_without_missing_nodes(page, name):
    open_workflow(page, name)
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    prompt = prompt_of(page)
    for node, values in api.items():
        assert prompt[node]["class_type"] == values["class_type"]
        for key, value in values["inputs"].items():
            assert prompt[node]["inputs"][key] == value, (node, key)
