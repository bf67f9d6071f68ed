"""Reading public weight files: one or many safetensors, or a pickle that holds tensors alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..checkpoint import CheckpointError
from ..digests import file_sha256
from ..families.files import PICKLES
from ..words import counted
from .keys import without_prefix

NUMERIC = (torch.float32, torch.float16, torch.bfloat16)
WRAPPERS = ("state_dict", "model", "module")
SOLE = "tensor"
"""What a tensor without a name is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSource:
    """Tensors that can be read one by one, by their names without ComfyUI's prefix."""

    path: Path
    """What the user named."""
    files: tuple[Path, ...]
    """The files that hold the tensors."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of every tensor."""
    read: Callable[[str], torch.Tensor]
    """Reads one tensor."""

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, in float32.

        Raises:
            CheckpointError: It is in fp8 or another unsupported type, or not finite.
        """
        tensor = self.read(name)
        if tensor.dtype not in NUMERIC:
            raise CheckpointError(
                f"{self.path}: tensor {name} must be float32, float16 or bfloat16, got "
                f"{str(tensor.dtype).removeprefix('torch.')}; use a file that is not quantised"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{self.path}: tensor {name} holds NaN or infinity")
        return tensor.float()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file by its name."""
        return {path.name: file_sha256(path) for path in self.files}


def open_source(path: Path) -> TensorSource:
    """Open weights: a safetensors file, an index or a folder of shards, or a pickle of tensors.

    Pickles are read by torch's restricted loader, which runs no code of theirs.

    Raises:
        CheckpointError: Nothing readable is there, or two shards hold the same tensor.
    """
    if path.is_file() and path.suffix.lower() in PICKLES:
        return _open_pickle(path)
    files = _shards(path)
    holders: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118 (no dict)
                    if name in holders:
                        raise CheckpointError(f"{path}: tensor {name} is in two of its files")
                    holders[name] = file
                    shapes[name] = tuple(content.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"weight file {file} cannot be read: {error}") from error
    _check_index(path, files, holders)
    plain = without_prefix(holders)
    stored = {short: name for name, short in plain.items()}

    def read(name: str) -> torch.Tensor:
        with safe_open(holders[stored[name]], framework="pt") as content:
            return content.get_tensor(stored[name])

    shapes = {plain[name]: shape for name, shape in shapes.items()}
    return TensorSource(path=path, files=tuple(files), shapes=shapes, read=read)


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{path} holds no .safetensors file; give the folder that does")
        return files
    if not path.is_file():
        raise CheckpointError(f"weight file {path} does not exist")
    if path.suffix.lower() != ".json":
        return [path]
    names = set(_index(path).values())
    # A name with a folder in it could point anywhere.
    if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
        raise CheckpointError(f"{path} must name files beside it, got {sorted(map(str, names))}")
    files = [path.with_name(name) for name in sorted(names)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(f"{path} names files that are not there: {', '.join(missing)}")
    return files


def _index(path: Path) -> dict[str, str]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is no index of shards: no readable weight_map") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path} is no index of shards: weight_map must be an object")
    return table


def _check_index(path: Path, files: list[Path], holders: dict[str, Path]) -> None:
    """Hold the tensors that were found against the index, where there is one: none may be lost."""
    if path.is_dir():
        indexes = sorted(path.glob("*.safetensors.index.json"))
    else:
        indexes = [path] if path.suffix.lower() == ".json" else []
    for index in indexes:
        if lost := sorted(set(_index(index)) - set(holders)):
            raise CheckpointError(
                f"{path} lacks tensors that its index names ({len(lost)}), e.g. {lost[0]}; "
                f"read {counted(len(files), 'file')}"
            )


def _open_pickle(path: Path) -> TensorSource:
    content = read_pickle(path)
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, torch.Tensor):  # text features are published so
        content = {SOLE: content}
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise CheckpointError(f"weight file {path} must hold named tensors and nothing else")
    tensors = {short: content[name] for name, short in without_prefix(content).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return TensorSource(path=path, files=(path,), shapes=shapes, read=tensors.__getitem__)


def read_pickle(path: Path) -> Any:
    """What a pickle holds: plain values and tensors, by torch's restricted loader.

    Raises:
        CheckpointError: It is damaged, or holds anything else, such as code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # written before torch 1.6, which cannot be mapped
        pass
    except Exception as error:
        raise _unreadable(path, error) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a protocol that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """What is wrong with a pickle; torch's own text advises to run whatever is in it."""
    # By name: that module is not imported anywhere here.
    is_foreign = type(error).__name__ == "UnpicklingError" and "nsupported" in str(error)
    reason = (
        "it holds other things than tensors, which could be code; get the original file"
        if is_foreign
        else "it is damaged or incomplete; download it again"
    )
    return CheckpointError(f"weight file {path} cannot be read safely: {reason}")
