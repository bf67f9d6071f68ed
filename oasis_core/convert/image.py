"""Image upscalers of any format to safetensors: the one place where their pickles are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..checkpoint import CheckpointError, write_safetensors
from ..extras import need
from ..families.files import PICKLES
from ..families.image import EXTRA, descriptor_of
from .weight_files import read_pickle


def convert_image(
    source: Path, destination: Path, *, licence: str | None = None, origin: str | None = None
) -> dict[str, Any]:
    """Write an image model that spandrel knows as a safetensors file; its weights stay as they are.

    Args:
        source: A pickle of tensors (.pth and the like) or a safetensors file.
        destination: The file to write, replaced if it exists; it appears complete or not at all.
        licence: Name of its licence, if the user knows it; None keeps what the source says.
        origin: Where it is from, such as an address; None keeps what the source says.

    Returns:
        The metadata that was written: architecture, scale, licence and source as far as known.

    Raises:
        CheckpointError: The file cannot be read safely, spandrel does not know it, or it is of no
            use as an upscaler of films.
        MissingExtraError: spandrel is not installed.
    """
    spandrel = need("spandrel", extra=EXTRA, purpose="converting an image model")
    content, metadata = _read(source)
    tensors = spandrel.canonicalize_state_dict(content) if isinstance(content, dict) else {}
    if not tensors or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items()
    ):
        raise CheckpointError(f"weight file {source} must hold named tensors and nothing else")
    descriptor = descriptor_of(dict(tensors), source)
    metadata |= {
        "format": "pt",
        "architecture": descriptor.architecture.name,
        "scale": str(descriptor.scale),
    }
    metadata |= {"licence": licence} if licence else {}
    metadata |= {"source": origin} if origin else {}
    # Copies: tensors of a pickle may share memory, which safetensors refuses.
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    write_safetensors(destination, whole, metadata)
    return metadata


def _read(source: Path) -> tuple[Any, dict[str, str]]:
    if not source.is_file():
        raise CheckpointError(f"weight file {source} does not exist")
    if source.suffix.lower() in PICKLES:
        return read_pickle(source), {}
    try:
        with safe_open(source, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"weight file {source} cannot be read: {error}") from error
