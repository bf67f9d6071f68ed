"""Model files as families see them: their head, and what a user may ask of loading."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..checkpoint import FORMAT, MAX_METADATA_CHARS, CheckpointError
from ..config import ModelConfig
from ..ends import check_detail

PICKLES = (".pth", ".pt", ".ckpt", ".bin")
"""Endings of files that may hold code; `oasis convert` alone reads them, and runs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a safetensors file says before its weights are read."""

    metadata: dict[str, str]
    """Free text by key; in oasis checkpoints "format", "config", "routing" and "info"."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of each tensor by name."""

    def oasis_config(self) -> ModelConfig | None:
        """The configuration of an oasis checkpoint; None for other and for unusable files."""
        text = self.metadata.get("config", "")
        if self.metadata.get("format") != FORMAT or len(text) > MAX_METADATA_CHARS:
            return None
        try:
            return ModelConfig.from_json(json.loads(text))
        except (ValueError, TypeError, RecursionError, AttributeError):
            return None  # whoever reads the file says what is wrong with it


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a user may ask of loading a model; a family refuses what it does not have."""

    decoder: str | None = None
    """"wan" or "tiny", for a model with both; None for the file's own choice."""
    compiled: bool = False
    """Whether the blocks of a large model are compiled by torch.compile."""
    int8: bool = False
    """Whether a large model's matrices are held in 8 bits."""
    decoder_tile: int | None = None
    """Side in pixels of the tiles that Wan's decoder works in; None: as large as the model's."""
    transformer: bool = True
    """Whether the transformer is used, where a model works without it."""
    detail: float | None = None
    """Share of the vivid end in [0, 1], for a model with two ends; None for the model's own."""

    def __post_init__(self) -> None:
        check_detail(self.detail)

    def refuse_detail(self, name: str) -> None:
        """For families that have one end only.

        Raises:
            ValueError: A share of a vivid end is wanted.
        """
        if self.detail:
            raise ValueError(
                f"detail must be left out (or 0), got {self.detail:g}: {name} has one end "
                "only, and detail mixes a faithful and a vivid one"
            )


def read_file_header(path: Path) -> Header:
    """The head of a safetensors file.

    Raises:
        CheckpointError: It is none, or damaged.
    """
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which could run code; make a safetensors file of it once: "
            f"oasis convert {path.name} {path.stem}.safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            return Header(metadata=file.metadata() or {}, shapes=shapes)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"model file {path} cannot be read: {error}") from error
