"""Wan2.1 weights to an oasis checkpoint.

The transformer keeps Wan's function up to what an upscaler changes: text and timestep are constant
and folded, and the stem reads pixels (untrained then) or Wan's own latent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointError, save_tensors
from ..config import OASIS_1_3B, ModelConfig
from ..model.denoiser import OasisModel
from ..model.routing import HeadRouting
from ..model.tiny_decoder import TinyDecoder
from ..model.transformer import OasisTransformer
from ..model.wan_vae import WanDecoder, WanEncoder
from ..model.weight_precision import held_names
from .fold import context_rows, embed_context, fold_context, fold_timestep
from .keys import (
    original_transformer_name,
    original_vae_name,
    own_guided_name,
    own_tiny_name,
    own_transformer_name,
    own_vae_name,
)
from .public_files import describe_hashes
from .recognise import WANTED, refuse_other_models
from .weight_files import TensorSource, open_source

HEAD_SIZE = 128
LICENCE = "Apache-2.0"
TINY_LICENCE = "MIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class WanOptions:
    """How Wan2.1 becomes an upscaler."""

    stem: str = "unshuffle"
    """"unshuffle" (pixels, as the paper; its first layer is untrained) or "latent" (Wan's own)."""
    prediction: str | None = None
    """"sample" or "velocity"; None for velocity with a latent stem, else sample."""
    timestep: float = 1000.0
    """The one step t*."""
    folds_timestep: bool = True
    """Fold the timestep for inference; else keep its embedding, for training."""
    dtype: torch.dtype = torch.bfloat16
    """Of the stored matrices."""


def convert_wan(
    source: Path,
    destination: Path,
    *,
    vae: Path | None = None,
    tiny: Path | None = None,
    context: Path | None = None,
    options: WanOptions | None = None,
) -> dict[str, Any]:
    """Convert Wan2.1-T2V weights, and decoders for its latents, to one oasis checkpoint.

    Args:
        source: Transformer: original, ComfyUI or diffusers layout; a file, index or folder.
        destination: The checkpoint to write; ends in .safetensors.
        vae: Wan2.1 VAE, original or diffusers layout; needed by the latent stem.
        tiny: TAEHV's taew2_1.
        context: Text features of the empty prompt, one tensor `m c`; None for padding alone.
        options: How to convert.

    Returns:
        The facts that were written with it.

    Raises:
        CheckpointError: A file is another model, lacks tensors, has unknown ones, or is damaged.
        ValueError: The options do not fit together.
    """
    options = options or WanOptions()
    opened = open_source(source)
    names = transformer_names(opened)
    wan = wan_config(opened, names)
    check_tensors(opened, names, {k: v.shape for k, v in meta_state(OasisTransformer, wan).items()})
    features = None if context is None else _read_context(context)
    rows, log_count = context_rows(features, wan.text_channels)
    parts = {"vae": None if vae is None else open_source(vae)}
    parts["tiny"] = None if tiny is None else open_source(tiny)
    config = _own_config(wan, options, parts, len(rows))
    reader = TensorReader(opened, names, wan)
    tensors = _transformer_tensors(reader, config, options, rows, log_count)
    tensors |= {name: read() for name, read in part_tensors(config, parts).items()}
    with torch.device("meta"):
        model = OasisModel(config)
    held, expected = set(held_names(model)), model.state_dict()
    dtypes = {name: options.dtype if name in held else torch.float32 for name in expected}
    # In the model's own order; a tensor too few or too many is this module's mistake.
    assert set(tensors) == set(expected), set(tensors) ^ set(expected)
    tensors = {name: tensors[name].to(dtypes[name]).contiguous() for name in expected}
    info = _facts(opened, parts, options, context)
    routing = HeadRouting.all_global(config.num_layers, config.num_heads, config.window_size)
    save_tensors(destination, config, routing, info, tensors)
    return info


def meta_state(kind: type, *arguments: Any) -> dict[str, Tensor]:
    """The tensors of a module, without storage."""
    with torch.device("meta"):
        return kind(*arguments).state_dict()


def transformer_names(source: TensorSource, wanted: str = WANTED) -> dict[str, str]:
    """This project's name of every tensor in the file, by the file's; unknown ones are refused.

    Args:
        source: The file.
        wanted: What is asked for instead of another model.
    """
    refuse_other_models(source, wanted)
    names = {name: own_transformer_name(original_transformer_name(name)) for name in source.shapes}
    if unknown := sorted(name for name, own in names.items() if own is None):
        raise CheckpointError(
            f"{source.path} has tensors that Wan2.1 T2V does not have ({len(unknown)}), e.g. "
            f"{unknown[0]}"
        )
    return names


def wan_config(source: TensorSource, names: dict[str, str]) -> ModelConfig:
    """The unfolded configuration that a file's shapes describe."""
    shapes = {own: source.shapes[name] for name, own in names.items()}
    needed = (
        "patch_embedding.weight",
        "blocks.0.ffn.expand.weight",
        "text_embedding.expand.weight",
        "timestep_embedding.expand.weight",
    )
    if missing := [name for name in needed if name not in shapes or len(shapes[name]) < 2]:
        raise CheckpointError(f"{source.path} is no Wan2.1 transformer: it lacks {missing[0]}")
    width = shapes["patch_embedding.weight"][0]
    layers = {int(own.split(".")[1]) for own in shapes if own.startswith("blocks.")}
    if width % HEAD_SIZE or layers != set(range(len(layers))):
        raise CheckpointError(
            f"{source.path} is no Wan2.1 transformer: its width must be a multiple of {HEAD_SIZE} "
            f"and its blocks numbered from 0, got width {width} and blocks {sorted(layers)[:4]}"
        )
    return replace(
        OASIS_1_3B,
        stem="latent",
        width=width,
        num_layers=len(layers),
        num_heads=width // HEAD_SIZE,
        ffn_width=shapes["blocks.0.ffn.expand.weight"][0],
        num_context_keys=0,
        text_channels=shapes["text_embedding.expand.weight"][1],
        timestep_channels=shapes["timestep_embedding.expand.weight"][1],
    )


def check_tensors(
    source: TensorSource, names: dict[str, str], expected: dict[str, tuple[int, ...]]
) -> None:
    """Refuse missing, unknown, repeated and misshapen tensors."""
    found = {own: name for name, own in names.items()}
    if missing := sorted(set(expected) - set(found)):
        raise CheckpointError(
            f"{source.path} lacks tensors ({len(missing)}), e.g. the one called {missing[0]} here; "
            "is a shard missing?"
        )
    if unknown := sorted(found[own] for own in set(found) - set(expected)):
        raise CheckpointError(f"{source.path} has unknown tensors ({len(unknown)}): {unknown[0]}")
    if len(found) != len(names):
        raise CheckpointError(f"{source.path} has the same tensor under two names")
    for own, name in found.items():
        if not _is_same_tensor(source.shapes[name], tuple(expected[own])):
            raise CheckpointError(
                f"{source.path}: tensor {name} must have a shape like "
                f"{tuple(expected[own])}, got {source.shapes[name]}"
            )


def _is_same_tensor(shape: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """Whether a public shape is ours but for axes of length 1 and a kernel laid out flat."""
    shape, own = (tuple(n for n in dims if n != 1) for dims in (shape, own))
    return shape == own or (
        len(shape) > len(own) == 2 and shape[0] == own[0] and math.prod(shape) == math.prod(own)
    )


class TensorReader:
    """Reads a transformer's tensors by this project's names, in this project's shapes."""

    def __init__(self, source: TensorSource, names: dict[str, str], config: ModelConfig) -> None:
        self.config, self.path = config, source.path
        self._source = source
        self._found = {own: name for name, own in names.items()}
        self._shapes = {k: v.shape for k, v in meta_state(OasisTransformer, config).items()}

    def __call__(self, own: str) -> Tensor:
        """The tensor of a name of ours, in float32."""
        return self._source.tensor(self._found[own]).reshape(self._shapes[own])


def _own_config(
    wan: ModelConfig, options: WanOptions, parts: dict[str, TensorSource | None], num_keys: int
) -> ModelConfig:
    if options.stem == "latent" and parts["vae"] is None:
        raise ValueError("stem latent needs the VAE's encoder; give the VAE file with --vae")
    decoder = "wan" if parts["vae"] else "tiny" if parts["tiny"] else "none"
    prediction = "velocity" if options.stem == "latent" else "sample"
    return replace(
        wan,
        name="oasis-1.3b" if wan.width == OASIS_1_3B.width else f"oasis-wan-{wan.width}",
        stem=options.stem,
        decoder=decoder,
        prediction=options.prediction or prediction,
        timestep=float(options.timestep),
        text_channels=0,
        num_context_keys=num_keys,
        timestep_channels=0 if options.folds_timestep else wan.timestep_channels,
        vae_width=vae_width_of(parts["vae"]) if parts["vae"] else 0,
        tiny_width=tiny_width_of(parts["tiny"]) if parts["tiny"] else 0,
    )


def _transformer_tensors(
    read: TensorReader, config: ModelConfig, options: WanOptions, rows: Tensor, log_count: Tensor
) -> dict[str, Tensor]:
    """The transformer's tensors, folded, each read and cast on its own."""
    wan, tensors = read.config, {}
    block_rows, head_rows = fold_timestep(wan, read, options.timestep)
    context = embed_context(wan, read, rows)
    sign = -1.0 if config.prediction == "sample" else 1.0
    expected = meta_state(OasisTransformer, config)
    for name, like in expected.items():
        last = name.rsplit(".", 1)[-1]
        if last == "log_count":
            tensor = log_count.clone()
        elif last in ("context_key", "context_value"):
            continue
        elif name.startswith("patch_embedding.") and config.stem == "unshuffle":
            tensor = _untrained(name, like.shape)
        elif name == "head_modulation" and options.folds_timestep:
            tensor = read(name) + head_rows
        elif last == "modulation" and options.folds_timestep:
            tensor = read(name) + block_rows
        else:
            # Wan predicts noise - clean; its negative is the nearest start for the clean latent.
            tensor = read(name) * (sign if name.startswith("head.") else 1.0)
        is_large = tensor.ndim > 1 and tensor.numel() > 1 << 20
        tensors[f"transformer.{name}"] = tensor.to(options.dtype if is_large else torch.float32)
    for layer in range(config.num_layers):
        prefix = f"transformer.blocks.{layer}.cross_attention"
        key, value = fold_context(wan, read, layer, context)
        tensors |= {f"{prefix}.context_key": key, f"{prefix}.context_value": value}
    return tensors


def _untrained(name: str, shape: tuple[int, ...]) -> Tensor:
    """A start for the layer that Wan does not have: it reads pixels."""
    if len(shape) == 1:
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) * shape[1] ** -0.5


# Decoders


def vae_width_of(source: TensorSource) -> int:
    """Base width of a Wan2.1 VAE; other files are refused."""
    names = {original_vae_name(name): name for name in source.shapes}
    gains = names.get("decoder.head.0.gamma")
    if gains is None:
        raise CheckpointError(f"{source.path} is no Wan2.1 VAE: it lacks decoder.head.0.gamma")
    if "decoder.upsamples.0.upsamples.0.residual.2.weight" in names:
        raise CheckpointError(f"{source.path} is the Wan2.2 VAE; Wan2.1's is needed")
    return source.shapes[gains][0]


def tiny_width_of(source: TensorSource) -> int:
    """Base width of a TAEHV's decoder; other files are refused."""
    shape = source.shapes.get("decoder.22.weight")
    if shape is None or len(shape) != 4 or shape[0] != 3:
        raise CheckpointError(
            f"{source.path} is no TAEHV for Wan2.1 (taew2_1): decoder.22.weight must make 3 "
            f"channels, got {shape}"
        )
    return shape[1]


def part_tensors(
    config: ModelConfig, parts: dict[str, TensorSource | None]
) -> dict[str, Callable[[], Tensor]]:
    """What reads each tensor of the encoder and the decoders that the configuration has."""
    tensors: dict[str, Callable[[], Tensor]] = {}
    if parts["vae"] is not None:
        source = parts["vae"]
        names = {name: own_vae_name(original_vae_name(name)) or name for name in source.shapes}
        states = {
            "encoder": meta_state(WanEncoder, config.vae_width),
            "decoder": meta_state(WanDecoder, config.vae_width),
        }
        shapes = {f"{k}.{n}": x.shape for k, m in states.items() for n, x in m.items()}
        check_tensors(source, names, shapes)
        for name, own in names.items():
            part, _, rest = own.partition(".")
            if part == "decoder" or config.stem == "latent":
                prefix = "wan_decoder" if part == "decoder" else "encoder"
                read = functools.partial(_shaped, source, name, shapes[own])
                tensors[f"{prefix}.{rest}"] = read
    if parts["tiny"] is not None:
        source = parts["tiny"]
        state = meta_state(TinyDecoder, config.tiny_width, config.tiny_guide)
        shapes = {name: x.shape for name, x in state.items()}
        own_name = own_guided_name if config.tiny_guide else own_tiny_name
        names = {
            name: own_name(name) or name
            for name in source.shapes
            if not name.startswith("encoder.")
        }
        kept = {name: source.shapes[name] for name in names}
        for name, own in names.items():
            # Made for more frames per latent: the last ones are those that count.
            if own.endswith("grow.weight") and own in shapes and kept[name][0] > shapes[own][0]:
                kept[name] = tuple(shapes[own])
        check_tensors(replace(source, shapes=kept), names, shapes)
        for name, own in names.items():
            read = functools.partial(_last_rows, source, name, shapes[own][0])
            tensors[f"tiny_decoder.{own}"] = read
    return tensors


def _shaped(source: TensorSource, name: str, shape: tuple[int, ...]) -> Tensor:
    return source.tensor(name).reshape(shape)


def _last_rows(source: TensorSource, name: str, num_rows: int) -> Tensor:
    return source.tensor(name)[-num_rows:]


def _read_context(path: Path) -> Tensor:
    source = open_source(path)
    if len(source.shapes) != 1:
        raise CheckpointError(
            f"{path} must hold one tensor, the text features of the empty prompt, got "
            f"{len(source.shapes)}"
        )
    return source.tensor(next(iter(source.shapes)))


def _facts(
    source: TensorSource,
    parts: dict[str, TensorSource | None],
    options: WanOptions,
    context: Path | None,
) -> dict[str, Any]:
    """What a reader of the checkpoint should know."""
    opened = {"transformer": source, **{k: v for k, v in parts.items() if v is not None}}
    untrained = "transformer.patch_embedding" if options.stem == "unshuffle" else ""
    licence = LICENCE + (f" and {TINY_LICENCE} (tiny decoder)" if parts["tiny"] else "")
    return {
        "licence": licence,
        "source": "Wan2.1-T2V, converted; not trained for upscaling",
        "files": {part: describe_hashes(value.hashes()) for part, value in opened.items()},
        "context": "empty prompt" if context else "padding alone",
        "untrained": untrained,
    }
