"""ComfyUI for the tests: the checkout at COMFYUI_PATH, run as its users run it.

COMFYUI_PYTHON is the interpreter that has ComfyUI's requirements; without it, this one.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.nodes.comfy_server import PYTHON, START_S, Server, start
from tests.nodes.image_model import write_upscale_model
from tests.nodes.media import write_clip
from tests.nodes.packed import ROOT, copy_packed


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """A ComfyUI checkout."""
    value = os.environ.get("COMFYUI_PATH")
    path = Path(value) if value else ROOT.parent / "ComfyUI"
    if (path / "main.py").is_file():
        return path.resolve()
    reason = f"no ComfyUI checkout at {path}; set COMFYUI_PATH"
    if os.environ.get("OASIS_REQUIRE_COMFYUI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def packed_copy(tmp_path_factory) -> Path:
    """The pack as the registry hands it out; the checkout itself where git cannot list it."""
    try:
        return copy_packed(tmp_path_factory.mktemp("registry") / "oasis")
    except (OSError, subprocess.CalledProcessError):
        return ROOT


@pytest.fixture(scope="session")
def pack(comfyui, packed_copy, tmp_path_factory) -> dict:
    """What ComfyUI sees of the pack after its own loader has loaded it."""
    out = tmp_path_factory.mktemp("pack") / "facts.json"
    command = [PYTHON, str(Path(__file__).with_name("describe_pack.py"))]
    command += [str(comfyui), str(packed_copy), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, cwd=comfyui)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="session")
def server(comfyui, packed_copy, tmp_path_factory) -> Server:
    """ComfyUI on the CPU with this pack, and one that makes odd values."""
    base = tmp_path_factory.mktemp("comfyui")
    for name in (
        "custom_nodes",
        "models/oasis",
        "models/upscale_models",
        "input",
        "output",
        "temp",
        "user",
    ):
        (base / name).mkdir(parents=True)
    write_upscale_model(base / "models" / "upscale_models")
    packs = {"oasis": packed_copy, "odd_values": Path(__file__).with_name("odd_values")}
    for name, path in packs.items():
        (base / "custom_nodes" / name).symlink_to(path, target_is_directory=True)
    shutil.copy(ROOT / "workflows" / "example_inputs" / "hand_held.mp4", base / "input")
    with start(comfyui, PYTHON, base) as running:
        yield running


@pytest.fixture(scope="session")
def clip(server) -> Path:
    """A small video in ComfyUI's input folder."""
    path = server.base / "input" / "small.mp4"
    write_clip(path)
    return path
