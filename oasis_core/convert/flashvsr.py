"""FlashVSR v1.1's public files to one oasis checkpoint: one step on Wan2.1-1.3B, from noise.

Written tensor by tensor, so that it takes little memory; no source is ever changed.

Source: OpenImagingLab/FlashVSR (Apache-2.0), version 1.1: names, shapes and constants.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointError
from ..config import FLASHVSR, ModelConfig
from ..model.projector import Projector
from ..model.transformer import OasisTransformer
from .fold import embed_context, fold_context, fold_timestep, prompt_rows
from .public_files import FLASHVSR_1_1, PUBLIC, describe_hashes
from .stream_file import OnBytes
from .wan import (
    TensorReader,
    check_tensors,
    meta_state,
    part_tensors,
    transformer_names,
    vae_width_of,
    wan_config,
)
from .weight_files import TensorSource, open_source
from .write_model import Reads, write_model

WANTED = "diffusion_pytorch_model_streaming_dmd.safetensors of FlashVSR v1.1"
TEXT_CHANNELS = 4096
MAGNITUDES = {"e": 0.9244, "e0": 2.400, "key": 5.842, "value": 1.216}
"""Largest magnitudes of the timestep's embedding (head, blocks) and of the prompt's keys and values
in the first block, as measured of the published v1.1 weights."""
MAGNITUDE_WORDS = {
    "e": "the timestep's embedding",
    "e0": "the blocks' modulation by the timestep",
    "key": "the prompt's keys in block 0",
    "value": "the prompt's values in block 0",
}
TOLERANCE = 0.01
"""Relative; copies in half precision are within a fifth of it."""
VERSION_1_0_NAMES = (
    "wan2_1-t2v-1_3b_flashvsr",
    "wan2_1_flashvsr_",
    "flashvsr-v1.0",
    "flashvsr_v1.0",
)
"""What files of v1.0 are called where they are published again."""
PROJECTOR_NAMES = {"linear_layers.0.": "linear."}
LICENCES = {
    "transformer": "Apache-2.0 (FlashVSR v1.1)",
    "projector": "Apache-2.0 (FlashVSR v1.1)",
    "prompt": "Apache-2.0 (FlashVSR v1.1)",
    "tiny": "Apache-2.0 (FlashVSR v1.1)",
    "vae": "Apache-2.0 (Wan2.1 VAE)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashvsrFiles:
    """The public files that make FlashVSR v1.1."""

    transformer: Path
    """diffusion_pytorch_model_streaming_dmd.safetensors, or a copy of it."""
    projector: Path
    """LQ_proj_in.ckpt, or a copy of it."""
    prompt: Path
    """posi_prompt.pth, or a copy of it: the text features that the model was trained with."""
    tiny: Path | None = None
    """TCDecoder.ckpt, or a copy of it: its own decoder, which looks at the source."""
    vae: Path | None = None
    """Wan2.1_VAE.pth or its safetensors copy: the decoder that the latents are made for."""


def convert_flashvsr(
    files: FlashvsrFiles,
    destination: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    reference: ModelConfig = FLASHVSR,
    magnitudes: dict[str, float] | None = None,
    on_progress: OnBytes | None = None,
) -> dict[str, Any]:
    """Convert FlashVSR v1.1's files to one oasis checkpoint.

    Args:
        files: What was downloaded.
        destination: The checkpoint to write; ends in .safetensors.
        dtype: Of the stored matrices.
        reference: The sizes that are expected.
        magnitudes: Largest values that are expected; None for those of the published weights.
        on_progress: Called with (bytes written, bytes in all); may raise to stop.

    Returns:
        The facts that were written with it.

    Raises:
        CheckpointError: A file is of v1.0 or another model, lacks tensors, has unknown ones, or is
            damaged.
        ValueError: Neither decoder is given, the prompt has another width, or the disk has no room.
    """
    if files.tiny is None and files.vae is None:
        raise ValueError(
            "FlashVSR needs a decoder; give --tiny TCDecoder.ckpt, --vae Wan2.1_VAE.pth or both"
        )
    paths = {name: getattr(files, name) for name in LICENCES}
    opened = {name: open_source(path) for name, path in paths.items() if path is not None}
    for name in ("transformer", "projector", "tiny"):
        if name in opened:
            _refuse_version_1_0(opened[name].path)
    read = _transformer(opened["transformer"], reference)
    rows, log_count = prompt_rows(_prompt(opened["prompt"]), read.config.text_channels)
    config = replace(
        reference,
        num_context_keys=len(rows),
        decoder="wan" if files.tiny is None else "tiny",
        tiny_width=_guided_width(opened["tiny"]) if "tiny" in opened else 0,
        tiny_guide=reference.tiny_guide if "tiny" in opened else 0,
        vae_width=vae_width_of(opened["vae"]) if "vae" in opened else 0,
    )
    reads = _projector_reads(opened["projector"], config)
    reads |= part_tensors(config, {name: opened.get(name) for name in ("vae", "tiny")})
    context = embed_context(read.config, read, rows)
    reads |= _transformer_reads(
        read, config, context, log_count, MAGNITUDES if magnitudes is None else magnitudes
    )
    info = _facts(opened)
    write_model(destination, config, reads, info, dtype, on_progress)
    return info


# Transformer


def _refuse_version_1_0(path: Path) -> None:
    if any(word in path.name.lower() for word in VERSION_1_0_NAMES):
        raise CheckpointError(
            f"{path} is named as a file of FlashVSR v1.0, which is run otherwise and must not be "
            "mixed with v1.1; give the files of JunhaoZhuang/FlashVSR-v1.1"
        )


def _transformer(source: TensorSource, reference: ModelConfig) -> TensorReader:
    """A reader of the transformer, its names and shapes checked."""
    names = transformer_names(source, WANTED)
    found = wan_config(source, names)
    for field in ("width", "num_layers", "ffn_width"):
        value, wanted = getattr(found, field), getattr(reference, field)
        if value != wanted:
            raise CheckpointError(
                f"{source.path} is not FlashVSR: {field} must be {wanted}, got {value}; give "
                f"{WANTED}"
            )
    unfolded = replace(
        reference,
        num_context_keys=0,
        text_channels=found.text_channels,
        timestep_channels=found.timestep_channels,
    )
    expected = meta_state(OasisTransformer, unfolded)
    check_tensors(source, names, {name: tuple(x.shape) for name, x in expected.items()})
    return TensorReader(source, names, unfolded)


def _transformer_reads(
    read: TensorReader,
    config: ModelConfig,
    context: Tensor,
    log_count: Tensor,
    magnitudes: dict[str, float],
) -> Reads:
    """The transformer's tensors, timestep and prompt folded in, after a look at their sizes."""
    block_rows, head_rows = fold_timestep(read.config, read, config.timestep)
    folded = functools.lru_cache(maxsize=1)(functools.partial(_folded_context, read, context))
    found = dict(
        zip(MAGNITUDES, (_most(x) for x in (head_rows, block_rows, *folded(0))), strict=True)
    )
    _check_magnitudes(read.path, found, magnitudes)
    reads: Reads = {}
    for name in meta_state(OasisTransformer, config):
        last = name.rsplit(".", 1)[-1]
        if last == "log_count":
            made = log_count.clone
        elif last in ("context_key", "context_value"):
            layer = int(name.split(".")[1])
            made = functools.partial(_part, folded, layer, last == "context_value")
        elif name == "head_modulation":
            made = functools.partial(_added, read, name, head_rows)
        elif last == "modulation":
            made = functools.partial(_added, read, name, block_rows)
        else:
            made = functools.partial(read, name)
        reads[f"transformer.{name}"] = made
    return reads


