"""One step: a resized low-quality clip in, what the model adds to it out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .decoder import ConvDecoder
from .transformer import OasisTransformer


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
        features, latent = self.transformer(video)
        return self.decoder(features, latent, video.shape[2])


def build_model(config: ModelConfig, seed: int = 0) -> OasisModel:
    """A randomly initialised model, the same for the same seed; its residual is zero.

    Residual branches start small, so that training is stable from the first step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OasisModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv2.weight"):
                parameter.mul_(0.1)
    return model
