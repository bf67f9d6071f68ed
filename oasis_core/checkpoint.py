"""Oasis checkpoints: one safetensors file whose metadata describes the model completely.

Loads are strict: every tensor must be there, fit and be finite, and nothing else may be in it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .config import ModelConfig
from .digests import file_sha256
from .model.denoiser import OasisModel
from .model.held import held_names
from .model.routing import HeadRouting

FORMAT = "oasis-1"
BUNDLED = {"oasis-tiny": Path(__file__).parent / "weights" / "oasis-tiny.safetensors"}
DEFAULT_MODEL = "oasis-tiny"
MAX_METADATA_CHARS = 1_000_000
HALF_DTYPES = (torch.bfloat16, torch.float16)


class CheckpointError(ValueError):
    """A model file cannot be used; one sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded model and what its file says about it."""

    model: OasisModel
    """The network on the CPU, routing applied; in float32, but for matrices of a latent model
    that the file has in half precision."""
    routing: HeadRouting
    """The routing of its heads, in the file's head order."""
    info: dict[str, Any] = field(default_factory=dict)
    """Free-form facts: licence, source, data, metrics."""
    sha256: str = ""
    """Hash of the file."""
    path: Path | None = None
    """Where it was read from."""


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a model file by bundled name or path.

    Raises:
        CheckpointError: Neither a bundled model nor an existing file.
    """
    if str(name_or_path) in BUNDLED:
        return BUNDLED[str(name_or_path)]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    raise CheckpointError(
        f"model {str(name_or_path)!r} is neither a bundled model ({', '.join(BUNDLED)}) nor a "
        "file; give one of these names or the path of an oasis .safetensors file"
    )


def save_checkpoint(
    path: Path,
    model: OasisModel,
    routing: HeadRouting,
    info: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model; the file appears complete or not at all.

    Args:
        path: Destination, replaced if it exists.
        model: Network whose heads are in the order of `routing`.
        routing: Routing of its heads.
        info: JSON values for the reader: licence, source, data, metrics.
        dtype: Floating type of the stored tensors; of a latent model's matrices only.
    """
    kept = set(held_names(model)) if model.config.is_latent else set(model.state_dict())
    tensors = {
        name: x.detach().to(dtype if name in kept else torch.float32).contiguous()
        for name, x in model.state_dict().items()
    }
    save_tensors(path, model.config, routing, info, tensors)


def save_tensors(
    path: Path,
    config: ModelConfig,
    routing: HeadRouting,
    info: dict[str, Any],
    tensors: dict[str, torch.Tensor],
) -> None:
    """Write a model given by its tensors; the file appears complete or not at all."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(config.to_json()),
        "routing": json.dumps(routing.to_json()),
        "info": json.dumps(info),
    }
    write_safetensors(path, tensors, metadata)


def update_info(path: Path, **facts: Any) -> None:
    """Add facts to a checkpoint's metadata; weights, configuration and routing stay.

    Raises:
        CheckpointError: The file is no readable oasis checkpoint.
    """
    _, _, info = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        metadata = file.metadata()
    write_safetensors(path, tensors, {**metadata, "info": json.dumps({**info, **facts})})


def write_rerouted(source: Path, destination: Path, routing: HeadRouting) -> None:
    """Write a copy of a checkpoint with another routing; its weights stay as they are.

    Args:
        source: The checkpoint.
        destination: The copy, replaced if it exists.
        routing: In the file's head order.

    Raises:
        CheckpointError: The file is no readable oasis checkpoint, or the routing does not fit it.
    """
    config, _, info = read_header(source)
    try:
        routing.check_fits(config.num_layers, config.num_heads)
    except ValueError as error:
        raise CheckpointError(f"model file {source}: {error}") from error
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    save_tensors(destination, config, routing, info, tensors)


def write_safetensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file that appears complete or not at all, replacing an older one."""
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata=metadata)
    # Open for writing: Windows flushes no file that is open for reading.
    with temporary.open("r+b") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _parse(metadata: dict[str, str], key: str, path: Path) -> dict[str, Any]:
    text = metadata.get(key, "")
    if len(text) > MAX_METADATA_CHARS:
        raise CheckpointError(f"model file {path} has {len(text)} characters of {key!r}; refused")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"model file {path} has no valid {key!r} in its metadata") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"model file {path}: {key!r} in its metadata must be an object")
    return value


def _read_header(file: Any, path: Path) -> tuple[ModelConfig, HeadRouting, dict[str, Any]]:
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not an oasis checkpoint (format {metadata.get('format')!r}, needed "
            f"{FORMAT!r}); other models are converted with `oasis convert`"
        )
    try:
        config = ModelConfig.from_json(_parse(metadata, "config", path))
        routing = HeadRouting.from_json(_parse(metadata, "routing", path))
        routing.check_fits(config.num_layers, config.num_heads)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"model file {path} describes no usable model: {error}") from error
    return config, routing, _parse(metadata, "info", path)


def _check_tensors(file: Any, expected: dict[str, torch.Tensor], path: Path) -> None:
    names = set(file.keys())
    for problem, odd in (("lacks", set(expected) - names), ("has unknown", names - set(expected))):
        if odd:
            raise CheckpointError(
                f"model file {path} {problem} tensors ({len(odd)}), e.g. {min(odd)}"
            )
    for name, tensor in expected.items():
        shape = tuple(file.get_slice(name).get_shape())
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"model file {path}: tensor {name} must have shape {tuple(tensor.shape)}, got "
                f"{shape}"
            )


def read_header(path: Path) -> tuple[ModelConfig, HeadRouting, dict[str, Any]]:
    """Configuration, routing and facts of a checkpoint, without its weights.

    Raises:
        CheckpointError: The file is no readable oasis checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _read_header(file, path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"model file {path} cannot be read: {error}") from error


def _choose_decoder(model: OasisModel, decoder: str, path: Path) -> None:
    if decoder == model.config.decoder and not model.config.is_latent:
        return
    if decoder == "none":
        return
    try:
        model.choose_decoder(decoder)
    except ValueError as error:
        raise CheckpointError(f"model file {path}: {error}") from error


def _precise(name: str, tensor: torch.Tensor, kept: set[str]) -> torch.Tensor:
    """Float32, but for a latent model's matrices in half precision, which may be gigabytes."""
    return tensor if name in kept and tensor.dtype in HALF_DTYPES else tensor.float()


def load_checkpoint(path: Path, decoder: str | None = None) -> Checkpoint:
    """Read a model file strictly.

    Args:
        path: The file.
        decoder: "wan" or "tiny": which of a latent model's decoders to use, and to read; None for
            the file's own choice.

    Raises:
        CheckpointError: The file is damaged, foreign, incomplete, lacks the decoder, or holds NaN
            or infinity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config, routing, info = _read_header(file, path)
            # Shapes are checked against a model without storage, so that a hostile configuration
            # cannot make us allocate more than the file itself holds.
            with torch.device("meta"):
                model = OasisModel(config)
            _check_tensors(file, model.state_dict(), path)
            _choose_decoder(model, decoder or config.decoder, path)
            kept = set(held_names(model)) if config.is_latent else set()
            tensors = {
                name: _precise(name, file.get_tensor(name), kept) for name in model.state_dict()
            }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"model file {path} cannot be read: {error}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"model file {path}: tensor {name} holds NaN or infinity")
    model.load_state_dict(tensors, strict=True, assign=True)
    model.eval().requires_grad_(False)
    model.transformer.apply_routing(routing)
    return Checkpoint(model=model, routing=routing, info=info, sha256=file_sha256(path), path=path)