def _folded_context(read: TensorReader, context: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    return fold_context(read.config, read, layer, context)


def _part(folded: Any, layer: int, index: int) -> Tensor:
    return folded(layer)[index]


def _added(read: TensorReader, name: str, rows: Tensor) -> Tensor:
    return read(name) + rows


def _most(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def _check_magnitudes(path: Path, found: dict[str, float], wanted: dict[str, float]) -> None:
    for name, value in wanted.items():
        if abs(found[name] - value) > TOLERANCE * value:
            raise CheckpointError(
                f"{path} with this prompt is not FlashVSR v1.1: the largest magnitude of "
                f"{MAGNITUDE_WORDS[name]} must be {value:g}, got {found[name]:.4g}; Wan2.1-T2V and "
                f"v1.0 look the same otherwise: give {WANTED}, and posi_prompt.pth"
            )


def _prompt(source: TensorSource) -> Tensor:
    if len(source.shapes) != 1:
        raise CheckpointError(
            f"{source.path} must hold one tensor, the prompt's text features, got "
            f"{len(source.shapes)}; give posi_prompt.pth"
        )
    return source.tensor(next(iter(source.shapes)))


# Projector and decoder


def _projector_reads(source: TensorSource, config: ModelConfig) -> Reads:
    wanted = meta_state(Projector, config.projector_width, config.width)
    names = {}
    for name in source.shapes:
        own = name
        for theirs, ours in PROJECTOR_NAMES.items():
            own = ours + own.removeprefix(theirs) if own.startswith(theirs) else own
        names[name] = own
    if "conv1.weight" not in source.shapes or "norm1.gamma" not in source.shapes:
        raise CheckpointError(f"{source.path} is no projector of FlashVSR; give LQ_proj_in.ckpt")
    shape = source.shapes["conv1.weight"]
    if len(shape) == 5 and shape[1:4] == (4, 3, 3):
        raise CheckpointError(
            f"{source.path} is laid out for MLX, its channels last; give LQ_proj_in.ckpt"
        )
    check_tensors(source, names, {name: tuple(x.shape) for name, x in wanted.items()})
    return {
        f"projector.{own}": functools.partial(_shaped, source, name, tuple(wanted[own].shape))
        for name, own in names.items()
    }


def _shaped(source: TensorSource, name: str, shape: tuple[int, ...]) -> Tensor:
    return source.tensor(name).reshape(shape)


def _guided_width(source: TensorSource) -> int:
    """Base width of FlashVSR's decoder; other files are refused."""
    shape = source.shapes.get("decoder.26.weight")
    if shape is None or len(shape) != 4 or shape[0] != 3:
        is_plain = "decoder.22.weight" in source.shapes and shape is None
        what = "TAEHV, which does not look at the source" if is_plain else "another file"
        raise CheckpointError(
            f"{source.path} must be FlashVSR's own decoder, it is {what}: give TCDecoder.ckpt"
        )
    return shape[1]


def _facts(opened: dict[str, TensorSource]) -> dict[str, Any]:
    """What a reader of the checkpoint should know; files of another version are refused by hash."""
    hashes = {part: source.hashes() for part, source in opened.items()}
    for part, known in FLASHVSR_1_1.items():
        for name, sha256 in hashes.get(part, {}).items():
            if sha256 in PUBLIC and sha256 != known:
                raise CheckpointError(
                    f"{name} is {PUBLIC[sha256]}, and FlashVSR v1.1's {part} is another file; "
                    "see `oasis models`"
                )
    return {
        "licence": ", ".join(dict.fromkeys(LICENCES[part] for part in opened)),
        "source": "FlashVSR v1.1, converted; trained for video super-resolution in one step",
        "files": {part: describe_hashes(found) for part, found in hashes.items()},
        "context": "stored prompt",
        "untrained": "",
    }
