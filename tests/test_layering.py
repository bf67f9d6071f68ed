"""Who may import what, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "oasis_core").rglob("*.py"))
RUNTIME = {"torch", "einops", "safetensors", "av", "numpy", "tqdm", "oasis_core"}
COMFY = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "nodes"}


def imported(tree, *, at_load_only):
    """Top-level names of absolute imports; at load: outside functions and TYPE_CHECKING."""
    names = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if at_load_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (
                at_load_only
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.dump(child.test)
            ):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name.split(".")[0] for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                names.add(child.module.split(".")[0])
            visit(child)

    visit(tree)
    return names


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_loads_only_what_comfyui_has(path):
    names = imported(ast.parse(path.read_text()), at_load_only=True)
    assert names <= RUNTIME | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_knows_nothing_of_comfyui_and_imports_itself_relatively(path):
    names = imported(ast.parse(path.read_text()), at_load_only=False)
    assert not names & (COMFY | {"oasis_core"})


def test_pickles_are_read_by_the_converter_alone_and_never_run_code():
    for path in CORE:
        tree = ast.parse(path.read_text())
        assert "pickle" not in imported(tree, at_load_only=False), path
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "torch.load":
                options = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert options.get("weights_only") == "True", path
                assert path.parent.name == "convert", path


def test_importing_the_package_costs_nothing():
    code = "import sys, oasis_core; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 400
