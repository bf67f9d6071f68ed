"""InfVSR's public files to one oasis checkpoint: one step on Wan2.1-1.3B, guided by a picture.

Written tensor by tensor, so that it takes little memory; no source is ever changed.

Source: Kai-Liu001/InfVSR @a5b9342 (MIT): names, shapes and constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointError
from ..config import INFVSR, ModelConfig
from ..model.tiny_encoder import TinyEncoder
from ..model.transformer import OasisTransformer
from ..model.visual import VisualEncoder
from .fold import fold_timestep
from .keys import own_tiny_encoder_name
from .public_files import describe_hashes
from .stream_file import OnBytes
from .visual_keys import DERIVED, ENCODER, low_rank_place, own_visual_name
from .wan import (
    TensorReader,
    check_tensors,
    meta_state,
    part_tensors,
    tiny_width_of,
    transformer_names,
    vae_width_of,
    wan_config,
)
from .weight_files import TensorSource, open_source
from .write_model import Reads, write_model

WANTED = "InfVSR.ckpt"
TEXT_CHANNELS = 4096
"""Of Wan2.1's own context."""
LOW_RANK_DIVISOR = 8
LICENCES = {
    "transformer": "MIT (InfVSR)",
    "vae": "Apache-2.0 (Wan2.1 VAE)",
    "visual": "Apache-2.0 (recognize-anything)",
    "visual_lora": "Apache-2.0 (SeeSR's DAPE)",
    "tiny": "MIT (TAEHV)",
}
USED: dict[str, Callable[[str], bool]] = {
    "visual": lambda name: name.startswith((ENCODER, "image_proj.")),
    "visual_lora": lambda name: low_rank_place(name) is not None,
}
"""Which tensors of a file are looked at; others are named in the facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfvsrFiles:
    """The public files that make InfVSR."""

    transformer: Path
    """InfVSR.ckpt."""
    visual: Path
    """ram_swin_large_14m.pth, of which the visual encoder is used."""
    visual_lora: Path
    """DAPE.pth, low-rank additions to it."""
    vae: Path | None = None
    """Wan2.1_VAE.pth or its safetensors copy; None for TAEHV both ways."""
    tiny: Path | None = None
    """taew2_1.pth: encoder and decoder."""


def convert_infvsr(
    files: InfvsrFiles,
    destination: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    reference: ModelConfig = INFVSR,
    on_progress: OnBytes | None = None,
) -> dict[str, Any]:
    """Convert InfVSR's files to one oasis checkpoint.

    Args:
        files: What was downloaded.
        destination: The checkpoint to write; ends in .safetensors.
        dtype: Of the stored matrices.
        reference: The sizes that are expected.
        on_progress: Called with (bytes written, bytes in all); may raise to stop.

    Returns:
        The facts that were written with it.

    Raises:
        CheckpointError: A file is another model, lacks tensors, has unknown ones, or is damaged.
        ValueError: Neither decoder is given, or the disk has no room.
    """
    if files.vae is None and files.tiny is None:
        raise ValueError(
            "InfVSR needs a VAE; give --vae Wan2.1_VAE.pth, --tiny taew2_1.pth or both"
        )
    paths = {name: getattr(files, name) for name in LICENCES}
    opened = {name: open_source(path) for name, path in paths.items() if path is not None}
    names, unfolded = _transformer(opened["transformer"], reference)
    config = _config(reference, opened)
    reads = _transformer_reads(TensorReader(opened["transformer"], names, unfolded), config)
    reads |= _visual_reads(opened["visual"], opened["visual_lora"], config)
    reads |= part_tensors(config, {name: opened.get(name) for name in ("vae", "tiny")})
    if "tiny" in opened:
        reads |= _tiny_encoder_reads(opened["tiny"], config)
    info = _facts(opened)
    write_model(destination, config, reads, info, dtype, on_progress)
    return info


# Transformer


def _transformer(
    source: TensorSource, reference: ModelConfig
) -> tuple[dict[str, str], ModelConfig]:
    """Own name of each tensor by the file's, and the unfolded configuration, both checked."""
    names = transformer_names(source, WANTED)
    found = wan_config(source, names)
    if found.text_channels == TEXT_CHANNELS != reference.text_channels:
        raise CheckpointError(
            f"{source.path} is the transformer of Wan2.1-T2V, guided by text of {TEXT_CHANNELS} "
            f"channels; InfVSR's own has {reference.text_channels}: give {WANTED}"
        )
    for field in ("width", "num_layers", "ffn_width", "text_channels"):
        value, wanted = getattr(found, field), getattr(reference, field)
        if value != wanted:
            raise CheckpointError(
                f"{source.path} is not InfVSR: {field} must be {wanted}, got {value}; give {WANTED}"
            )
    unfolded = replace(reference, timestep_channels=found.timestep_channels)
    expected = meta_state(OasisTransformer, unfolded)
    check_tensors(source, names, {name: tuple(x.shape) for name, x in expected.items()})
    return names, unfolded


def _config(reference: ModelConfig, opened: dict[str, TensorSource]) -> ModelConfig:
    vae, tiny = opened.get("vae"), opened.get("tiny")
    main = "tiny" if vae is None else "wan"
    return replace(
        reference,
        encoder=main,
        decoder=main,
        vae_width=0 if vae is None else vae_width_of(vae),
        tiny_width=0 if tiny is None else tiny_width_of(tiny),
        tiny_encoder_width=0 if tiny is None else _tiny_encoder_width(tiny),
    )


