"""TAEHV's decoder for Wan2.1 latents: a small stand-in for the VAE's, 23 times fewer operations.

FlashVSR's is twice as wide, has a layer more before and behind, and reads the frames of the source.

Source: madebyollin/taehv (MIT), `taehv.py`, variant taew2_1, and OpenImagingLab/FlashVSR
(Apache-2.0): structure and constants, not code.
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
CELL_PX = 8


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
        num_guides: Frames of the video that are read with each latent frame; 0: none, and no
            further layers.
    """

    def __init__(self, width: int, num_guides: int = 0) -> None:
        super().__init__()
        sizes = [width * factor for factor in WIDTHS]
        channels = LATENT_CHANNELS + 3 * CELL_PX**2 * num_guides
        self.conv_in = nn.Conv2d(channels, sizes[0], 3, padding=1)
        self.more_in = self.more_out = None
        if num_guides:
            self.more_in = nn.Conv2d(sizes[0], sizes[0], 3, padding=1, bias=False)
            self.more_out = nn.Conv2d(sizes[-1], sizes[-1], 3, padding=1, bias=False)
        self.stages = nn.ModuleList(
            TinyStage(sizes[i], sizes[i + 1], growth) for i, growth in enumerate(GROWTH)
        )
        self.conv_out = nn.Conv2d(sizes[-1], 3, 3, padding=1)

    def forward(
        self,
        latent: Tensor,
        cache: Cache | None = None,
        *,
        guide: Tensor | None = None,
        consume: bool = False,
    ) -> tuple[Tensor, Cache]:
        """Decode latent frames that follow those of `cache`; see `WanDecoder.forward`.

        `guide` `b 3 4t 8h 8w` in [0, 1] are the frames that they will be decoded to, of a clip's
        first latent frame the first frame four times; for a decoder that reads them.
        """
        tape = CacheTape(cache, consume=consume)
        num_frames = latent.shape[2]
        # The latent as the transformer predicts it: TAEHV needs no mean and deviation.
        x = latent if guide is None else torch.cat([_unshuffled(guide, num_frames), latent], dim=1)
        x = rearrange(SOFT_LIMIT * torch.tanh(x / SOFT_LIMIT), "b c t h w -> (b t) c h w")
        x = F.relu(self.conv_in(x))
        if self.more_in is not None:
            x = F.relu(self.more_in(x))
        x = rearrange(x, "(b t) c h w -> b c t h w", t=num_frames)
        for stage in self.stages:
            x = stage(x, tape)
        num_frames = x.shape[2]
        x = F.relu(rearrange(x, "b c t h w -> (b t) c h w"))
        if self.more_out is not None:
            x = F.relu(self.more_out(x))
        x = self.conv_out(x)
        video = rearrange(x, "(b t) c h w -> b c t h w", t=num_frames).clamp(0, 1)
        return (video[:, :, NUM_LEADING:] if tape.is_start else video), tape.cache()


def _unshuffled(frames: Tensor, num_latents: int) -> Tensor:
    """Frames in [0, 1] at latent size, those of a latent frame as channels, in [-1, 1]."""
    return rearrange(
        frames * 2 - 1,
        "b c (t f) (h p) (w q) -> b (c f p q) t h w",
        t=num_latents,
        p=CELL_PX,
        q=CELL_PX,
    )
