"""What stands around the attention: norms, modulation, feed-forward, convolutions, the stem."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import ModelConfig
from .motion import FrameChanges, neighbor_changes, num_changes

EPSILON = 1e-6
ALL = slice(None)
TIMESTEP_PERIOD = 10_000.0


class FullWidthRMSNorm(nn.Module):
    """Root-mean-square norm over the whole width, so over all heads together.

    Written out because `nn.RMSNorm` has no fused CPU kernel and costs ten times a layer norm there.

    Args:
        width: Channels d.
        is_precise: Multiply in float32 too; else only the statistic is.

    Source: Wan2.1, qk-norm; arXiv 1910.07467.
    """

    def __init__(self, width: int, *, is_precise: bool = False) -> None:
        super().__init__()
        self.is_precise = is_precise
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `... d`; the statistic is at least float32, the result as the input."""
        precise = precise_dtype(x)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise)
        scale = torch.rsqrt(norm.square() / x.shape[-1] + EPSILON)
        if self.is_precise:
            return (x.to(precise) * scale * self.weight.to(precise)).to(x.dtype)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)


def precise_dtype(x: Tensor) -> torch.dtype:
    """Float32, or float64 for a tensor that is."""
    return torch.promote_types(x.dtype, torch.float32)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, *, is_precise: bool = False) -> Tensor:
    """Layer norm without affine, then `x * (1 + scale) + shift` (adaLN).

    Args:
        x: `b n d`.
        shift: `d` or `b 1 d`.
        scale: Like `shift`.
        is_precise: Compute in float32 and round once, at the end.
    """
    dtype = precise_dtype(x) if is_precise else x.dtype
    y = F.layer_norm(x.to(dtype), (x.shape[-1],), eps=EPSILON)
    # Not `dtype` but the norm's own: autocast keeps a layer norm in float32.
    y = torch.addcmul(shift.to(y.dtype), y, 1 + scale.to(y.dtype))
    return y.to(x.dtype) if is_precise else y


def add_gated(x: Tensor, change: Tensor, gate: Tensor, *, is_precise: bool = False) -> Tensor:
    """`x + change * gate`; the arguments as in `modulate`."""
    if is_precise:
        dtype = precise_dtype(x)
        return torch.addcmul(x.to(dtype), change.to(dtype), gate.to(dtype)).to(x.dtype)
    return torch.addcmul(x, change, gate.to(x.dtype))


class TimestepEmbedding(nn.Module):
    """A timestep as six modulation rows per block and one for the head.

    Source: Wan2.1 (Apache-2.0), `wan/modules/model.py`: sinusoid with the cosines first, two linear
    layers around a SiLU, and one more for the blocks.
    """

    stays_float32 = True
    """It runs on one row, and its result is added to the modulation, which is float32."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.expand = nn.Linear(channels, width)
        self.contract = nn.Linear(width, width)
        self.project = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Embed `b` timesteps in [0, 1000].

        Returns:
            The head's row `b d` and the blocks' rows `b 6 d`.
        """
        head = self.contract(F.silu(self.expand(self._sinusoid(timestep))))
        return head, rearrange(self.project(F.silu(head)), "b (m d) -> b m d", m=6)

    def _sinusoid(self, timestep: Tensor) -> Tensor:
        half = self.channels // 2
        exponent = torch.arange(half, dtype=torch.float64, device=timestep.device) / half
        angles = torch.outer(timestep.double(), TIMESTEP_PERIOD**-exponent)
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return sinusoid.to(self.expand.weight.dtype)


