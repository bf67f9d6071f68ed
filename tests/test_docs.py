"""The README's tree and links match the repository."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tree_entries():
    block = re.search(r"## The tree\n\n```\n(.*?)```", README, re.S).group(1)
    return [line.split()[0] for line in block.splitlines() if line.strip()]


def test_every_entry_of_the_tree_exists():
    missing = [entry for entry in tree_entries() if not list(ROOT.glob(entry.rstrip("/")))]
    assert not missing


def test_every_core_module_is_in_the_tree():
    listed = {path for entry in tree_entries() for path in ROOT.glob(entry.rstrip("/"))}
    covered = [path for path in listed if path.is_dir()]
    modules = subprocess.run(
        ["git", "ls-files", "oasis_core", "nodes"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for module in modules:
        path = ROOT / module
        assert path in listed or any(folder in path.parents for folder in covered), module


def test_links_inside_the_repository_resolve():
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target
