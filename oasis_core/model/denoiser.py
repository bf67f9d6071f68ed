"""One step: a resized low-quality clip in, what the model adds to it out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import TINY_BOTH, ModelConfig
from ..geometry import is_valid_num_frames, next_valid_num_frames, padding_indices, round_up
from .chunks import whole_chunks
from .decoder import ConvDecoder
from .layers import ALL
from .noise import ORIGIN, Place3, keyed_noise
from .projector import Projector, latent_groups, stream_project
from .tiny_decoder import TinyDecoder
from .tiny_encoder import TinyEncoder, stream_encode_tiny
from .transformer import OasisTransformer
from .visual import VisualEncoder, prepare_picture
from .wan_vae import (
    CELL_PX,
    WanDecoder,
    WanEncoder,
    decode_in_tiles,
    stream_decode,
    stream_encode,
)
from .weight_precision import raised

ZERO_CONVS = ("decoder.conv", "conv_neighbors")
"""Convolutions that start at zero: the output, and what the frames around a frame contribute."""
LEAST_DECODER_TILE_PX = 64
"""Smaller ones are nearly all border."""
PUBLIC_PARTS = (
    *("encoder.", "wan_decoder.", "tiny_decoder.", "tiny_encoder.", "visual.", "projector."),
)
"""Parts that come from public files as they are."""
RESIDUAL_SCALE = 0.3
"""Residual branches start this much smaller than their input."""


class OasisModel(nn.Module):
    """The transformer and its decoder: restored clip = input + `model(input)`.

    The input is the clip resized to the target size, so one set of weights serves every scale.
    What noise a model reads belongs to the place of its clip; the same input at the same place
    gives the same output.

    Source: OASIS, arXiv 2509.23980.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = OasisTransformer(config)
        self.decoder = ConvDecoder(config) if config.decoder == "conv" else None
        self.encoder = self.tiny_encoder = self.visual = self.projector = None
        if config.stem == "latent" and config.vae_width:
            self.encoder = WanEncoder(config.vae_width)
        if config.stem == "latent" and config.tiny_encoder_width:
            self.tiny_encoder = TinyEncoder(config.tiny_encoder_width)
        if config.visual_width:
            self.visual = VisualEncoder(config.visual_width, config.text_channels)
        if config.projector_width:
            self.projector = Projector(config.projector_width, config.width)
        self.wan_decoder = WanDecoder(config.vae_width) if config.vae_width else None
        self.tiny_decoder = None
        if config.tiny_width:
            self.tiny_decoder = TinyDecoder(config.tiny_width, config.tiny_guide)
        self.skips_transformer = False
        """Leave the transformer out, as its zero-initialised head does: for training the
        convolutions first, at half the cost, and for `leave_out_transformer`."""

        self.decoder_tile: int | None = None
        """Side in pixels of the tiles that Wan's decoder works in; None: all at once."""

    def forward(
        self,
        video: Tensor,
        kept: slice = ALL,
        at: Place3 = ORIGIN,
        opening: Tensor | None = None,
    ) -> Tensor:
        """Predict the residual of a clip.

        Args:
            video: `b 3 t h w` in [0, 1], already at the target size; h and w multiples of the
                token stride. A model with a latent takes 4k+1 frames, and its arithmetic is in
                the dtype of the video (but for autocast while training).
            kept: The frames whose residual is wanted; the others are looked at only. Not for a
                model with a latent, whose frames are not made one by one.
            at: Frame, row and column of the clip in its job, where a model draws noise.
            opening: First frame of the shot, `b 3 1 h w` in [0, 1], for a model that is guided by
                it; None: that of the clip.

        Returns:
            `b 3 t' h w` for the kept frames: restored minus input, not clamped.

        Raises:
            ValueError: The size is no multiple of the token stride, the number of frames is not
                4k+1, or this model has no decoder.
        """
        self.check(video)
        if self.config.is_latent:
            with inference_autocast_off(video.device):
                return self._restore(video, at, opening)
        if self.skips_transformer:
            return self.decoder(self.transformer.stem(video, kept), 0.0, len(video))
        outputs = self.transformer(video)
        if kept != ALL:
            clips = (rearrange(x, "(b t) c h w -> b t c h w", b=len(video)) for x in outputs)
            outputs = (x[:, kept].flatten(0, 1) for x in clips)
        return self.decoder(*outputs, len(video))

    def check(self, video: Tensor) -> None:
        """Refuse a clip that does not fit the token stride; `forward` says what fits."""
        stride_t, stride_h, stride_w = self.config.token_stride
        if video.shape[3] % stride_h or video.shape[4] % stride_w:
            raise ValueError(
                f"height and width must be multiples of {stride_h} and {stride_w}, got "
                f"{video.shape[3]} and {video.shape[4]}"
            )
        if self.config.is_latent and not is_valid_num_frames(video.shape[2], stride_t):
            raise ValueError(
                f"num_frames must be {stride_t}k+1 (1, {stride_t + 1}, ...), got {video.shape[2]}; "
                f"pad to {next_valid_num_frames(video.shape[2], stride_t)}"
            )

    def _restore(self, video: Tensor, at: Place3, opening: Tensor | None) -> Tensor:
        whole = self.in_blocks(video)
        first = whole if opening is None else opening
        latent = self.predict_latent(self.encode(whole, at), self.context(first), self.guide(whole))
        num_latents = 1 + (video.shape[2] - 1) // self.config.stem_stride[0]
        residuals, start = [], 0
        for frames in self.decode(latent[:, :, :num_latents], whole):
            stop = start + frames.shape[2]
            inside = frames[..., : video.shape[3], : video.shape[4]]
            residuals.append(inside - video[:, :, start:stop])
            start = stop
        return torch.cat(residuals, dim=2)

    def in_blocks(self, video: Tensor) -> Tensor:
        """A clip `b 3 t h w` filled up to whole blocks of tokens by reflection."""
        for dim, stride in enumerate(self.config.clip_stride[1:], start=3):
            length = video.shape[dim]
            if length % stride:
                more = torch.tensor(padding_indices(length, round_up(length, stride)))
                edge = video.index_select(dim, more.to(video.device))
                video = torch.cat([video, edge], dim=dim)
        return video

    def encode(self, video: Tensor, at: Place3 = ORIGIN) -> Tensor:
        """What the transformer of a latent model reads: the video itself, its latent, or noise.

        Args:
            video: `b 3 t h w` in [0, 1].
            at: Frame, row and column of the clip in its job, where the model draws noise.

        Returns:
            The same, or `b c t' h' w'` with the stem "latent" or "noise", then in whole chunks.
        """
        if self.config.stem == "noise":
            return self._noise(video, at)
        if self.config.stem != "latent":
            return video
        if self.config.encoder == "tiny":
            with raised(self.tiny_encoder, video.dtype):
                return stream_encode_tiny(self.tiny_encoder, video)
        with raised(self.encoder, video.dtype):
            return stream_encode(self.encoder, video)

    def _noise(self, video: Tensor, at: Place3) -> Tensor:
        """Noise for a clip, the same for each of a batch.

        A cell is told by the last frame, the row and the column that it stands for.
        """
        time, rows, columns = self.config.stem_stride
        cells = (self._num_latents(video), video.shape[3] // rows, video.shape[4] // columns)
        channels = self.config.out_channels
        if video.is_meta:
            return video.new_empty(len(video), channels, *cells)
        place = (at[0], at[1] // rows, at[2] // columns)
        noise = keyed_noise(channels, cells, at=place, time_step=time)
        return noise.to(video.device, video.dtype).expand(len(video), -1, -1, -1, -1)

    def _num_latents(self, video: Tensor) -> int:
        num_latents = 1 + (video.shape[2] - 1) // self.config.stem_stride[0]
        return whole_chunks(self.config, num_latents)

    def context(self, video: Tensor) -> Tensor | None:
        """What the transformer of some models is told about a clip: its first frame's features.

        Args:
            video: `b 3 t h w` in [0, 1].

        Returns:
            `b m c`; None for a model that is told nothing.
        """
        if self.visual is None:
            return None
        with raised(self.visual, video.dtype):
            return self.visual(prepare_picture(video[:, :, 0]))

    def guide(self, video: Tensor) -> Tensor | None:
        """What is added to the tokens of some models: those of the clip itself.

        Args:
            video: `b 3 t h w` in [0, 1], in whole blocks.

        Returns:
            `b t' h' w' d` in whole chunks; None for a model without a projector.
        """
        if self.projector is None:
            return None
        with raised(self.projector, video.dtype):
            return stream_project(self.projector, video, self._num_latents(video))

    def predict_latent(
        self, source: Tensor, context: Tensor | None = None, guide: Tensor | None = None
    ) -> Tensor:
        """The clean latent, by a model that has one.

        Args:
            source: From `encode`.
            context: From `context`.
            guide: From `guide`.

        Returns:
            `b c t' h' w'`, normalised.
        """
        _, latent = self.transformer(source, context=context, guide=guide)
        latent = rearrange(latent, "(b t) c h w -> b c t h w", b=len(source))
        if self.config.prediction == "velocity":
            # Flow matching: x_s = (1 - s) clean + s noise and v = noise - clean.
            latent = source - self.config.noise_share * latent
        return latent

    def decode(self, latent: Tensor, video: Tensor | None = None) -> Iterator[Tensor]:
        """Pixels of a latent, streamed latent frame by latent frame, or all if in tiles.

        Args:
            latent: `b c t' h' w'`, normalised.
            video: The clip `b 3 t h w` in [0, 1], for a decoder that looks at it.

        Yields:
            Frames `b 3 t h w` in [0, 1]: 1, then 4 for each further latent frame.

        Raises:
            ValueError: The model has no decoder.
        """
        decoder = self._latent_decoders().get(self.config.decoder)
        if decoder is None:
            raise ValueError(
                f"{self.config.name} predicts Wan2.1 latents and this file has no decoder for "
                "them; convert it again with --vae or --tiny"
            )
        with raised(decoder, latent.dtype):
            if self.decoder_tile and max(latent.shape[3:]) * CELL_PX > self.decoder_tile:
                yield decode_in_tiles(decoder, latent, self.decoder_tile // CELL_PX)
            else:
                guides = None
                if self.config.decoder == "tiny" and self.config.tiny_guide:
                    guides = latent_groups(video, latent.shape[2])
                yield from stream_decode(decoder, latent, guides)

    def choose_decoder(self, name: str) -> None:
        """Use one of the latent decoders and give up the memory of all that then is unused.

        Args:
            name: "wan", "tiny", or "tiny-both" for TAEHV's encoder as well.

        Raises:
            ValueError: The model does not have it.
        """
        present = [key for key, decoder in self._latent_decoders().items() if decoder is not None]
        if self.tiny_encoder is not None and self.tiny_decoder is not None:
            present.append(TINY_BOTH)
        if name not in present:
            raise ValueError(
                f"decoder must be one that {self.config.name} has "
                f"({', '.join(present) or 'none'}), got {name!r}"
            )
        self.config = self.config.with_decoder(name)
        self.wan_decoder = self.wan_decoder if self.config.decoder == "wan" else None
        self.tiny_decoder = self.tiny_decoder if self.config.decoder == "tiny" else None
        self.encoder = self.encoder if self.config.encoder == "wan" else None
        self.tiny_encoder = self.tiny_encoder if self.config.encoder == "tiny" else None

    def leave_out_transformer(self) -> None:
        """Restore with the convolutions alone, which is faster.

        Raises:
            ValueError: The model has no convolutions that could do without.
        """
        self.check_works_without_transformer()
        self.skips_transformer = True

    def check_works_without_transformer(self) -> None:
        """Refuse a model that has no convolutions of its own; `leave_out_transformer` says so."""
        if self.config.is_latent:
            raise ValueError(
                f"{self.config.name} is all transformer, so it cannot be left out; only models "
                "like oasis-tiny have convolutions of their own"
            )

    def tile_decoder(self, tile_px: int) -> None:
        """Let Wan's decoder work in spatial tiles, for the memory of one.

        Their borders overlap by all that the decoder looks at, so the pixels stay the same but
        for rounding.

        Args:
            tile_px: Side of a tile without its border.

        Raises:
            ValueError: The side is out of range, or the decoder in use is another one.
        """
        if self.config.decoder != "wan":
            raise ValueError(
                f"decoder tiles are for Wan's decoder, {self.config.name} uses "
                f"{self.config.decoder!r}; leave them out"
            )
        if tile_px < LEAST_DECODER_TILE_PX or tile_px % CELL_PX:
            raise ValueError(
                f"decoder tiles must be a multiple of {CELL_PX} px and at least "
                f"{LEAST_DECODER_TILE_PX}, got {tile_px}"
            )
        self.decoder_tile = tile_px

    def _latent_decoders(self) -> dict[str, nn.Module | None]:
        return {"wan": self.wan_decoder, "tiny": self.tiny_decoder}


def inference_autocast_off(device: torch.device) -> contextlib.AbstractContextManager:
    """Switches autocast off, except while training.

    A latent model decides on every rounding itself, as Wan does.
    """
    if torch.is_grad_enabled():
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def build_model(config: ModelConfig, seed: int = 0) -> OasisModel:
    """A randomly initialised model, the same for the same seed; its residual is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OasisModel(config)
    # torch's default leaves convolution features so small that detail drowns in the mean
    # brightness; with He initialisation the first hundred steps gain three times as much.
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        is_public = name.startswith(PUBLIC_PARTS)
        if isinstance(module, nn.Conv2d) and not name.endswith(ZERO_CONVS) and not is_public:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                module.weight.data.mul_(RESIDUAL_SCALE)
    # Open gates: the head starts at zero, so the blocks are harmless, and closed gates as well
    # were measured to stay closed for thousands of steps.
    for block in model.transformer.blocks:
        nn.init.ones_(block.modulation.data[2::3])
    return model
