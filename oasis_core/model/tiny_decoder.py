"""TAEHV's decoder for Wan2.1 latents: a small stand-in for the VAE's, 23 times fewer operations.

Source: madebyollin/taehv (MIT), `taehv.py`, variant taew2_1: structure and constants, not code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .wan_vae_layers import Cache, CacheTape

LATENT_CHANNELS = 16
SOFT_LIMIT = 3.0
WIDTHS = (4, 2, 1, 1)
"""Channels of the three stages and of the last convolution, in base widths."""
GROWTH = (1, 2, 2)
"""Frames that each stage makes of one."""
NUM_LEADING = 3
"""Frames that come before the clip's first, and are dropped."""


class MemoryBlock(nn.Module):
    """Three convolutions on a frame and the one before, around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inputs = (2 * channels, channels, channels)
        self.convs = nn.ModuleList(nn.Conv2d(n, channels, 3, padding=1) for n in inputs)

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Transform `b c t h w`."""
        past = tape.with_past(x, 1)[:, :, :-1]
        y = rearrange(torch.cat([x, past], dim=1), "b c t h w -> (b t) c h w")
        for index, conv in enumerate(self.convs):
            y = conv(F.relu(y) if index else y)
        return F.relu(rearrange(y, "(b t) c h w -> b c t h w", t=x.shape[2]) + x)


class TinyStage(nn.Module):
    """Memory blocks, then twice the size and `growth` times the frames."""

    def __init__(self, channels: int, out_channels: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.blocks = nn.ModuleList(MemoryBlock(channels) for _ in range(3))
        self.grow = nn.Conv2d(channels, channels * growth, 1, bias=False)
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Transform `b c t h w`."""
        batch = len(x)
        for block in self.blocks:
            x = block(x, tape)
        # Each position alone, so growing before enlarging is the same at a quarter of the work.
        x = self.grow(rearrange(x, "b c t h w -> (b t) c h w"))
        x = rearrange(x, "f (g c) h w -> (f g) c h w", g=self.growth)
        x = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return rearrange(x, "(b t) c h w -> b c t h w", b=batch)


class TinyDecoder(nn.Module):
    """Latents to pixels by TAEHV; k+1 latent frames become 4k+1 frames.

    Args:
        width: Base width, 64 as published.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width * factor for factor in WIDTHS]
        self.conv_in = nn.Conv2d(LATENT_CHANNELS, sizes[0], 3, padding=1)
        self.stages = nn.ModuleList(
            TinyStage(sizes[i], sizes[i + 1], growth) for i, growth in enumerate(GROWTH)
        )
        self.conv_out = nn.Conv2d(sizes[-1], 3, 3, padding=1)

    def forward(
        self, latent: Tensor, cache: Cache | None = None, *, consume: bool = False
    ) -> tuple[Tensor, Cache]:
        """Decode latent frames that follow those of `cache`; see `WanDecoder.forward`."""
        tape = CacheTape(cache, consume=consume)
        num_frames = latent.shape[2]
        # The latent as the transformer predicts it: TAEHV needs no mean and deviation.
        x = rearrange(SOFT_LIMIT * torch.tanh(latent / SOFT_LIMIT), "b c t h w -> (b t) c h w")
        x = rearrange(F.relu(self.conv_in(x)), "(b t) c h w -> b c t h w", t=num_frames)
        for stage in self.stages:
            x = stage(x, tape)
        num_frames = x.shape[2]
        x = self.conv_out(rearrange(F.relu(x), "b c t h w -> (b t) c h w"))
        video = rearrange(x, "(b t) c h w -> b c t h w", t=num_frames).clamp(0, 1)
        return (video[:, :, NUM_LEADING:] if tape.is_start else video), tape.cache()
