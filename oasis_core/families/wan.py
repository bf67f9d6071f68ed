"""oasis-1.3b, InfVSR, FlashVSR: a large transformer that predicts Wan2.1 latents, and decoders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import routed
from .restorer import START, Place, Traits, probe_clip
from .routed import RoutedRestorer

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..model.denoiser import OasisModel
    from .files import Header, LoadOptions

FAMILY = "wan"
LOOK_AHEAD = 3
"""Frames after its own of which TAEHV makes a latent frame, too."""
PROJECTOR_LOOK_AHEAD = 4
"""The same of a projector's tokens."""
OVERLAP_PX = 128
"""The decoder sees 138 px around a pixel."""


def traits_of(config: ModelConfig) -> Traits:
    """The traits of a model that nobody needs to have."""
    step, chunk = config.stem_stride[0], config.chunk_latents
    first = config.first_chunk_latents or chunk
    look_ahead = LOOK_AHEAD if config.encoder == "tiny" else 0
    return Traits(
        name=config.name,
        family=FAMILY,
        stride=config.clip_stride,
        overlap_px=OVERLAP_PX,
        # A clip's first latent frame holds one frame.
        lead_frames=first * step - step + 1 if chunk else 0,
        segment_multiple=chunk * step or 1,
        wants_opening=config.visual_width > 0,
        halo_frames=PROJECTOR_LOOK_AHEAD if config.projector_width else look_ahead,
        numbers_frames=True,
        arithmetic="own",
    )


class WanRestorer(RoutedRestorer):
    """A latent model: its matrices are held in the precision of the arithmetic.

    Args:
        network: A loaded model.
        identity: Hash of its file and what options add to it; None computes one.
        facts: What its file says of it.
        int8: Hold the matrices of its blocks in 8 bits.
        compiled: Compile its blocks.
    """

    def __init__(
        self,
        network: OasisModel,
        identity: str | None = None,
        facts: dict[str, Any] | None = None,
        *,
        int8: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__(network, traits_of(network.config), identity, facts)
        self._has_int8, self._is_compiled = int8, compiled

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Cast, bring to the device, lay out, round and compile, as far as that is to be done.

        Raises:
            ValueError: 8 bits change the result by more than they may.
        """
        from ..model.compiled import compile_model, is_compiled
        from ..model.int8 import has_int8, hold_int8
        from ..model.weight_precision import hold_weights, to_channels_last

        # Cast first: a large model in float32 may not fit where it does in half of it.
        hold_weights(self.network, dtype)
        super().prepare(device, dtype)
        if device.type == "cuda":
            to_channels_last(self.network)
        if self._has_int8 and not has_int8(self.network):
            hold_int8(self.network, probe_clip(self.traits, device).to(dtype))
        if self._is_compiled and not is_compiled(self.network):
            compile_model(self.network)

    def restore(self, clip: Tensor, place: Place) -> Tensor:
        """The residual of a clip, `1 3 t h w`."""
        at = (place.first_frame, place.top, place.left)
        return self.network(clip, at=at, opening=place.opening)

    def memory_bytes(self, num_frames: int, height: int, width: int, sample_bytes: int) -> int:
        """Working memory of one call in bytes, from a dry run; weights not included."""
        from .wan_memory import MemoryModel

        memory = MemoryModel(self.network.config, sample_bytes, self.network.decoder_tile)
        return memory(num_frames, height, width)


class WanLatentRestorer(WanRestorer):
    """One whose latent is that of the Wan2.1 VAE, so that others can go on with it."""

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.network.config.out_channels

    @property
    def latent_stride(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of one cell of the latent."""
        return self.network.config.stem_stride

    def predict_latent(self, clip: Tensor, place: Place = START) -> Tensor:
        """The clean latent of a clip, `1 c t' h' w'`, normalised.

        Args:
            clip: `1 3 t h w` in [0, 1], in whole tokens; its dtype is that of the arithmetic.
            place: Where it lies.
        """
        network, whole = self.network, self.network.in_blocks(clip)
        at = (place.first_frame, place.top, place.left)
        latent = network.predict_latent(
            network.encode(whole, at), network.context(whole), network.guide(whole)
        )
        step, rows, columns = self.latent_stride
        num_latents = 1 + (clip.shape[2] - 1) // step
        return latent[:, :, :num_latents, : clip.shape[3] // rows, : clip.shape[4] // columns]

    def to_vae(self, latent: Tensor) -> Tensor:
        """A float32 latent of `predict_latent` as the Wan2.1 VAE stores it, not normalised."""
        from ..model.wan_vae import LATENT_MEAN, LATENT_STD

        mean, std = (latent.new_tensor(v).view(-1, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
        return latent * std + mean


def recognises(header: Header) -> bool:
    """Whether a file holds such a model, told from its head."""
    config = header.oasis_config()
    return config is not None and config.is_latent


def describe(path: Path, header: Header) -> dict[str, Any]:
    """Facts about a file for people, as JSON values, without reading its weights."""
    from ..checkpoint import read_header

    config, _, info = read_header(path)
    del header
    made_of = {name: info[name] for name in ("files", "context", "untrained") if info.get(name)}
    return {**routed.describe(path), **made_of, **describe_config(config)}


def describe_config(config: ModelConfig) -> dict[str, Any]:
    """What a model needs of which there is only a configuration."""
    from .wan_memory import memory_needs

    return {
        "traits": asdict(traits_of(config)),
        "memory in bfloat16, 33 frames": memory_needs(config),
    }


def wraps(network: nn.Module) -> bool:
    """Whether a network in memory is such a model."""
    from ..model.denoiser import OasisModel

    return isinstance(network, OasisModel) and network.config.is_latent


def wrap(network: nn.Module, **options: Any) -> WanRestorer:
    """A restorer of a network in memory.

    Args:
        network: The network.
        **options: Of `WanRestorer`.
    """
    from ..model.wan_vae import LATENT_CHANNELS

    has_latent = network.config.out_channels == LATENT_CHANNELS
    return (WanLatentRestorer if has_latent else WanRestorer)(network, **options)


def load(path: Path, header: Header, options: LoadOptions) -> WanRestorer:
    """Read a model.

    Args:
        path: The file.
        header: Its head.
        options: What the user chose.

    Raises:
        CheckpointError: The file is damaged, incomplete, lacks the decoder, or holds NaN or
            infinity.
        ValueError: The decoder's tile is out of range, the transformer is to be left out, or a
            share of a vivid end is wanted.
    """
    from ..checkpoint import load_checkpoint

    del header
    options.refuse_detail(str(path))
    checkpoint = load_checkpoint(path, options.decoder)
    # Another decoder gives another result, so an unfinished run must not go on with it.
    identity = checkpoint.sha256 + (f"-{options.decoder}" if options.decoder else "")
    identity += "-int8" * options.int8
    if options.decoder_tile is not None:
        checkpoint.model.tile_decoder(options.decoder_tile)
        identity += f"-tile{options.decoder_tile}"
    restorer = wrap(
        checkpoint.model,
        identity=identity,
        facts=checkpoint.info,
        int8=options.int8,
        compiled=options.compiled,
    )
    return restorer if options.transformer else restorer.without_transformer()
