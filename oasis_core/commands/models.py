"""`oasis models`: the models that are known here, where their files are published, what is here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import print_json

if TYPE_CHECKING:
    from ..convert.published import PublicFile, PublishedModel


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser(
        "models", help="list models, where their files are published, and which are here"
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="where to look (default: here)"
    )
    parser.add_argument(
        "--check", action="store_true", help="hash the files that are here; takes a while"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    folders = arguments.folders or [Path()]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"FOLDER must be one that exists, got {folder}")
    facts = list_models(folders, check=arguments.check)
    if arguments.json:
        print_json(facts)
        return 0
    for model in facts["models"]:
        print(f"{model['name']}: {model['does']}")
        for file in model["files"]:
            print(f"  {_line(file)}")
        if model["files"]:
            print(f"  then: {model['convert']}")
    for path, name in facts["checkpoints"].items():
        print(f"{path}: ready to use, {name}")
    return 0


def list_models(folders: list[Path], *, check: bool = False) -> dict[str, Any]:
    """What is known of every model, and what is in some folders, as JSON values.

    Args:
        folders: Where to look; not in folders inside them.
        check: Whether files that are there are hashed.
    """
    from ..convert.published import MODELS

    return {
        "models": [_describe(model, folders, check=check) for model in MODELS],
        "checkpoints": _checkpoints(folders),
    }


def _describe(model: PublishedModel, folders: list[Path], *, check: bool) -> dict[str, Any]:
    files = [_describe_file(file, folders, check=check) for file in model.files]
    return {"name": model.name, "does": model.does, "files": files, "convert": model.convert}


def _describe_file(file: PublicFile, folders: list[Path], *, check: bool) -> dict[str, Any]:
    path = file.find(folders)
    return {
        "name": file.name,
        "use": file.use,
        "published": file.published,
        "licence": file.licence,
        "bytes": file.num_bytes,
        "sha256": file.sha256,
        "optional": file.is_optional,
        "here": None if path is None else str(path),
        "state": _state(file, path, check=check),
    }


def _state(file: PublicFile, path: Path | None, *, check: bool) -> str:
    """What can be said of a file: "absent", "here", "as published", or what is wrong with it."""
    from ..digests import file_sha256

    if path is None:
        return "absent"
    size = path.stat().st_size
    is_copy = path.name.lower() != file.name.lower()
    if file.num_bytes is not None and size != file.num_bytes and not is_copy:
        return f"here, but of {size} bytes: incomplete, or another file of this name"
    if not check:
        return "here, a copy by others" if is_copy else "here"
    found = file_sha256(path)
    if is_copy:
        return f"here, a copy by others, sha256 {found}"
    if file.sha256 is None:
        return f"here, sha256 {found}; what it should be is not known"
    return "as published" if found == file.sha256 else f"here, but another file: sha256 {found}"


def _line(file: dict[str, Any]) -> str:
    size = "" if file["bytes"] is None else f", {file['bytes'] / 1e9:.2f} GB"
    optional = " (optional)" if file["optional"] else ""
    return (
        f"{file['name']}{optional}: {file['use']}; {file['published']}{size}, {file['licence']}; "
        f"{file['state']}" + (f": {file['here']}" if file["here"] else "")
    )


def _checkpoints(folders: list[Path]) -> dict[str, str]:
    """Model names of the checkpoints in some folders, by path."""
    from ..checkpoint import CheckpointError
    from ..families.files import read_file_header

    found = {}
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            try:
                config = read_file_header(path).oasis_config()
            except CheckpointError:
                continue  # not a model of ours; `oasis info` says more
            if config is not None:
                found[str(path)] = config.name
    return found
