"""The Wan2.1 VAE: latents to pixels and back, at once or streamed, with one result.

Source: Wan2.1 (Apache-2.0), `wan/modules/vae.py`: structure and constants, not code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from .wan_vae_layers import (
    Cache,
    CacheTape,
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    Upsample,
    VaeResidualBlock,
)

LATENT_CHANNELS = 16
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
WIDTHS = (1, 2, 4, 4)
"""Channels of the four levels, full size first, in base widths."""
NUM_ENCODER_BLOCKS = 2
NUM_DECODER_BLOCKS = 3
FRAMES_PER_PIECE = 2
"""Frames that the full-size levels take at once; fewer need less memory."""
CELL_PX = 8
"""Side of a latent cell in pixels."""
EXACT_HALO = 13
"""Latent cells around a tile beyond which nothing reaches into it: 6 and 1 at the smallest level's
size, and 7, 7 and 7 (the last with the head's) of the levels of twice the size each."""


def _latent_statistics(latent: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each latent channel, shaped for `b c t h w`."""
    values = torch.tensor((LATENT_MEAN, LATENT_STD), device=latent.device, dtype=torch.float32)
    mean, deviation = rearrange(values, "s c -> s c 1 1 1")
    return mean, deviation


def _middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        (
            VaeResidualBlock(channels, channels),
            FrameAttention(channels),
            VaeResidualBlock(channels, channels),
        )
    )


class VaeLevel(nn.Module):
    """Residual blocks at one size, and the way to the next."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            VaeResidualBlock(out_channels if i else in_channels, out_channels)
            for i in range(num_blocks)
        )
        self.resample = resample

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Transform `b c t h w`."""
        for block in self.blocks:
            x = block(x, tape)
        return x if self.resample is None else self.resample(x, tape)


class DecoderCache(NamedTuple):
    """What a decoder keeps of the frames so far, for the frames that follow."""

    entry: Cache
    """Of the layers at latent size, up to the attention."""
    growing: Cache
    """Of the levels that multiply frames."""
    full: Cache
    """Of the levels that follow, at full frame rate."""


class WanDecoder(nn.Module):
    """Latents to pixels; k+1 latent frames become 4k+1 frames.

    Args:
        width: Base width, 96 as published.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.post_quant = nn.Conv3d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        sizes = [width * factor for factor in (WIDTHS[-1], *reversed(WIDTHS))]
        self.conv_in = CausalConv3d(LATENT_CHANNELS, sizes[0])
        self.middle = _middle(sizes[0])
        levels = []
        for index, out_channels in enumerate(sizes[1:]):
            in_channels = sizes[index] // 2 if index else sizes[0]
            way_up = Upsample(out_channels, in_time=index < 2) if index < 3 else None
            levels.append(VaeLevel(in_channels, out_channels, NUM_DECODER_BLOCKS, way_up))
        self.levels = nn.ModuleList(levels)
        self.norm_out = ChannelNorm(sizes[-1])
        self.conv_out = CausalConv3d(sizes[-1], 3)

    def forward(
        self, latent: Tensor, cache: DecoderCache | None = None, *, consume: bool = False
    ) -> tuple[Tensor, DecoderCache]:
        """Decode latent frames that follow those of `cache`.

        Args:
            latent: `b 16 t h w`, normalised, as the transformer predicts it.
            cache: Of the latent frames before; None at the beginning of a clip.
            consume: Empty `cache` on the way, which then cannot be used again: needs less memory.

        Returns:
            `b 3 t' 8h 8w` in [0, 1], with 4t frames, or 4t - 3 at the beginning; and the cache for
            what follows.
        """
        entry = None if cache is None else cache.entry
        features, entry = self.enter(latent, entry, consume=consume)
        video, growing, full = self.grow(features, cache, consume=consume)
        return video, DecoderCache(entry, growing, full)

    def enter(
        self, latent: Tensor, cache: Cache | None, *, consume: bool = False
    ) -> tuple[Tensor, Cache]:
        """What happens at latent size, the only part in which all of a frame meets."""
        tape = CacheTape(cache, consume=consume)
        mean, deviation = _latent_statistics(latent)
        x = self.post_quant((latent * deviation + mean).to(latent.dtype))
        x = self.conv_in(x, tape)
        for part in self.middle:
            x = part(x, tape)
        return x, tape.cache()

    def grow(
        self, x: Tensor, cache: DecoderCache | None, *, consume: bool = False
    ) -> tuple[Tensor, Cache, Cache]:
        """From features at latent size to pixels; only nearby positions meet."""
        tape = CacheTape(None if cache is None else cache.growing, consume=consume)
        for level in self.levels[:2]:
            x = level(x, tape)
        full = None if cache is None else cache.full
        if full is not None and not consume:
            full = list(full)
        pieces = []
        for piece in x.split(FRAMES_PER_PIECE, dim=2):
            pixels, full = self._at_full_rate(piece, full)
            pieces.append(pixels)
        return torch.cat(pieces, dim=2), tape.cache(), full

    def _at_full_rate(self, x: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        tape = CacheTape(cache, consume=True)
        for level in self.levels[2:]:
            x = level(x, tape)
        x = self.conv_out(self.norm_out(x, activate=True), tape)
        return x.clamp(-1, 1) * 0.5 + 0.5, tape.cache()


def stream_decode(
    decoder: nn.Module, latent: Tensor, guides: Iterator[Tensor] | None = None
) -> Iterator[Tensor]:
    """Decode a latent frame by frame, at the memory of one.

    Args:
        decoder: A `WanDecoder` or `TinyDecoder`.
        latent: `b 16 t h w`.
        guides: Frames `b 3 4 8h 8w` for each latent frame, for a decoder that reads them.

    Yields:
        Frames `b 3 t' 8h 8w`: 1, then 4 for each further latent frame.
    """
    cache = None
    for frame in latent.split(1, dim=2):
        options = {} if guides is None else {"guide": next(guides)}
        video, cache = decoder(frame, cache, consume=True, **options)
        yield video


def decode_in_tiles(
    decoder: WanDecoder, latent: Tensor, tile: int, halo: int = EXACT_HALO
) -> Tensor:
    """Decode with the memory of one spatial tile, for pictures too large to decode whole.

    The part at latent size, in which distant positions meet, runs on whole frames; the levels after
    it run tile by tile, each with a border that is thrown away. With the full halo that is the
    untiled result; a smaller one is faster and leaves faint seams.

    Args:
        decoder: The decoder.
        latent: `b 16 t h w`.
        tile: Side of a tile in latent cells, without its halo; at most, for equal ones.
        halo: Border in latent cells.

    Returns:
        `b 3 t' 8h 8w` in [0, 1].

    Raises:
        ValueError: The tile or halo is out of range.
    """
    if tile < 1 or halo < 0:
        raise ValueError(f"tile must be at least 1 and halo at least 0, got {tile} and {halo}")
    cache, parts = None, []
    for frame in latent.split(1, dim=2):
        features, cache = decoder.enter(frame, cache, consume=True)
        parts.append(features)
    batch, _, num_latents, height, width = latent.shape
    shape = (batch, 3, 4 * num_latents - 3, CELL_PX * height, CELL_PX * width)
    video = latent.new_empty(shape)
    for rows, to_rows, own_rows in _spans(height, tile, halo):
        for columns, to_columns, own_columns in _spans(width, tile, halo):
            start = 0
            for frames in _stream_grow(decoder, [part[..., rows, columns] for part in parts]):
                stop = start + frames.shape[2]
                video[:, :, start:stop, to_rows, to_columns] = frames[..., own_rows, own_columns]
                start = stop
    return video


def _spans(length: int, tile: int, halo: int) -> list[tuple[slice, slice, slice]]:
    """Of each tile along a side: the cells it reads, the pixels it gives, where it has them."""
    spans = []
    tile = math.ceil(length / math.ceil(length / tile))  # as many, none of them a mere rest
    for start in range(0, length, tile):
        first, stop = max(0, start - halo), min(start + tile, length)
        own = slice(CELL_PX * (start - first), CELL_PX * (stop - first))
        spans.append((slice(first, stop + halo), slice(CELL_PX * start, CELL_PX * stop), own))
    return spans


def _stream_grow(decoder: WanDecoder, features: list[Tensor]) -> Iterator[Tensor]:
    cache = None
    for part in features:
        video, growing, full = decoder.grow(part, cache, consume=True)
        cache = DecoderCache([], growing, full)
        yield video


class WanEncoder(nn.Module):
    """Pixels to the mean of the latent; 4k+1 frames become k+1.

    Args:
        width: Base width, 96 as published.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width * factor for factor in (WIDTHS[0], *WIDTHS)]
        self.conv_in = CausalConv3d(3, sizes[0])
        levels = []
        for index, out_channels in enumerate(sizes[1:]):
            way_down = Downsample(out_channels, in_time=index > 0) if index < 3 else None
            levels.append(VaeLevel(sizes[index], out_channels, NUM_ENCODER_BLOCKS, way_down))
        self.levels = nn.ModuleList(levels)
        self.middle = _middle(sizes[-1])
        self.norm_out = ChannelNorm(sizes[-1])
        self.conv_out = CausalConv3d(sizes[-1], 2 * LATENT_CHANNELS)
        self.quant = nn.Conv3d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)

    def forward(
        self, video: Tensor, cache: Cache | None = None, *, consume: bool = False
    ) -> tuple[Tensor, Cache]:
        """Encode frames that follow those of `cache`.

        Args:
            video: `b 3 t h w` in [0, 1], h and w multiples of 8; 4k+1 frames at the beginning of a
                clip, then a multiple of 4.
            cache: Of the frames before; None at the beginning.
            consume: Empty `cache` on the way, which then cannot be used again: needs less memory.

        Returns:
            The normalised latent `b 16 t' h/8 w/8`, and the cache for what follows.
        """
        tape = CacheTape(cache, consume=consume)
        x = self.conv_in(video * 2 - 1, tape)
        for level in self.levels:
            x = level(x, tape)
        for part in self.middle:
            x = part(x, tape)
        x = self.conv_out(self.norm_out(x, activate=True), tape)
        # The second half is the log-variance, which only training the VAE needs.
        latent = self.quant(x)[:, :LATENT_CHANNELS]
        mean, deviation = _latent_statistics(latent)
        return ((latent - mean) / deviation).to(latent.dtype), tape.cache()


def stream_encode(encoder: WanEncoder, video: Tensor) -> Tensor:
    """Encode 4k+1 frames four at a time, at the memory of four.

    Args:
        encoder: The encoder.
        video: `b 3 t h w` in [0, 1].

    Returns:
        `b 16 t' h/8 w/8`, normalised.
    """
    cache, latents = None, []
    first, rest = video[:, :, :1], video[:, :, 1:]
    for frames in (first, *(rest.split(4, dim=2) if rest.shape[2] else ())):
        latent, cache = encoder(frames, cache, consume=True)
        latents.append(latent)
    return torch.cat(latents, dim=2)
