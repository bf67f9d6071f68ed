"""The small convolutional decoder of oasis-tiny: latent cells to a residual in pixels."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import ResidualBlock, edge_conv


class ConvDecoder(nn.Module):
    """Residual blocks on stem features plus latent, then depth-to-space.

    The last convolution starts at zero, so an untrained model returns a zero residual: the plain
    resize of its input.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _, self.stride, stride_w = config.stem_stride
        if config.out_channels != config.stem_channels or self.stride != stride_w:
            raise ValueError(
                "the convolutional decoder needs out_channels equal to stem_channels and a square "
                f"stem, got {config.out_channels}, {config.stem_channels}, {config.stem_stride}"
            )
        channels = config.stem_channels
        self.blocks = nn.ModuleList(
            ResidualBlock(channels) for _ in range(config.num_decoder_blocks)
        )
        self.conv = edge_conv(channels, 3 * self.stride**2)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, features: Tensor, latent: Tensor | float, num_clips: int) -> Tensor:
        """Decode cells to a residual.

        Args:
            features: `(b t) c h w` from the stem.
            latent: `(b t) c h w` from the transformer, or 0 for none.
            num_clips: b.

        Returns:
            `b 3 t (h stride) (w stride)`.
        """
        cells = features + latent
        for block in self.blocks:
            cells = block(cells)
        pixels = F.pixel_shuffle(self.conv(cells), self.stride)
        return rearrange(pixels, "(b t) c h w -> b c t h w", b=num_clips)
