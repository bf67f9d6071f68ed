"""Writing a converted model: what reads each of its tensors, one after the other into one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import FORMAT
from ..config import ModelConfig
from ..model.denoiser import OasisModel
from ..model.routing import HeadRouting
from ..model.weight_precision import held_names
from .stream_file import Layout, OnBytes, check_disk, write_streamed

Reads = dict[str, Callable[[], Tensor]]
"""What reads each tensor, by its name in the model."""


def write_model(
    destination: Path,
    config: ModelConfig,
    reads: Reads,
    info: dict[str, Any],
    dtype: torch.dtype,
    on_progress: OnBytes | None = None,
) -> None:
    """Write a model whose heads are all global; the file appears complete or not at all.

    Args:
        destination: The checkpoint to write.
        config: The model.
        reads: Its tensors, all of them and no others.
        info: JSON values for the reader.
        dtype: Of the matrices that are held in the precision of the arithmetic.
        on_progress: Called with (bytes written, bytes in all); may raise to stop.

    Raises:
        ValueError: The disk has no room for it.
    """
    layout = model_layout(config, dtype)
    # A tensor too few or too many is the converter's mistake.
    assert set(reads) == set(layout), set(reads) ^ set(layout)
    check_disk(destination, layout)
    routing = HeadRouting.all_global(config.num_layers, config.num_heads, config.window_size)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(config.to_json()),
        "routing": json.dumps(routing.to_json()),
        "info": json.dumps(info),
    }
    write_streamed(destination, layout, lambda name: reads[name](), metadata, on_progress)


def model_layout(config: ModelConfig, dtype: torch.dtype) -> Layout:
    """Precision and shape of each tensor of a model as it is stored."""
    with torch.device("meta"):
        model = OasisModel(config)
    held = set(held_names(model))
    return {
        name: (dtype if name in held else torch.float32, tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
    }
