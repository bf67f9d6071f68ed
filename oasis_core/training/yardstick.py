"""A fair yardstick: a plain single-frame convolutional net, trained by the same trainer.

It has the shape of SRVGGNetCompact (3x3 convolutions with PReLU, then depth-to-space), works at a
quarter of the target size and sees no neighbouring frame. Like OASIS it reads the resized clip and
predicts what to add, so that data, losses and measuring are the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..checkpoint import CheckpointError, write_safetensors
from .config import YARDSTICK

STRIDE = 4
FORMAT = "oasis-yardstick-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class YardstickConfig:
    """Everything that describes a yardstick; has what the upscaler asks of a configuration."""

    num_convs: int
    """Inner convolutions."""
    features: int
    """Channels."""
    name: str = YARDSTICK
    """Shown to the user."""

    @property
    def token_stride(self) -> tuple[int, int, int]:
        """Frames and pixels whose multiples the clip must have."""
        return (1, STRIDE, STRIDE)

    @property
    def is_latent(self) -> bool:
        """Whether it predicts VAE latents: no."""
        return False


class Yardstick(nn.Module):
    """`model(video)` is what to add to a resized clip, both `b 3 t h w`, frame by frame."""

    def __init__(self, config: YardstickConfig) -> None:
        super().__init__()
        self.config = config
        size = config.features
        self.first = nn.Conv2d(3 * STRIDE**2, size, 3, padding=1)
        self.activations = nn.ModuleList(nn.PReLU(size) for _ in range(config.num_convs + 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(size, size, 3, padding=1) for _ in range(config.num_convs)
        )
        self.last = nn.Conv2d(size, 3 * STRIDE**2, 3, padding=1)

    def forward(self, video: Tensor) -> Tensor:
        """Predict the residual of `b 3 t h w` in [0, 1]."""
        frames = rearrange(video - 0.5, "b c t h w -> (b t) c h w")
        x = F.pixel_unshuffle(frames, STRIDE).contiguous(memory_format=torch.channels_last)
        x = self.activations[0](self.first(x))
        for conv, activation in zip(self.convs, self.activations[1:], strict=True):
            x = activation(conv(x))
        pixels = F.pixel_shuffle(self.last(x), STRIDE)
        return rearrange(pixels, "(b t) c h w -> b c t h w", b=len(video))


def build_yardstick(config: YardstickConfig, seed: int = 0) -> Yardstick:
    """A randomly initialised yardstick, the same for the same seed; its residual is zero."""
    network = Yardstick(config)
    generator = torch.Generator().manual_seed(seed)
    for conv in (network.first, *network.convs):
        nn.init.kaiming_normal_(conv.weight, a=0.25, generator=generator)
        nn.init.zeros_(conv.bias)
    nn.init.zeros_(network.last.weight)
    nn.init.zeros_(network.last.bias)
    return network


def save_yardstick(path: Path, network: Yardstick, info: dict[str, Any]) -> None:
    """Write a yardstick; the file appears complete or not at all."""
    tensors = {name: x.detach().contiguous() for name, x in network.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(network.config)),
        "info": json.dumps(info),
    }
    write_safetensors(path, tensors, metadata)


def is_yardstick(path: Path) -> bool:
    """Whether a file says that it holds a yardstick."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load_yardstick(path: Path) -> Yardstick:
    """Read what `save_yardstick` wrote.

    Raises:
        CheckpointError: The file is damaged or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = YardstickConfig(**json.loads(file.metadata()["config"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = Yardstick(config)
        network.load_state_dict(tensors, strict=True)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no readable yardstick: {error}") from error
    return network.eval().requires_grad_(False)
