"""What a picture shows, in words of a network: Swin-L of RAM, whose features guide InfVSR.

Source: Swin Transformer (arXiv 2103.14030); recognize-anything (Apache-2.0), `ram/models`: the
sizes, and that the mean of all positions comes first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

IMAGE_PX = 384
PATCH_PX = 4
WINDOW = 12
HEAD_SIZE = 32
DEPTHS = (2, 2, 18, 2)
FFN_FACTOR = 4
NORM_EPSILON = 1e-5
NUM_TOKENS = 1 + (IMAGE_PX // PATCH_PX // 2 ** (len(DEPTHS) - 1)) ** 2
"""The mean, then the last stage's 12 x 12 positions row by row."""
OTHER_REGION = -100.0
"""Added to the score of a pair that only rolling the picture has made neighbours."""
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def feature_channels(width: int) -> int:
    """Channels of the features of an encoder of base width `width`."""
    return width * 2 ** (len(DEPTHS) - 1)


class PreciseNorm(nn.LayerNorm):
    """A layer norm in float32, rounded once."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `... c`."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


def _pair_offsets(window: int, device: torch.device) -> Tensor:
    """Row of the bias table for each pair of positions of a window: `(w w) (w w)`."""
    axis = torch.arange(window, device=device)
    rows, columns = (y.flatten() for y in torch.meshgrid(axis, axis, indexing="ij"))
    offset = torch.stack([y[:, None] - y[None, :] for y in (rows, columns)]) + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def _region_scores(side: int, window: int, shift: int, device: torch.device) -> Tensor:
    """What is added to each window's scores after a roll by `shift`: `windows (w w) (w w)`."""
    position = torch.arange(side, device=device)
    band = (position >= side - window).long() + (position >= side - shift).long()
    region = 3 * band[:, None] + band[None, :]
    region = rearrange(region, "(y a) (x c) -> (y x) (a c)", a=window, c=window)
    return OTHER_REGION * (region[:, :, None] != region[:, None, :]).float()


class SwinBlock(nn.Module):
    """Attention inside windows, every other time shifted by half of one, then a feed-forward.

    Args:
        channels: c.
        side: Rows and columns of the grid.
        is_shifted: Whether the windows are shifted; never where one window is the whole grid.
    """

    def __init__(self, channels: int, side: int, *, is_shifted: bool) -> None:
        super().__init__()
        self.side, self.window = side, min(WINDOW, side)
        self.shift = self.window // 2 if is_shifted and side > self.window else 0
        self.num_heads = channels // HEAD_SIZE
        self.norm1 = PreciseNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias_table = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, self.num_heads))
        self.out = nn.Linear(channels, channels)
        self.norm2 = PreciseNorm(channels)
        self.expand = nn.Linear(channels, FFN_FACTOR * channels)
        self.contract = nn.Linear(FFN_FACTOR * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `b h w c`."""
        x = x + self._attend(self.norm1(x))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        sizes = {"a": self.window, "c": self.window}
        windows = rearrange(x, "b (y a) (x c) d -> (b y x) (a c) d", **sizes)
        q, k, v = rearrange(self.qkv(windows), "b n (s k c) -> s b k n c", s=3, k=self.num_heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(q))
        out = self.out(rearrange(out, "b k n c -> b n (k c)"))
        num = self.side // self.window
        out = rearrange(out, "(b y x) (a c) d -> b (y a) (x c) d", y=num, x=num, **sizes)
        return torch.roll(out, (self.shift, self.shift), (1, 2)) if self.shift else out

    def _bias(self, q: Tensor) -> Tensor:
        """What is added to the scores: `b k n n`, or `1 k n n`."""
        offsets = _pair_offsets(self.window, q.device)
        bias = rearrange(self.bias_table[offsets], "q n k -> 1 k q n")
        if self.shift:
            regions = _region_scores(self.side, self.window, self.shift, q.device)
            bias = bias + rearrange(regions.to(bias.dtype), "m q n -> m 1 q n")
            bias = bias.repeat(len(q) // len(bias), 1, 1, 1)
        return bias.to(q.dtype)


class PatchMerge(nn.Module):
    """Half the height and width, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PreciseNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shrink `b h w c`."""
        # Of each square the left column first.
        x = rearrange(x, "b (h two) (w side) c -> b h w (side two c)", two=2, side=2)
        return self.reduce(self.norm(x))


class VisualEncoder(nn.Module):
    """A picture to the features that guide the restoration.

    Args:
        width: Base width, 192 as published.
        out_channels: Channels of the features after the last projection.
        depths: Blocks of each stage.
    """

    def __init__(self, width: int, out_channels: int, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, PATCH_PX, stride=PATCH_PX)
        self.norm_in = PreciseNorm(width)
        side, stages, merges = IMAGE_PX // PATCH_PX, [], []
        for index, depth in enumerate(depths):
            channels = width * 2**index
            blocks = (SwinBlock(channels, side, is_shifted=i % 2 == 1) for i in range(depth))
            stages.append(nn.ModuleList(blocks))
            if index + 1 < len(depths):
                merges.append(PatchMerge(channels))
                side //= 2
        self.stages, self.merges = nn.ModuleList(stages), nn.ModuleList(merges)
        self.norm_out = PreciseNorm(channels)
        self.project = nn.Linear(channels, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Describe a picture.

        Args:
            image: `b 3 384 384` from `prepare_picture`.

        Returns:
            `b 145 c`: the mean of all positions, then the positions row by row.
        """
        x = self.norm_in(rearrange(self.embed(image), "b c h w -> b h w c"))
        for index, blocks in enumerate(self.stages):
            for block in blocks:
                x = block(x)
            if index < len(self.merges):
                x = self.merges[index](x)
        x = rearrange(self.norm_out(x), "b h w c -> b (h w) c")
        return self.project(torch.cat([x.mean(dim=1, keepdim=True), x], dim=1))


def prepare_picture(frame: Tensor) -> Tensor:
    """A frame as the encoder wants it.

    Args:
        frame: `b 3 h w` in [0, 1], of any size.

    Returns:
        `b 3 384 384`, normalised, in the dtype of the frame.
    """
    precise = torch.promote_types(frame.dtype, torch.float32)
    # Antialiased: the frame was enlarged before, and every other pixel of it would be a guess.
    image = F.interpolate(frame.to(precise), (IMAGE_PX, IMAGE_PX), mode="bilinear", antialias=True)
    mean, std = (image.new_tensor(y).view(3, 1, 1) for y in (PIXEL_MEAN, PIXEL_STD))
    return ((image - mean) / std).to(frame.dtype)
