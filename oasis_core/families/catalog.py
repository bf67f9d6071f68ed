"""All families: who recognises a file or a network, and opens it as a restorer."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..checkpoint import load_checkpoint, read_header
from ..config import ModelConfig
from . import image, tiny, wan
from .files import LoadOptions, read_file_header
from .module import ModuleRestorer
from .restorer import Restorer

FAMILIES: tuple[ModuleType, ...] = (tiny, wan, image)
"""Asked in this order. Each has `recognises(header)`, `load(path, header, options)`,
`describe(path, header)`, `wraps(network)` and `wrap(network)`."""


def open_restorer(path: Path, options: LoadOptions | None = None) -> Restorer:
    """Read a model file of any family, onto the CPU.

    Args:
        path: A safetensors file.
        options: What the user chose; None for all defaults.

    Raises:
        CheckpointError: No family knows the file, or it is damaged.
        ValueError: An option is not for its family.
    """
    options = options or LoadOptions()
    header = read_file_header(path)
    for family in FAMILIES:
        if family.recognises(header):
            return family.load(path, header, options)
    load_checkpoint(path)  # says in its own words what is wrong
    raise AssertionError(f"no family took {path}, which is an oasis checkpoint")


def describe_file(path: Path) -> dict[str, Any]:
    """Facts about a model file, as JSON values, without reading its weights.

    Raises:
        CheckpointError: No family knows the file, or its head is damaged.
    """
    header = read_file_header(path)
    for family in FAMILIES:
        if family.recognises(header):
            return family.describe(path, header)
    read_header(path)  # says in its own words what is wrong
    raise AssertionError(f"no family took {path}, which is an oasis checkpoint")


def describe_preset(config: ModelConfig) -> dict[str, Any]:
    """What a model needs of which there is only a configuration, as JSON values."""
    return wan.describe_config(config) if config.is_latent else {}


def restorer_of(model: nn.Module | Restorer) -> Restorer:
    """A network in memory as a restorer; a restorer is given back as it is.

    Args:
        model: A network of a family, or any module of the plain contract (see `families.module`).
    """
    if not isinstance(model, nn.Module):
        return model
    for family in FAMILIES:
        if family.wraps(model):
            return family.wrap(model)
    return ModuleRestorer(model)
