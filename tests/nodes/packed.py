"""Which files the registry packs, and which modules the nodes reach."""

import ast
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked(*options: str) -> set[str]:
    """Names of the checkout's files; raises OSError or CalledProcessError where it is none."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


def packed_files() -> set[str]:
    """The tracked files without those that .comfyignore names."""
    # Both files have gitignore's syntax; -i lists what the patterns hide.
    return tracked() - tracked("-i", "-X", str(ROOT / ".comfyignore"))


def copy_packed(folder: Path) -> Path:
    """Make the pack as a user of the registry has it."""
    for name in packed_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return folder


def reached_modules() -> set[str]:
    """Python files that nodes/ and the root's `__init__.py` import, at load or inside functions."""
    seen: set[Path] = set()
    todo = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py")]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo.extend(_imported(path))
        packages = (folder / "__init__.py" for folder in path.parents if ROOT in folder.parents)
        todo.extend(package for package in packages if package.is_file())
    return {path.relative_to(ROOT).as_posix() for path in seen}


def _imported(path: Path) -> list[Path]:
    """The pack's own modules that a module imports; inside it every import is relative."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1]
            base = base.joinpath(*node.module.split(".")) if node.module else base
            for name in (base, *(base / alias.name for alias in node.names)):
                found += [f for f in (name.with_suffix(".py"), name / "__init__.py") if f.is_file()]
    return found
