"""What the registry gets: the tracked files without those that .comfyignore names."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 25 << 20


def tracked(*options):
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def packed():
    # Both files have gitignore's syntax; -i lists what the patterns hide.
    return tracked() - tracked("-i", "-X", str(ROOT / ".comfyignore"))


def test_everything_that_runs_is_packed(packed):
    for name in ("__init__.py", "pyproject.toml", "LICENSE", "README.md"):
        assert name in packed
    for folder in ("nodes", "oasis_core", "web", "locales", "workflows"):
        inside = {name for name in tracked(folder) if not name.endswith("make_hand_held.py")}
        assert inside
        assert inside <= packed
    assert "oasis_core/weights/oasis-tiny.safetensors" in packed


def test_nothing_else_is_packed(packed):
    assert not {name for name in packed if name.startswith(("tests/", "docs/", ".ci", ".github"))}
    footage = {name for name in packed if name.endswith((".mp4", ".mkv", ".mov", ".webm"))}
    assert footage == {"workflows/example_inputs/hand_held.mp4"}
    assert sum((ROOT / name).stat().st_size for name in packed) < MAX_BYTES
