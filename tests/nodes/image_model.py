"""A model for ComfyUI's own loader whose result is known: it repeats each pixel."""

from pathlib import Path

import torch
from safetensors.torch import save_file

NAME = "repeats_pixels.safetensors"
SCALE = 2
FEATURES = 4


def write_upscale_model(folder: Path) -> None:
    """A "RealESRGAN Compact" of one hidden layer, whose convolutions add nothing to its input."""
    shapes = {"body.0": (FEATURES, 3), "body.2": (FEATURES, FEATURES)}
    shapes["body.4"] = (3 * SCALE**2, FEATURES)
    state = {f"body.{index}.weight": torch.full((FEATURES,), 0.2) for index in (1, 3)}
    for name, (written, read) in shapes.items():
        state[f"{name}.weight"] = torch.zeros(written, read, 3, 3)
        state[f"{name}.bias"] = torch.zeros(written)
    save_file(state, folder / NAME)
