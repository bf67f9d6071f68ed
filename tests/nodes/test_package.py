"""What the registry gets: the tracked files without those that .comfyignore names."""

import re
import subprocess

import pytest

from tests.nodes.packed import ROOT, packed_files, reached_modules, tracked

MAX_BYTES = 25 << 20


@pytest.fixture(scope="module")
def packed():
    try:
        return packed_files()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")


def test_everything_that_runs_is_packed(packed):
    for name in ("__init__.py", "pyproject.toml", "LICENSE", "README.md"):
        assert name in packed
    for folder in ("nodes", "web", "locales", "workflows", "subgraphs"):
        inside = {name for name in tracked(folder) if not name.endswith("make_hand_held.py")}
        assert inside
        assert inside <= packed
    assert "oasis_core/weights/oasis-tiny.safetensors" in packed


def test_what_the_nodes_import_is_packed_and_nothing_else_of_the_core(packed):
    reached = reached_modules()
    assert "oasis_core/upscale/upscaler.py" in reached  # imported inside functions only
    missing = sorted(reached - packed)
    assert not missing, f".comfyignore hides what a node imports: {missing}"
    modules = {name for name in packed if re.match(r"(oasis_core|nodes)/.*\.py$", name)}
    idle = sorted(modules - reached)
    assert not idle, f"no node imports these; name them in .comfyignore: {idle}"


def test_pages_and_pictures_of_the_readme_are_packed(packed):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert {link for link in links if link.endswith((".md", ".png", ".webp"))} <= packed


def test_nothing_else_is_packed(packed):
    assert not {name for name in packed if name.startswith(("tests/", ".ci", ".github"))}
    footage = {name for name in packed if name.endswith((".mp4", ".mkv", ".mov", ".webm"))}
    assert footage == {"workflows/example_inputs/hand_held.mp4"}
    assert sum((ROOT / name).stat().st_size for name in packed) < MAX_BYTES