class FeedForward(nn.Module):
    """Two linear maps with a tanh-approximated GELU between; `b n d` to `b n d`.

    Args:
        width: Channels d.
        hidden_width: Channels between.
        tokens_per_piece: Tokens taken at once at inference; 0 for all. A large model's hidden
            layer over a whole clip is gigabytes.
    """

    def __init__(self, width: int, hidden_width: int, tokens_per_piece: int = 0) -> None:
        super().__init__()
        self.tokens_per_piece = tokens_per_piece
        self.expand = nn.Linear(width, hidden_width)
        self.contract = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network to `b n d`."""
        if self.tokens_per_piece and not torch.is_grad_enabled():
            return torch.cat(
                [self._transform(y) for y in x.split(self.tokens_per_piece, dim=1)], dim=1
            )
        return self._transform(x)

    def _transform(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


def edge_conv(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that sees the outermost cells go on beyond the edge.

    With zeros there, each of 22 convolutions in a row makes a border of its own: a clip of one
    colour came back up to 15 levels off in its corners, and so did every tile. It costs 4 % of the
    convolution's time.
    """
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="replicate", bias=bias)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = edge_conv(channels, channels)
        self.conv2 = edge_conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to `(b t) c h w`."""
        # On a CPU frame by frame: the features of one frame fit its cache, a segment's do not.
        if torch.is_grad_enabled() or x.device.type != "cpu" or len(x) == 1:
            return x + self._change(x)
        result = torch.empty_like(x)
        for frame, place in zip(x.split(1), result.split(1), strict=True):
            torch.add(frame, self._change(frame), out=place)
        return result

    def _change(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x)))


class UnshuffleStem(nn.Module):
    """Space-to-depth of the video, then convolutions; takes the place of a VAE encoder.

    With a time stride the first frame is repeated so that 4k+1 frames give k+1 cells, as a causal
    video VAE counts them. A latent is passed on as it is: then the VAE's encoder was the stem.

    With a reach it also sees how the frames around a frame differ from it once they are moved to
    where it is. Differences and not the frames themselves: a single frame, or a clip that stands
    still, is treated exactly as without neighbours, so the convolutions can be trained on stills.

    Source: OASIS, arXiv 2509.23980 (pixel-unshuffle in place of the encoder).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        t, h, w = self.stride = config.stem_stride
        self.reads_latent = config.reads_latent
        unshuffled = config.out_channels if self.reads_latent else 3 * t * h * w
        self.out_channels = config.stem_channels or unshuffled
        self.reach = config.stem_reach
        self.conv = self.conv_neighbors = self.changes = None
        if config.stem_channels:
            self.conv = edge_conv(unshuffled, config.stem_channels)
        if self.reach:
            self.conv_neighbors = edge_conv(
                num_changes(self.reach), config.stem_channels, bias=False
            )
            nn.init.zeros_(self.conv_neighbors.weight)
            self.changes = FrameChanges()
        blocks = (ResidualBlock(config.stem_channels) for _ in range(config.num_stem_blocks))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, video: Tensor, kept: slice = ALL) -> Tensor:
        """Turn `b 3 t h w` in [0, 1], or a latent, into cells `(b t') c h' w'`.

        Of t frames become t' = ceil(t / stride) rows of cells, of which those asked for are made.
        """
        if self.reads_latent:
            return rearrange(video, "b c t h w -> (b t) c h w")
        st, sh, sw = self.stride
        if lead := -video.shape[2] % st:
            video = torch.cat([video[:, :, :1].expand(-1, -1, lead, -1, -1), video], dim=2)
        cells = rearrange(
            video - 0.5, "b c (t st) (h sh) (w sw) -> b t (c st sh sw) h w", st=st, sh=sh, sw=sw
        )[:, kept].flatten(0, 1)
        if self.conv is None:
            return cells
        cells = self.conv(cells.contiguous(memory_format=torch.channels_last))
        if self.reach and video.shape[2] > 1:
            cells = cells + self._seen_around(video, kept).to(cells.dtype)
        for block in self.blocks:
            cells = block(cells)
        return cells

    def _seen_around(self, video: Tensor, kept: slice) -> Tensor:
        changes = neighbor_changes(video, self.reach, self.stride[1], kept, self.changes)
        return self.conv_neighbors(changes.to(self.conv_neighbors.weight.dtype))
