"""Public files that lie together in a folder: which model they make, and making it, once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..words import counted
from .published import MODELS, PublicFile, PublishedModel

if TYPE_CHECKING:
    from .stream_file import OnBytes

logger = logging.getLogger(__name__)

TRANSFORMER = "transformer"
DECODERS = ("vae", "tiny")
"""Parts of which one is enough."""
OWN_BYTES = 1 << 30
"""Memory that converting takes itself; both full-size conversions of the tests take less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """Files of a published model that lie in one folder."""

    model: PublishedModel
    """The model."""
    folder: Path
    """Where they are; the checkpoint is written beside them."""
    parts: dict[str, Path]
    """What is there, by part."""

    @property
    def target(self) -> Path:
        """The checkpoint that they make."""
        return self.folder / target_name(self.model)

    def missing(self) -> list[PublicFile]:
        """Files without which it cannot be made; of the decoders the first of the model's list."""
        files = [file for file in self.model.files if file.part not in self.parts]
        lacks_decoder = not any(part in self.parts for part in DECODERS)
        decoders = [file for file in files if file.part in DECODERS]
        needed = [f for f in files if f.part not in DECODERS]
        return needed + (decoders[:1] if lacks_decoder else [])


def target_name(model: PublishedModel) -> str:
    """Name of the checkpoint that a model's public files make."""
    return f"{model.name}.safetensors"


def models_among(names: Iterable[str]) -> list[PublishedModel]:
    """The models whose transformer is among some files of one folder, told by their names."""
    lower = {name.lower() for name in names}
    return [model for model in _convertible() if _transformer(model).names & lower]


def is_part(name: str) -> bool:
    """Whether a file's name is that of a public file, which is no model by itself."""
    return any(name.lower() in file.names for model in _convertible() for file in model.files)


def find_set(folder: Path, name: str) -> PublicSet | None:
    """The files of a model in a folder.

    Args:
        folder: Where to look; not in folders inside it.
        name: Of the checkpoint, as `target_name` has it.

    Returns:
        What is there; None if it is no such model, or its transformer is not there.
    """
    for model in _convertible():
        if target_name(model) == name:
            parts: dict[str, Path] = {}
            for file in model.files:
                path = file.find([folder])
                if path is not None:  # of two forms of a part the first of the list
                    parts.setdefault(file.part, path)
            if TRANSFORMER in parts:
                return PublicSet(model=model, folder=folder, parts=parts)
    return None


def convert_set(
    files: PublicSet, on_progress: OnBytes | None = None, free_memory: int | None = None
) -> Path:
    """Make the checkpoint of some files, in bfloat16, beside them; they stay as they are.

    Args:
        files: The files.
        on_progress: Called with (bytes written, bytes in all); may raise to stop, which leaves
            nothing behind.
        free_memory: Free main memory in bytes; None: whatever there is.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: A file is another one, damaged, or of another version.
        ValueError: A file is missing, or disk or memory do not suffice.
    """
    if missing := files.missing():
        listed = "; ".join(f"{file.name} ({file.published})" for file in missing)
        raise ValueError(
            f"{files.model.name} needs {counted(len(missing), 'more file')} in "
            f"{files.folder}: {listed}"
        )
    disk_bytes = _disk_bytes(files)
    logger.info(
        "converting %s once: %.1f GB of disk, %.1f GB of memory",
        files.model.name,
        disk_bytes / 1e9,
        OWN_BYTES / 1e9,
    )
    if free_memory is not None and free_memory < OWN_BYTES:
        raise ValueError(
            f"converting {files.model.name} needs {OWN_BYTES / 1e9:.1f} GB of memory and "
            f"{free_memory / 1e9:.1f} GB are free; close other programs"
        )
    _CONVERTERS[files.model.name](files, on_progress)
    return files.target


def _disk_bytes(files: PublicSet) -> int:
    """About what the checkpoint takes: that of a model of published sizes with these decoders."""
    import torch

    from ..config import PRESETS
    from .stream_file import layout_bytes
    from .write_model import model_layout

    config = PRESETS[files.model.name]
    if "vae" not in files.parts:
        coder = {"encoder": "tiny"} if config.tiny_encoder_width else {}
        config = replace(config, vae_width=0, decoder="tiny", **coder)
    if "tiny" not in files.parts:
        config = replace(
            config, tiny_width=0, tiny_encoder_width=0, tiny_guide=0, encoder="wan", decoder="wan"
        )
    return layout_bytes(model_layout(config, torch.bfloat16))


def _convertible() -> list[PublishedModel]:
    return [model for model in MODELS if model.name in _CONVERTERS]


def _transformer(model: PublishedModel) -> PublicFile:
    return next(file for file in model.files if file.part == TRANSFORMER)


def _convert_infvsr(files: PublicSet, on_progress: OnBytes | None) -> None:
    from .infvsr import InfvsrFiles, convert_infvsr

    convert_infvsr(InfvsrFiles(**files.parts), files.target, on_progress=on_progress)


def _convert_flashvsr(files: PublicSet, on_progress: OnBytes | None) -> None:
    from .flashvsr import FlashvsrFiles, convert_flashvsr

    convert_flashvsr(FlashvsrFiles(**files.parts), files.target, on_progress=on_progress)


_CONVERTERS = {"infvsr": _convert_infvsr, "flashvsr-1.1": _convert_flashvsr}