def _transformer_reads(read: TensorReader, config: ModelConfig) -> Reads:
    """The transformer's tensors, the timestep folded in."""
    block_rows, head_rows = fold_timestep(read.config, read, config.timestep)
    reads: Reads = {}
    for name in meta_state(OasisTransformer, config):
        rows = None
        if name.endswith("modulation"):
            rows = head_rows if name == "head_modulation" else block_rows
        reads[f"transformer.{name}"] = _folded(read, name, rows)
    return reads


def _folded(read: TensorReader, name: str, rows: Tensor | None) -> Callable[[], Tensor]:
    return lambda: read(name) if rows is None else read(name) + rows


# The picture's features


def _visual_reads(source: TensorSource, additions: TensorSource, config: ModelConfig) -> Reads:
    """The visual encoder's tensors, the low-rank additions folded in."""
    wanted = meta_state(VisualEncoder, config.visual_width, config.text_channels)
    used = [
        name
        for name in source.shapes
        if name.startswith((ENCODER, "image_proj.")) and not name.endswith(DERIVED)
    ]
    if not used:
        raise CheckpointError(
            f"{source.path} holds no visual encoder; give RAM's ram_swin_large_14m.pth"
        )
    names = {name: own_visual_name(name) or name for name in used}
    kept = replace(source, shapes={name: source.shapes[name] for name in used})
    check_tensors(kept, names, {name: tuple(x.shape) for name, x in wanted.items()})
    pairs = _low_rank_pairs(additions, wanted)
    return {
        f"visual.{own}": _with_addition(source, name, additions, pairs.get(own))
        for name, own in names.items()
    }


def _low_rank_pairs(source: TensorSource, wanted: dict[str, Tensor]) -> dict[str, tuple[str, str]]:
    """The file's names of A and B for each weight that they change, shapes checked."""
    found: dict[str, dict[str, str]] = {}
    for name in source.shapes:
        if (place := low_rank_place(name)) is not None:
            found.setdefault(place[0], {})[place[1]] = name
        elif "lora" in name.lower():
            raise CheckpointError(
                f"{source.path} adds to what is not known here, {name}; it is not SeeSR's DAPE.pth"
            )
    weights = [name for name in wanted if name.endswith(".qkv.weight")]
    if not found:
        raise CheckpointError(f"{source.path} holds no low-rank additions; give SeeSR's DAPE.pth")
    if unknown := sorted(set(found) - set(weights)):
        raise CheckpointError(
            f"{source.path} changes layers that the visual encoder does not have, e.g. {unknown[0]}"
        )
    for weight in weights:
        if set(found.get(weight, {})) != {"A", "B"}:
            raise CheckpointError(
                f"{source.path} lacks a low-rank addition, the one to {weight} here"
            )
        a, b = (source.shapes[found[weight][part]] for part in "AB")
        channels = wanted[weight].shape[1]
        rank = a[0] // 2 if a else 0
        if rank < 1 or a != (2 * rank, channels) or b != (2 * channels, rank):
            raise CheckpointError(
                f"{source.path}: lora_A and lora_B of {weight} must have shapes (2 r, {channels}) "
                f"and ({2 * channels}, r), got {a} and {b}"
            )
    return {weight: (found[weight]["A"], found[weight]["B"]) for weight in weights}


def _with_addition(
    source: TensorSource, name: str, additions: TensorSource, pair: tuple[str, str] | None
) -> Callable[[], Tensor]:
    def read() -> Tensor:
        weight = source.tensor(name)
        if pair is None:
            return weight
        a, b = (additions.tensor(part) for part in pair)
        # Two additions, to the rows of the queries and of the values; keys stay as they are.
        query, value = (
            rows @ columns / LOW_RANK_DIVISOR
            for rows, columns in zip(b.chunk(2), a.chunk(2), strict=True)
        )
        return weight + torch.cat([query, torch.zeros_like(query), value])

    return read


# TAEHV's encoder


def _tiny_encoder_width(source: TensorSource) -> int:
    shape = source.shapes.get("encoder.0.weight")
    if shape is None or len(shape) != 4 or shape[1] != 3:
        raise CheckpointError(
            f"{source.path} holds no encoder of TAEHV for Wan2.1 (taew2_1): encoder.0.weight must "
            f"read 3 channels, got {shape}"
        )
    return shape[0]


def _tiny_encoder_reads(source: TensorSource, config: ModelConfig) -> Reads:
    wanted = meta_state(TinyEncoder, config.tiny_encoder_width)
    names = {
        name: own_tiny_encoder_name(name) or name
        for name in source.shapes
        if name.startswith("encoder.")
    }
    kept = replace(source, shapes={name: source.shapes[name] for name in names})
    check_tensors(kept, names, {name: tuple(x.shape) for name, x in wanted.items()})
    return {f"tiny_encoder.{own}": _plain(source, name) for name, own in names.items()}


def _plain(source: TensorSource, name: str) -> Callable[[], Tensor]:
    return lambda: source.tensor(name)


def _facts(opened: dict[str, TensorSource]) -> dict[str, Any]:
    """What a reader of the checkpoint should know."""
    return {
        "licence": ", ".join(LICENCES[part] for part in opened),
        "source": "InfVSR, converted; trained for video super-resolution in one step",
        "files": {part: describe_hashes(source.hashes()) for part, source in opened.items()},
        "context": "features of the first frame",
        "untrained": "",
        "unused": {
            part: sorted(name for name in opened[part].shapes if not is_used(name))
            for part, is_used in USED.items()
        },
    }
