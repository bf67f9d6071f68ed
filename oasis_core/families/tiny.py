"""oasis-tiny and its like: a routed transformer among convolutions, pixels to pixels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from . import routed
from .restorer import Traits
from .routed import RoutedRestorer

if TYPE_CHECKING:
    from ..config import ModelConfig
    from .files import Header, LoadOptions

FAMILY = "tiny"


def traits_of(config: ModelConfig) -> Traits:
    """The traits of a model that nobody needs to have loaded."""
    return Traits(name=config.name, family=FAMILY, stride=config.token_stride)


def recognises(header: Header) -> bool:
    """Whether a file holds such a model, told from its head."""
    config = header.oasis_config()
    return config is not None and not config.is_latent


def describe(path: Path, header: Header) -> dict[str, Any]:
    """Facts about a file for people, as JSON values, without reading its weights."""
    traits = traits_of(header.oasis_config())
    return {**routed.describe(path), "traits": asdict(traits)}


def wraps(network: nn.Module) -> bool:
    """Whether a network in memory is such a model."""
    from ..model.denoiser import OasisModel

    return isinstance(network, OasisModel) and not network.config.is_latent


def wrap(network: nn.Module) -> RoutedRestorer:
    """A restorer of a network in memory."""
    return RoutedRestorer(network, traits_of(network.config))


def load(path: Path, header: Header, options: LoadOptions) -> RoutedRestorer:
    """Read a model.

    Args:
        path: The file.
        header: Its head.
        options: What the user chose.

    Raises:
        CheckpointError: The file is damaged, incomplete, holds NaN or infinity, or has no vivid
            end and a share of it is wanted.
        ValueError: An option is not for this family.
    """
    from ..checkpoint import load_checkpoint

    del header
    checkpoint = load_checkpoint(path, options.decoder, options.detail)
    name = checkpoint.model.config.name
    if options.decoder_tile is not None:
        checkpoint.model.tile_decoder(options.decoder_tile)  # refuses, there is no such decoder
    if options.int8:
        raise ValueError(f"8-bit weights are for large models, got {name}; leave int8 out")
    identity = checkpoint.identity + (f"-{options.decoder}" if options.decoder else "")
    facts: dict[str, Any] = {**checkpoint.info, "detail": checkpoint.detail}
    restorer = RoutedRestorer(checkpoint.model, traits_of(checkpoint.model.config), identity, facts)
    return restorer if options.transformer else restorer.without_transformer()
