"""TAEHV's encoder for Wan2.1 latents: a small stand-in for the VAE's.

Source: madebyollin/taehv (MIT), `taehv.py`, variant taew2_1: structure and constants, not code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .tiny_decoder import LATENT_CHANNELS, MemoryBlock
from .wan_vae_layers import Cache, CacheTape

POOLED_FRAMES = (2, 2, 1)
"""Frames of which each stage makes one."""
FRAMES_PER_LATENT = 4


class TinyEncoderStage(nn.Module):
    """Fewer frames, half the size, then memory blocks."""

    def __init__(self, channels: int, num_pooled: int) -> None:
        super().__init__()
        self.num_pooled = num_pooled
        self.pool = nn.Conv2d(num_pooled * channels, channels, 1, bias=False)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.ModuleList(MemoryBlock(channels) for _ in range(3))

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Transform `b c t h w`."""
        batch = len(x)
        x = rearrange(x, "b c (t p) h w -> (b t) (p c) h w", p=self.num_pooled)
        x = rearrange(self.conv(self.pool(x)), "(b t) c h w -> b c t h w", b=batch)
        for block in self.blocks:
            x = block(x, tape)
        return x


class TinyEncoder(nn.Module):
    """Pixels to latents by TAEHV; 4k+1 frames become k+1.

    A latent frame is made of four frames, the last three of which lie after those that it will be
    decoded to: the encoder looks three frames ahead, and at the end the last frame stands for them.

    Args:
        width: Channels throughout, 64 as published.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.stages = nn.ModuleList(TinyEncoderStage(width, n) for n in POOLED_FRAMES)
        self.conv_out = nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1)

    def forward(self, video: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Encode frames that follow those of `cache`.

        Args:
            video: `b 3 t h w` in [0, 1], t a multiple of 4, h and w multiples of 8.
            cache: Of the frames before; None at the beginning.

        Returns:
            The latent `b 16 t/4 h/8 w/8` as the transformer reads it, and the cache for what
            follows.
        """
        tape = CacheTape(cache)
        x = F.relu(self.conv_in(rearrange(video, "b c t h w -> (b t) c h w")))
        x = rearrange(x, "(b t) c h w -> b c t h w", b=len(video))
        for stage in self.stages:
            x = stage(x, tape)
        num_latents = x.shape[2]
        x = self.conv_out(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(x, "(b t) c h w -> b c t h w", t=num_latents), tape.cache()


def stream_encode_tiny(encoder: TinyEncoder, video: Tensor) -> Tensor:
    """Encode 4k+1 frames four at a time, at the memory of four.

    Args:
        encoder: The encoder.
        video: `b 3 t h w` in [0, 1].

    Returns:
        `b 16 t' h/8 w/8`.
    """
    cache, latents = None, []
    for frames in video.split(FRAMES_PER_LATENT, dim=2):
        missing = FRAMES_PER_LATENT - frames.shape[2]
        if missing:
            frames = torch.cat([frames, frames[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
        latent, cache = encoder(frames, cache)
        latents.append(latent)
    return torch.cat(latents, dim=2)
