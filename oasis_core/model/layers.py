"""What stands around the attention: norms, modulation, feed-forward, convolutions, the stem."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import ModelConfig

EPSILON = 1e-6
SHIFTED_SHARE = 8
"""One channel in `SHIFTED_SHARE` looks one frame back, one looks one frame ahead."""


class FullWidthRMSNorm(nn.Module):
    """Root-mean-square norm over the whole width, so over all heads together.

    Written out because `nn.RMSNorm` has no fused CPU kernel and costs ten times a layer norm there.

    Source: Wan2.1, qk-norm; arXiv 1910.07467.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `... d`; the statistic is at least float32, the result as the input."""
        precise = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise)
        scale = torch.rsqrt(norm.square() / x.shape[-1] + EPSILON)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without affine, then `x * (1 + scale) + shift` (adaLN); `b n d`."""
    x = F.layer_norm(x, (x.shape[-1],), eps=EPSILON)
    return torch.addcmul(shift.to(x.dtype), x, 1 + scale.to(x.dtype))


class FeedForward(nn.Module):
    """Two linear maps with a tanh-approximated GELU between; `b n d` to `b n d`."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden_width)
        self.contract = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network to `b n d`."""
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


def shift_in_time(x: Tensor, num_frames: int) -> Tensor:
    """Give a share of the channels the previous and the next frame's values.

    At the ends of the clip the frame's own values stay, as if the clip stood still there.

    Args:
        x: `(b t) c h w`.
        num_frames: t.

    Returns:
        `(b t) c h w`, same memory format.

    Source: Temporal Shift Module, arXiv 1811.08383.
    """
    if num_frames == 1:
        return x
    share = x.shape[1] // SHIFTED_SHARE
    shifted = x.clone()
    clips = rearrange(x, "(b t) c h w -> b t c h w", t=num_frames)
    target = rearrange(shifted, "(b t) c h w -> b t c h w", t=num_frames)
    target[:, 1:, :share] = clips[:, :-1, :share]
    target[:, :-1, share : 2 * share] = clips[:, 1:, share : 2 * share]
    return shifted


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a ReLU, on features that see one frame back and ahead."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Apply to `(b t) c h w`."""
        return x + self.conv2(F.relu_(self.conv1(shift_in_time(x, num_frames))))


class UnshuffleStem(nn.Module):
    """Space-to-depth of the video, then convolutions; takes the place of a VAE encoder.

    With a time stride the first frame is repeated so that 4k+1 frames give k+1 cells, as a causal
    video VAE counts them.

    Source: OASIS, arXiv 2509.23980 (pixel-unshuffle in place of the encoder).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        t, h, w = self.stride = config.stem_stride
        unshuffled = 3 * t * h * w
        self.out_channels = config.stem_channels or unshuffled
        self.conv = None
        if config.stem_channels:
            self.conv = nn.Conv2d(unshuffled, config.stem_channels, 3, padding=1)
        blocks = (ResidualBlock(config.stem_channels) for _ in range(config.num_stem_blocks))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, video: Tensor) -> Tensor:
        """Turn `b 3 t h w` in [0, 1] into cells `(b t') c h' w'`, t' = ceil(t / stride)."""
        st, sh, sw = self.stride
        if lead := -video.shape[2] % st:
            video = torch.cat([video[:, :, :1].expand(-1, -1, lead, -1, -1), video], dim=2)
        cells = rearrange(
            video - 0.5, "b c (t st) (h sh) (w sw) -> (b t) (c st sh sw) h w", st=st, sh=sh, sw=sw
        )
        if self.conv is None:
            return cells
        cells = self.conv(cells.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            cells = block(cells, video.shape[2] // st)
        return cells
