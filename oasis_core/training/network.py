"""The network that a run trains: built, checkpointed in memory, run with or without its latent."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checkpoint import Checkpoint, load_checkpoint, resolve_model, save_checkpoint
from ..config import PRESETS, ModelConfig
from ..model.denoiser import build_model
from ..model.layers import ALL
from ..model.routing import HeadRouting
from .config import FROM_INITIAL, YARDSTICK, TrainingConfig, TrainingError
from .yardstick import Yardstick, YardstickConfig, build_yardstick, save_yardstick

FROZEN_PREFIXES = ("encoder.", "wan_decoder.", "tiny_decoder.")


def architecture(config: TrainingConfig, initial: Checkpoint | None) -> ModelConfig | None:
    """What is trained: a preset, or the checkpoint's architecture; None for a yardstick.

    Of a latent model's decoders the chosen one stays, since the weights are written with it.

    Raises:
        TrainingError: The checkpoint is of another architecture than the preset, or one that is
            not trained here.
    """
    if config.model == YARDSTICK:
        return None
    if config.model == FROM_INITIAL:
        shape = initial.model.config
    else:
        shape = PRESETS[config.model]
        if initial is not None and initial.model.config != shape:
            raise TrainingError(
                f"initial_model must be an {config.model}, got another architecture named "
                f'{initial.model.config.name!r}; model = "initial" takes any'
            )
    if shape.chunk_latents or shape.visual_width:
        raise TrainingError(
            f"model must be one that is trained on whole clips, got {shape.name}, which is "
            "converted from public files; leave it as it is"
        )
    if shape.decoder == "wan":
        return dataclasses.replace(shape, tiny_width=0)
    if shape.decoder == "tiny" and shape.stem != "latent":
        return dataclasses.replace(shape, vae_width=0)
    return shape


def build_network(config: TrainingConfig, shape: ModelConfig | None) -> nn.Module:
    """The freshly initialised network of a configuration; a latent model's VAE is frozen.

    Args:
        config: The run.
        shape: From `architecture`.
    """
    if shape is None:
        size = YardstickConfig(num_convs=config.yardstick_convs, features=config.yardstick_features)
        return build_yardstick(size, seed=config.seed)
    network = build_model(shape, seed=config.seed)
    freeze_vae(network)
    return network


def freeze_vae(network: nn.Module) -> None:
    """Take the public VAE's parts out of the training.

    Source: OASIS, arXiv 2509.23980 (frozen decoder).
    """
    for name, parameter in network.named_parameters():
        if name.startswith(FROZEN_PREFIXES):
            parameter.requires_grad_(False)


def to_channels_last(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, its 2-D convolutions channels-last in memory."""
    network = network.to(device)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def checkpoint_blocks(network: nn.Module) -> None:
    """Let the transformer's blocks recompute their activations in the backward pass.

    Source: arXiv 1604.06174; memory falls to one block's, a training step takes a third longer.
    """
    for block in network.transformer.blocks if hasattr(network, "transformer") else ():
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


class Trainee(nn.Module):
    """Calls a network so that one forward pass gives all that losses need."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, video: Tensor, kept: slice = ALL) -> tuple[Tensor, Tensor | None]:
        """Residual `b 3 t h w` of the kept frames and a latent model's prediction `b c t' h' w'`.

        A latent model is given no others.
        """
        if isinstance(self.network, Yardstick):
            return self.network(video[:, :, kept]), None
        if not self.network.config.is_latent:
            return self.network(video, kept), None
        self.network.check(video)
        # The frozen decoder keeps its float32 weights; autocast alone lowers its arithmetic.
        latent = self.network.predict_latent(self.network.encode(video)).float()
        frames = torch.cat(list(self.network.decode(latent)), dim=2)
        return frames - video, latent


def load_latent_encoder(name: str, device: torch.device) -> nn.Module:
    """A model whose `encode` gives the latent of a clip, frozen.

    Raises:
        TrainingError: The checkpoint holds no VAE encoder.
    """
    model = load_checkpoint(resolve_model(name)).model
    if model.encoder is None:
        raise TrainingError(
            f"latent_encoder must be a checkpoint with a VAE encoder (stem latent), {name} has "
            f"stem {model.config.stem!r}"
        )
    return model.to(device)


def save_network(
    path: Path, network: nn.Module, routing: HeadRouting | None, info: dict[str, Any]
) -> None:
    """Write the weights of a run in the format of their kind."""
    if isinstance(network, Yardstick):
        save_yardstick(path, network, info)
    else:
        save_checkpoint(path, network, routing, info, dtype=torch.float16)
