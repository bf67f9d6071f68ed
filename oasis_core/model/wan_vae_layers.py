"""What the Wan2.1 VAE is built of: causal convolutions, its norm, residual blocks, resampling.

Time runs one way: every causal convolution sees its own and the two frames before. What it needs of
earlier calls is an explicit value, the cache, passed in and handed back; an empty one is a clip's
beginning. So a clip may be run at once or in pieces, with the same result.

Source: Wan2.1 (Apache-2.0), `wan/modules/vae.py`: structure and constants, not code.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Cache: TypeAlias = list[Tensor]

PAST_FRAMES = 2
"""Earlier frames that a causal kernel of three sees."""
LEAST_NORM = 1e-12
MOST_SCALE = 6e4
"""Largest factor of a norm: just inside float16, and above anything a real feature needs."""
QUERIES_PER_CHUNK = 4096
"""Bounds the scores where no fused kernel takes a head of 384 channels."""


class CacheTape:
    """Hands each layer of one call what it kept of the last call, and collects what it keeps now.

    Layers come by in the same order in every call.

    Args:
        cache: Of the call before; None at the beginning of a clip.
        consume: Empty `cache` on the way, so that old and new are never held both: at full size
            they are gigabytes.
    """

    def __init__(self, cache: Cache | None, *, consume: bool = False) -> None:
        self.is_start = cache is None
        """Whether this is the first call of a clip."""
        self._old = cache if consume or cache is None else list(cache)
        self._new: Cache = []
        if self._old is not None:
            self._old.reverse()

    def with_past(self, x: Tensor, num_frames: int) -> Tensor:
        """`x` `b c t h w` after the `num_frames` frames before it; zeros before the first."""
        if self._old is None:
            past = x.new_zeros((x.shape[0], x.shape[1], num_frames, *x.shape[3:]))
        else:
            past = self._old.pop()
        joined = torch.cat([past, x], dim=2)
        # A copy: a view would keep every frame of this call alive until the next.
        self._new.append(joined[:, :, joined.shape[2] - num_frames :].clone())
        return joined

    def last_frame(self, x: Tensor) -> Tensor:
        """The frame before `x` (none at the start of a clip), keeping the last of `x`."""
        past = x[:, :, :0] if self._old is None else self._old.pop()
        self._new.append(x[:, :, -1:].clone())
        return past

    def cache(self) -> Cache:
        """What the next call needs."""
        return self._new


class CausalConv3d(nn.Conv3d):
    """A 3x3x3 convolution that sees the two frames before, and none after."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Convolve `b c t h w`."""
        return super().forward(tape.with_past(x, PAST_FRAMES))


class ChannelNorm(nn.Module):
    """Each position scaled to root-mean-square 1 over the channels, times a learned gain.

    The length is clamped, not shifted by an epsilon, as in `torch.nn.functional.normalize`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, *, activate: bool = False) -> Tensor:
        """Normalise `b c ...`; with `activate` a SiLU follows."""
        precise = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=precise)
        scale = (x.shape[1] ** 0.5 / norm.clamp(min=LEAST_NORM)).clamp(max=MOST_SCALE)
        y = x * scale.to(x.dtype)
        gamma = self.gamma.to(x.dtype).view(-1, *[1] * (x.ndim - 2))
        if torch.is_grad_enabled():
            y = y * gamma
            return F.silu(y) if activate else y
        # In place: at full size each copy is hundreds of megabytes.
        y.mul_(gamma)
        return F.silu(y, inplace=True) if activate else y


class VaeResidualBlock(nn.Module):
    """Norm, SiLU, causal convolution, twice, around a skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Transform `b c t h w`."""
        y = self.conv1(self.norm1(x, activate=True), tape)
        y = self.conv2(self.norm2(y, activate=True), tape)
        skip = x if self.shortcut is None else self.shortcut(x)
        return y + skip if torch.is_grad_enabled() else y.add_(skip)


class FrameAttention(nn.Module):
    """One attention head over all positions of a frame, each frame alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Transform `b c t h w`; nothing is kept on the tape."""
        del tape
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        qkv = rearrange(self.to_qkv(self.norm(frames)), "f (s c) h w -> s f 1 (h w) c", s=3)
        queries, keys, values = (y.contiguous() for y in qkv)
        parts = [
            F.scaled_dot_product_attention(part, keys, values)
            for part in queries.split(QUERIES_PER_CHUNK, dim=2)
        ]
        out = rearrange(torch.cat(parts, dim=2), "f 1 (h w) c -> f c h w", h=x.shape[3])
        return x + rearrange(self.proj(out), "(b t) c h w -> b c t h w", t=x.shape[2])


class Upsample(nn.Module):
    """Twice the height and width, half the channels; optionally first twice the frames.

    The clip's very first frame stays one frame, and the frames after it do not see it here.
    """

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1)) if in_time else None
        self.conv = nn.Conv2d(channels, channels // 2, 3, padding=1)

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Enlarge `b c t h w`."""
        if self.time_conv is not None:
            x = self._in_time(x, tape)
        num_frames = x.shape[2]
        x = rearrange(x, "b c t h w -> (b t) c h w")
        x = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest-exact"))
        return rearrange(x, "(b t) c h w -> b c t h w", t=num_frames)

    def _in_time(self, x: Tensor, tape: CacheTape) -> Tensor:
        first = x[:, :, :1] if tape.is_start else x[:, :, :0]
        rest = x[:, :, first.shape[2] :]
        joined = tape.with_past(rest, PAST_FRAMES)
        if not rest.shape[2]:
            return first
        pairs = rearrange(self.time_conv(joined), "b (two c) t h w -> b c (t two) h w", two=2)
        return torch.cat([first, pairs], dim=2) if first.shape[2] else pairs


class Downsample(nn.Module):
    """Half the height and width; optionally then half the frames, the very first staying alone."""

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        self.time_conv = None
        if in_time:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, tape: CacheTape) -> Tensor:
        """Shrink `b c t h w`; after a clip's first frame, frames come in pairs."""
        num_frames = x.shape[2]
        frames = F.pad(rearrange(x, "b c t h w -> (b t) c h w"), (0, 1, 0, 1))
        x = rearrange(self.conv(frames), "(b t) c h w -> b c t h w", t=num_frames)
        if self.time_conv is None:
            return x
        past = tape.last_frame(x)
        first = x[:, :, : 1 - past.shape[2]]
        joined = torch.cat([past, x], dim=2)
        if joined.shape[2] < self.time_conv.kernel_size[0]:
            return first
        return torch.cat([first, self.time_conv(joined)], dim=2)
