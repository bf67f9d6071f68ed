"""ComfyUI's folders: models, temporary results, output."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

from ...oasis_core.choices import BUNDLED
from .._results import DEFAULT_KEPT, SHELF
from .reporting import server

if TYPE_CHECKING:
    from ...oasis_core.convert.folders import PublicSet

MODEL_FOLDER = "oasis"
MODEL_SUFFIX = ".safetensors"
PUBLIC_SUFFIXES = (".ckpt", ".pth")
"""Of public files that models are made of; none is loaded as it is."""
KEPT_SETTING = "OASIS.keptResults"
"""Of web/oasis.js: how many results the temporary folder keeps."""


def register_model_folder() -> None:
    """Make `models/oasis` known to ComfyUI, beside what extra_model_paths.yaml may name."""
    default = str(Path(folder_paths.models_dir) / MODEL_FOLDER)
    folder_paths.add_model_folder_path(MODEL_FOLDER, default)
    with suppress(OSError):  # a disk that cannot be written to has its models elsewhere
        Path(default).mkdir(parents=True, exist_ok=True)
    # Without a suffix ComfyUI would list every file of the folder.
    folders, suffixes = folder_paths.folder_names_and_paths[MODEL_FOLDER]
    known = (folders, set(suffixes) | {MODEL_SUFFIX, *PUBLIC_SUFFIXES})
    folder_paths.folder_names_and_paths[MODEL_FOLDER] = known


def model_names() -> list[str]:
    """Bundled models, then those of the model folder: files, and what public files there make."""
    from ...oasis_core.convert.folders import is_part, models_among, target_name

    inside: dict[str, list[str]] = {}
    for name in folder_paths.get_filename_list(MODEL_FOLDER):
        folder, file = os.path.split(name)
        inside.setdefault(folder, []).append(file)
    found = set()
    for folder, files in inside.items():
        models = [file for file in files if file.endswith(MODEL_SUFFIX) and not is_part(file)]
        models += map(target_name, models_among(files))
        found |= {os.path.join(folder, file) for file in models}  # noqa: PTH118 (as ComfyUI has it)
    return [*BUNDLED, *sorted(found)]


def model_path(name: str) -> Path:
    """The file of a model from `model_names`; it may still have to be made, by `make_model`.

    Raises:
        ValueError: There is no such model.
    """
    from ...oasis_core.checkpoint import resolve_model

    if name in BUNDLED:
        return resolve_model(name)
    if name not in model_names():  # ComfyUI before 0.8 lets any text through
        raise ValueError(
            f"model_name must be one of {', '.join(model_names())}, got {name!r}; put the file "
            f"into models/{MODEL_FOLDER} and press R"
        )
    path = folder_paths.get_full_path(MODEL_FOLDER, name)
    if path is not None:
        return Path(path)
    files = public_files(name)
    if files is None:
        raise ValueError(
            f"models/{MODEL_FOLDER} has no {name} any more; press R to refresh the list"
        )
    return files.target


def public_files(name: str) -> PublicSet | None:
    """The public files of a model from `model_names` that is still to be made of them.

    None if there are none of its name.
    """
    from ...oasis_core.convert.folders import find_set

    folder, file = os.path.split(name)
    for base in folder_paths.get_folder_paths(MODEL_FOLDER):
        place = Path(base) / folder
        files = find_set(place, file) if place.is_dir() else None
        if files is not None:
            return files
    return None


def keep_result(path: Path, inputs: Mapping[str, Any], beside: tuple[Path, ...] = ()) -> None:
    """Note a result in the temporary folder; the oldest beyond the last few are removed.

    Args:
        path: The result.
        inputs: Of the node that made it, by name.
        beside: Files that belong to it.
    """
    prompt = getattr(server(), "last_prompt_id", None)
    SHELF.put(path, inputs, prompt=prompt, num_kept=_num_kept_results(), beside=beside)


def _num_kept_results() -> int:
    """What the user set on the page; results that are not used any more take the disk."""
    settings = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        value = json.loads(settings.read_text(encoding="utf-8"))[KEPT_SETTING]
        return max(0, int(value))
    except (OSError, ValueError, TypeError, KeyError):
        return DEFAULT_KEPT


def check_output_name(prefix: str) -> None:
    """Refuse a name of a result before any work, not after it.

    Args:
        prefix: As `new_output` takes it.

    Raises:
        ValueError: It leaves the output folder, or no file can be called so.
    """
    output = Path(folder_paths.get_output_directory()).resolve()
    is_plain = prefix.isprintable() and not prefix.endswith(("/", "\\"))
    if not is_plain or not (output / prefix).resolve().is_relative_to(output):
        raise ValueError(
            f"file_name must be a name within the output folder, got {prefix!r}; write "
            "video/film, without .. and without a disk"
        )


def new_output(prefix: str, size: tuple[int, int], suffix: str) -> Path:
    """A file in ComfyUI's output folder that does not exist yet.

    Args:
        prefix: Its name as Save Video takes it: with folders, with %date% and the like.
        size: (width, height) that the name may mention.
        suffix: Its ending.
    """
    output = folder_paths.get_output_directory()
    folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, output, *size)
    return Path(folder) / f"{name}_{counter:05}_{suffix}"


def is_named(path: Path, prefix: str, size: tuple[int, int]) -> bool:
    """Whether a file in the output folder is called by a prefix already."""
    output = folder_paths.get_output_directory()
    folder, name, *_ = folder_paths.get_save_image_path(prefix, output, *size)
    return path.parent == Path(folder) and path.name.startswith(f"{name}_")


def temp_folder() -> Path:
    """ComfyUI's temporary folder, emptied when the server starts."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
