"""What a run needs to continue, on disk: complete or not at all.

One file, or with `sharded_state` a folder `state-STAGE-STEP` in which each process writes its share
of the tensors at the same time; `position.json` is written last and makes it complete. Any number
of processes continues either.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoint import write_safetensors
from .config import TrainingError
from .processes import Processes

STATE_NAME = "state.safetensors"
POSITION_NAME = "position.json"


def save_state(
    output_dir: Path,
    tensors: dict[str, Tensor],
    position: dict[str, Any],
    processes: Processes,
    *,
    is_sharded: bool,
) -> None:
    """Write a state, from all processes together; older ones go once it is complete.

    Args:
        output_dir: Of the run, the same folder for all processes.
        tensors: Everything, in every process.
        position: JSON values, `stage_index` and `step` among them.
        processes: Who writes.
        is_sharded: Whether each writes its share.

    Raises:
        TrainingError: The disk is full or cannot be written; the older state is untouched.
    """
    older = _shard_folders(output_dir)
    if not is_sharded:
        if processes.is_main:
            write_state(output_dir / STATE_NAME, tensors, position)
    else:
        name = f"state-{position['stage_index']:03d}-{position['step']:09d}"
        _write_shards(output_dir / name, tensors, position, processes)
        older = [folder for folder in older if folder.name != name]
    if processes.is_main:
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)
        if is_sharded:
            (output_dir / STATE_NAME).unlink(missing_ok=True)


def newest_state(output_dir: Path) -> Path | None:
    """The state to continue from; None at the beginning."""
    folders = [path for path in _shard_folders(output_dir) if (path / POSITION_NAME).is_file()]
    whole = output_dir / STATE_NAME
    if not folders:
        return whole if whole.exists() else None
    # Saving either kind removes the other; both are there only if it was killed in between.
    newest = max(folders, key=lambda path: path.name)
    if not whole.exists() or newest.stat().st_mtime >= whole.stat().st_mtime:
        return newest
    return whole


def _shard_folders(output_dir: Path) -> list[Path]:
    return [path for path in output_dir.glob("state-*-*") if path.is_dir()]


def _write_shards(
    folder: Path, tensors: dict[str, Tensor], position: dict[str, Any], processes: Processes
) -> None:
    if processes.is_main:
        folder.mkdir(exist_ok=True)
        (folder / POSITION_NAME).unlink(missing_ok=True)
    processes.wait()
    path = folder / _part_name(processes.index, processes.count)
    mine = _shares(tensors, processes.count)[processes.index]
    with keep_older(path):
        write_safetensors(path, {name: tensors[name] for name in mine}, {})
    processes.wait()
    if processes.is_main:
        position = {
            **position,
            "num_parts": processes.count,
            "saved_at": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        path, part = folder / POSITION_NAME, folder / (POSITION_NAME + ".part")
        with keep_older(path):
            part.write_text(json.dumps(position), encoding="utf-8")
            part.replace(path)


def _part_name(index: int, count: int) -> str:
    return f"part-{index + 1:05d}-of-{count:05d}.safetensors"


def _shares(tensors: dict[str, Tensor], count: int) -> list[list[str]]:
    """Names for each process, about as many bytes for each."""
    shares: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        least = sizes.index(min(sizes))
        shares[least].append(name)
        sizes[least] += tensors[name].nbytes
    return shares


def write_state(path: Path, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
    """Write a state; an older one is replaced only by a complete one.

    Raises:
        TrainingError: The disk is full or cannot be written; the older state is untouched.
    """
    position = {**position, "saved_at": time.strftime("%Y-%m-%d %H:%M:%S")}
    with keep_older(path):
        write_safetensors(path, tensors, {"position": json.dumps(position)})


class keep_older:  # noqa: N801 (reads as a statement)
    """Turns a failed write into one sentence, and leaves the older file and no piece behind.

    Args:
        path: The file that is being written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Clean up after an error of the disk."""
        if not isinstance(error, OSError | SafetensorError):
            return
        self.path.with_name(self.path.name + ".part").unlink(missing_ok=True)
        older = "the one before is untouched" if self.path.exists() else "there is none before"
        raise TrainingError(
            f"{self.path} could not be written ({error}), {older}; free some space and give the "
            "same command again to go on"
        ) from error


def read_state(path: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The position and the tensors of a state.

    Args:
        path: From `newest_state`.
        fingerprint: Of the configuration.

    Raises:
        TrainingError: The state is damaged or belongs to another configuration.
    """
    try:
        if path.is_dir():
            position = json.loads((path / POSITION_NAME).read_text(encoding="utf-8"))
            count = position["num_parts"]
            parts = [path / _part_name(index, count) for index in range(count)]
        else:
            with safe_open(path, framework="pt") as file:
                position = json.loads(file.metadata()["position"])
            parts = [path]
        if position["fingerprint"] != fingerprint:
            raise TrainingError(
                f"{path} was made with another model, data or seed; use another output_dir"
            )
        tensors = {}
        for part in parts:
            with safe_open(part, framework="pt") as file:
                # Copies: Windows replaces no file while a tensor still maps it.
                tensors |= {name: file.get_tensor(name).clone() for name in list(file.keys())}
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"the saved state {path} is damaged ({error}); remove it to start afresh"
        ) from error
    return position, tensors
