"""Photograph the workflows in a running ComfyUI, for docs/comfyui.md and the list of templates.

Needs the extra `test-web`, a Chromium (as tests/nodes/test_browser.py) and Pillow; run it as
`python docs/make_workflow_pictures.py ADDRESS [--classic] [--into FOLDER] [NAME ...]`, where
ADDRESS is that of a ComfyUI with the pack. Workflows that can run are run first, video only for its
first frames.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
PAGE_PX = (3200, 1500)
TOP_LEFT_PX = (120, 190)
"""Where the graph begins: beside and below the page's own bars."""
MARGIN_PX = 12
TITLE_PX = 30
SHOWN_WIDTH_PX = 1300
PREVIEW_S = 0.2
RUN_MS = 900_000
NEEDS_FILES = ("8 ", "9 ", "10 ", "11 ", "12 ")
READY = """() => window.app?.extensionManager && window.app?.graph
    && window.LiteGraph?.registered_node_types?.OASISCompare"""
OPEN = """async (name) => {
    const { api } = await import("/scripts/api.js");
    const address = api.apiURL(`/workflow_templates/oasis/${name}.json`);
    await app.loadGraphData(await (await fetch(address)).json(), true, true, name);
}"""
RUN = """async (seconds) => {
    const { api } = await import("/scripts/api.js");
    for (const node of app.graph.nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name === "preview_s") widget.value = seconds;
    window.ended = null;
    for (const name of ["execution_success", "execution_error"])
        api.addEventListener(name, () => (window.ended = name));
    await app.queuePrompt(0, 1);
}"""
PLACE = """([left, top]) => {
    const boxes = app.graph.nodes.map((node) => [...node.pos, ...node.size]);
    const first = [0, 1].map((axis) => Math.min(...boxes.map((box) => box[axis])));
    const last = [0, 1].map((axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2])));
    app.canvas.deselectAll?.();
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset[0] = left - first[0];
    app.canvas.ds.offset[1] = top - first[1];
    app.canvas.setDirty(true, true);
    return [last[0] - first[0], last[1] - first[1]];
}"""


def photograph(page: Page, name: str, *, is_run: bool) -> Image.Image:
    """The nodes of a workflow, as the page draws them.

    Args:
        page: A page of ComfyUI.
        name: Of the workflow.
        is_run: Whether to run it first.
    """
    # Twice, so that no line says how fast this machine was: the second time all is there.
    for _ in range(1 + is_run):
        page.evaluate(OPEN, name)
        page.wait_for_timeout(2000)
        if not is_run:
            continue
        page.evaluate(RUN, PREVIEW_S)
        page.wait_for_function("window.ended", timeout=RUN_MS)
        page.wait_for_timeout(3000)
    width, height = page.evaluate(PLACE, list(TOP_LEFT_PX))
    page.wait_for_timeout(1500)
    left, top = TOP_LEFT_PX
    clip = {
        "x": left - MARGIN_PX,
        "y": top - TITLE_PX - MARGIN_PX,
        "width": min(width + 2 * MARGIN_PX, PAGE_PX[0] - left),
        "height": min(height + TITLE_PX + 2 * MARGIN_PX, PAGE_PX[1] - top),
    }
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def opened(page: Page, address: str, *, is_classic: bool) -> None:
    """Open ComfyUI with one of its renderers."""
    page.goto(address)
    page.wait_for_function(READY, timeout=RUN_MS)
    page.evaluate(
        """async (isVue) => {
            const set = (name, value) => app.extensionManager.setting.set(name, value);
            await set("Comfy.VueNodes.Enabled", isVue);
            await set("Comfy.TutorialCompleted", true);
            await set("Comfy.Locale", "en");
            await set("Comfy.Minimap.Visible", false);
        }""",
        not is_classic,
    )
    page.reload()
    page.wait_for_function(READY, timeout=RUN_MS)
    page.wait_for_timeout(4000)
    page.keyboard.press("Escape")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--classic", action="store_true", help="in the classic canvas")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "workflows")
    arguments = parser.parse_intermixed_args()
    known = sorted(
        (path.stem for path in WORKFLOWS.glob("*.json")), key=lambda n: int(n.split()[0])
    )
    chromium = os.environ.get("OASIS_CHROMIUM") or shutil.which("chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport=dict(zip(("width", "height"), PAGE_PX, strict=True)))
        opened(page, arguments.address, is_classic=arguments.classic)
        for name in arguments.names or known:
            picture = photograph(page, name, is_run=not name.startswith(NEEDS_FILES))
            if picture.width > SHOWN_WIDTH_PX:
                height = round(picture.height * SHOWN_WIDTH_PX / picture.width)
                picture = picture.resize((SHOWN_WIDTH_PX, height), Image.Resampling.LANCZOS)
            place = arguments.into / f"{name.split()[0]}.webp"
            picture.save(place, quality=86, method=6)
            print(f"{place.name}: {name}, {picture.width}x{picture.height}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
