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


def test_the_lab_is_imported_inside_functions_only_and_said_to_be_missing():
    """The wheel and ComfyUI's pack leave it out."""
    outside = [path for path in CORE if path.parent.name != "lab"]
    for path in outside:
        for node in ast.parse(path.read_text()).body:
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert "lab" not in module.split("."), path
    code = (
        "import sys; sys.modules['oasis_core.lab'] = None\n"
        "from oasis_core.cli import main\n"
        "sys.exit(main(['bench', '--gpu-report', 'report.json', '--short']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("oasis: --gpu-report needs a checkout of the repository, ")
    assert done.stderr.count("\n") == 1


def test_importing_the_package_costs_nothing():
    code = "import sys, oasis_core; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


LOOKS_UP = {
    "model": {"video", "families", "upscale"},
    "families": {"video", "upscale"},
    "video": {"model", "families", "upscale", "checkpoint", "config"},
    "degradation": {"model", "families", "upscale"},
    "upscale": set(),
    "convert": {"video", "upscale"},
    "cluster": set(),
    "bench": set(),
    "evaluation": set(),
    "training": set(),
    "lab": set(),
}
"""Room -> what it must not know."""
HIGH = {"commands", "cluster", "bench", "training", "evaluation", "lab", "cli"}
"""What none of the rooms below may know."""
MAY_KNOW = {
    "cluster": {"cluster"},
    "bench": {"bench", "evaluation"},
    "evaluation": {"evaluation"},
    "training": {"training", "evaluation"},
    "lab": {"lab", "bench", "training", "evaluation"},
}


def module_name(path):
    """Such as "upscale.job", or "upscale" for the room's own file."""
    parts = path.relative_to(ROOT / "oasis_core").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in CORE}


def neighbours(name):
    """Modules of the package that one names, inside functions and for types, too."""
    path = MODULES[name]
    package = list(path.relative_to(ROOT / "oasis_core").parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = package[: len(package) - (node.level - 1)]
        base = ".".join(above + (node.module.split(".") if node.module else []))
        for alias in node.names:
            whole = f"{base}.{alias.name}" if base else alias.name
            found.add(whole if whole in MODULES else base or "__init__")
    return found - {name}


GRAPH = {name: neighbours(name) for name in MODULES}


def circles():
    """Sets of modules that all reach each other."""

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for name in GRAPH[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    reached = {name: reach(name) for name in GRAPH}
    found = []
    for name in GRAPH:
        ring = {other for other in reached[name] if name in reached[other]}
        if name in reached[name] and ring not in found:
            found.append(ring)
    return found


def test_every_import_names_a_module_that_is_there():
    for name, found in GRAPH.items():
        assert found <= set(MODULES), (name, found - set(MODULES))


def test_no_arrow_points_up():
    found = set()
    for name in MODULES:
        room = name.partition(".")[0]
        banned = LOOKS_UP.get(room, set())
        if room in LOOKS_UP:
            banned = (banned | HIGH) - MAY_KNOW.get(room, set())
        found |= {(name, other) for other in GRAPH[name] if other.partition(".")[0] in banned}
    assert not found


def test_no_modules_import_each_other_in_a_circle():
    assert not circles()
