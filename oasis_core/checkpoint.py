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

from . import choices
from .choices import DEFAULT_DETAIL
from .config import ModelConfig
from .digests import file_sha256
from .ends import VIVID_PREFIX, check_detail, mix, vivid_names
from .model.denoiser import OasisModel
from .model.routing import HeadRouting
from .model.weight_precision import held_names
from .words import meant

FORMAT = "oasis-1"
BUNDLED = {
    name: Path(__file__).parent / "weights" / f"{name}.safetensors" for name in choices.BUNDLED
}
"""Files of the models that come with the package, by name."""
DEFAULT_MODEL = choices.BUNDLED[0]
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
    has_vivid: bool = False
    """Whether the file has a vivid end beside the faithful one."""
    detail: float = 0.0
    """Share of the vivid end in these weights."""

    @property
    def identity(self) -> str:
        """What tells these weights from all others: the file's hash, and the mixture if any."""
        return self.sha256 + (f"-detail{self.detail:g}" if self.detail else "")


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
        f"{meant(str(name_or_path), BUNDLED)}"
    )


def save_checkpoint(
    path: Path,
    model: OasisModel,
    routing: HeadRouting,
    info: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    vivid: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a model; the file appears complete or not at all.

    Args:
        path: Destination, replaced if it exists.
        model: Network whose heads are in the order of `routing`.
        routing: Routing of its heads.
        info: JSON values for the reader: licence, source, data, metrics.
        dtype: Floating type of the stored tensors; of a latent model's matrices only.
        vivid: The vivid end's tensors, those of `vivid_names`; the model itself is the faithful
            end then. None: a file with one end.
    """
    kept = set(held_names(model)) if model.config.is_latent else set(model.state_dict())
    tensors = {
        name: x.detach().to(dtype if name in kept else torch.float32).contiguous()
        for name, x in model.state_dict().items()
    }
    if vivid is not None:
        tensors |= {
            VIVID_PREFIX + name: vivid[name].detach().to(dtype).contiguous()
            for name in vivid_names(model)
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
    try:
        save_file(tensors, temporary, metadata=metadata)
        # Open for writing: Windows flushes no file that is open for reading.
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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


def load_checkpoint(
    path: Path, decoder: str | None = None, detail: float | None = 0.0
) -> Checkpoint:
    """Read a model file strictly.

    Args:
        path: The file.
        decoder: "wan" or "tiny": which of a latent model's decoders to use, and to read; None for
            the file's own choice.
        detail: Share of the vivid end in the weights, in [0, 1]: 0 is the faithful end; None is
            `DEFAULT_DETAIL` where the file has a vivid end, and 0 where it has none.

    Raises:
        CheckpointError: The file is damaged, foreign, incomplete, lacks the decoder or the vivid
            end, or holds NaN or infinity.
        ValueError: `detail` is out of range.
    """
    check_detail(detail)
    try:
        with safe_open(path, framework="pt") as file:
            config, routing, info = _read_header(file, path)
            # Shapes are checked against a model without storage, so that a hostile configuration
            # cannot make us allocate more than the file itself holds.
            with torch.device("meta"):
                model = OasisModel(config)
            ends = set(vivid_names(model)) if _has_vivid(file) else set()
            expected = model.state_dict()
            vivid_shapes = {VIVID_PREFIX + name: expected[name] for name in ends}
            _check_tensors(file, expected | vivid_shapes, path)
            _choose_decoder(model, decoder or config.decoder, path)
            kept = set(held_names(model)) if config.is_latent else set()
            tensors = {
                name: _precise(name, file.get_tensor(name), kept) for name in model.state_dict()
            }
            # Both ends are looked at, whichever is wanted: a damaged file should not pass for a
            # good one until somebody moves the slider.
            vivid = {name: file.get_tensor(VIVID_PREFIX + name).float() for name in ends}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"model file {path} cannot be read: {error}") from error
    for name, tensor in (tensors | {VIVID_PREFIX + name: x for name, x in vivid.items()}).items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"model file {path}: tensor {name} holds NaN or infinity")
    if detail and not vivid:
        raise CheckpointError(
            f"detail must be left out (or 0), got {detail:g}: the model file {path} has one end "
            "only, and detail mixes a faithful and a vivid one"
        )
    if detail is None:
        detail = DEFAULT_DETAIL if vivid else 0.0
    tensors |= mix(tensors, vivid, detail)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.eval().requires_grad_(False)
    model.transformer.apply_routing(routing)
    return Checkpoint(
        model=model,
        routing=routing,
        info=info,
        sha256=file_sha256(path),
        path=path,
        has_vivid=bool(vivid),
        detail=float(detail),
    )


def has_vivid(path: Path) -> bool:
    """Whether a model file has a vivid end, by its names alone.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _has_vivid(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"model file {path} cannot be read: {error}") from error


def _has_vivid(file: Any) -> bool:
    return any(name.startswith(VIVID_PREFIX) for name in file.keys())  # noqa: SIM118 (no dict)
