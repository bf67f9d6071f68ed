"""One step: a resized low-quality clip in, what the model adds to it out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .decoder import ConvDecoder
from .transformer import OasisTransformer

RESIDUAL_SCALE = 0.3
"""Residual branches start this much smaller than their input."""


class OasisModel(nn.Module):
    """The transformer and its decoder: restored clip = input + `model(input)`.

    The input is the clip resized to the target size, so one set of weights serves every scale.
    No noise is drawn; the same input gives the same output.

    Source: OASIS, arXiv 2509.23980.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = OasisTransformer(config)
        self.decoder = ConvDecoder(config) if config.stem_channels else None
        self.skips_transformer = False
        """Leave the transformer out, as its zero-initialised head does: for training the
        convolutions first, at half the cost."""

    def forward(self, video: Tensor) -> Tensor:
        """Predict the residual of a clip.

        Args:
            video: `b 3 t h w` in [0, 1], already at the target size; h and w multiples of the
                token stride.

        Returns:
            `b 3 t h w`: restored minus input, not clamped.

        Raises:
            ValueError: The size is no multiple of the token stride, or this model has no decoder.
        """
        if self.decoder is None:
            raise ValueError(
                f"{self.config.name} predicts Wan 2.1 latents and this version has no decoder for "
                "them; use oasis-tiny"
            )
        _, stride_h, stride_w = self.config.token_stride
        if video.shape[3] % stride_h or video.shape[4] % stride_w:
            raise ValueError(
                f"height and width must be multiples of {stride_h} and {stride_w}, got "
                f"{video.shape[3]} and {video.shape[4]}"
            )
        if self.skips_transformer:
            return self.decoder(self.transformer.stem(video), 0.0, video.shape[2])
        features, latent = self.transformer(video)
        return self.decoder(features, latent, video.shape[2])


def build_model(config: ModelConfig, seed: int = 0) -> OasisModel:
    """A randomly initialised model, the same for the same seed; its residual is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OasisModel(config)
    # torch's default leaves convolution features so small that detail drowns in the mean
    # brightness; with He initialisation the first hundred steps gain three times as much.
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name != "decoder.conv":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                module.weight.data.mul_(RESIDUAL_SCALE)
    # Open gates: the head starts at zero, so the blocks are harmless, and closed gates as well
    # were measured to stay closed for thousands of steps.
    for block in model.transformer.blocks:
        nn.init.ones_(block.modulation.data[2::3])
    return model
