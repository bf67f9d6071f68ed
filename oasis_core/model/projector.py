"""FlashVSR's projector: an enlarged video to tokens that are added to those of the noise.

Source: OpenImagingLab/FlashVSR (Apache-2.0), version 1.1: structure and constants, not code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .wan_vae_layers import ChannelNorm

CELL_PX = 16
"""Side of the square of pixels that becomes one token."""
FRAMES_PER_GROUP = 4
"""Of the first group the clip's first frame, repeated."""
PAST_FRAMES = 2
FACTORS = (2, 3)
"""Channels of the two convolutions, in base widths."""


class ProjectorState(NamedTuple):
    """What a group leaves to the next."""

    pixels: Tensor
    """Its last two frames, unshuffled: `b c 2 h w`."""
    features: Tensor
    """What the first convolution made of it: `b c 2 h w`."""


class Projector(nn.Module):
    """Groups of four frames to one frame of tokens each, but for the first, which makes none.

    A latent frame's tokens see the four frames that it will be decoded to, and the four after them.

    Args:
        width: Base width, 1024 as published.
        out_channels: Width d of the transformer.
    """

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        first, second = (width * factor for factor in FACTORS)
        kernel = {"kernel_size": (4, 3, 3), "stride": (2, 1, 1)}
        self.conv1 = nn.Conv3d(3 * CELL_PX**2, first, **kernel)
        self.norm1 = ChannelNorm(first)
        self.conv2 = nn.Conv3d(first, second, **kernel)
        self.norm2 = ChannelNorm(second)
        self.linear = nn.Linear(second, out_channels)

    def forward(
        self, frames: Tensor, state: ProjectorState | None = None
    ) -> tuple[Tensor | None, ProjectorState]:
        """Project the group that follows that of `state`.

        Args:
            frames: `b 3 4 h w` in [0, 1], h and w multiples of 16.
            state: Of the group before; None at the beginning of a clip.

        Returns:
            Tokens `b 1 h' w' d`, or None for a clip's first group, and the state for the next.
        """
        cells = rearrange(
            frames * 2 - 1, "b c t (h p) (w q) -> b (c p q) t h w", p=CELL_PX, q=CELL_PX
        )
        past = cells[:, :, :1].expand(-1, -1, PAST_FRAMES, -1, -1) if state is None else state[0]
        features = self.norm1(_wide(self.conv1, torch.cat([past, cells], dim=2)), activate=True)
        kept = ProjectorState(cells[:, :, -PAST_FRAMES:].clone(), features)
        if state is None:
            return None, kept
        joined = torch.cat([state.features, features], dim=2)
        x = self.norm2(_wide(self.conv2, joined), activate=True)
        return self.linear(rearrange(x, "b c t h w -> b t h w c")), kept


def _wide(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution that sees the outermost cells go on beyond the edge."""
    return conv(F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate"))


def stream_project(projector: Projector, video: Tensor, num_latents: int) -> Tensor:
    """Tokens of a clip, group by group, at the memory of one.

    Args:
        projector: The projector.
        video: `b 3 t h w` in [0, 1]; its last frame stands for those after it.
        num_latents: Frames of tokens wanted.

    Returns:
        `b num_latents h' w' d`.
    """
    state, tokens = None, []
    for frames in latent_groups(video, num_latents + 1):
        made, state = projector(frames, state)
        if made is not None:
            tokens.append(made)
    return torch.cat(tokens, dim=1)


def latent_groups(video: Tensor, num_groups: int) -> Iterator[Tensor]:
    """The four frames that each latent frame is decoded to, the first and the last one repeated.

    Args:
        video: `b 3 t h w`.
        num_groups: Latent frames wanted.

    Yields:
        `b 3 4 h w`.
    """
    for group in range(num_groups):
        stop = FRAMES_PER_GROUP * group + 1
        wanted = range(stop - FRAMES_PER_GROUP, stop)
        yield torch.stack([video[:, :, min(max(0, i), video.shape[2] - 1)] for i in wanted], dim=2)
