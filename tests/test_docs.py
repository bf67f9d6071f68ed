"""Pages, their links and the tree match the repository."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TREE = (ROOT / "docs" / "tree.md").read_text("utf-8")
MOST_README_LINES = 220


def tree_entries():
    block = re.search(r"```\n(.*?)```", TREE, re.S).group(1)
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


def pages():
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_links_inside_the_repository_resolve():
    for page in pages():
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    named = set(re.findall(r"\]\(([a-z0-9_-]+\.md)\)", index))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_first_page_stays_short():
    assert len(README.splitlines()) <= MOST_README_LINES
