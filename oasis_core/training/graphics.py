"""Drawn stills: text, bars, grids and shapes with hard edges, which photographs have few of.

Ringing and blocks look like detail where bars or letters repeat every few pixels; a network learns
to tell them apart only from such pictures.
"""

from __future__ import annotations

import math
import string
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..extras import install_hint
from .config import TrainingError

SIDE_PX = 512
_OVERSAMPLING = 2
_ON_PHOTO_SHARE = 0.4
_ITEMS = (6, 24)
_LETTERS = string.ascii_letters + string.digits + " .,:;!?-+%&()/"


class _Drawer:
    """Draws items on a Pillow image, all from one generator."""

    def __init__(self, image: Any, generator: torch.Generator) -> None:
        from PIL import ImageDraw

        self.image, self.canvas, self.generator = image, ImageDraw.Draw(image), generator
        self.side = image.width

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        """One of `low` to `high - 1`."""
        return int(torch.randint(low, high, (), generator=self.generator))

    def spread(self, low: float, high: float) -> float:
        """Between both, small values as likely as large ones in proportion."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def color(self) -> tuple[int, int, int]:
        """Gray as often as coloured: print and signs mostly are."""
        if self.uniform(0, 1) < 0.5:
            return (self.integer(0, 256),) * 3
        return tuple(self.integer(0, 256) for _ in range(3))

    def place(self) -> tuple[float, float]:
        return self.uniform(-0.2, 0.9) * self.side, self.uniform(-0.1, 0.95) * self.side

    def text(self) -> None:
        from PIL import ImageFont

        size = self.spread(10, 80) * _OVERSAMPLING
        font = ImageFont.load_default(size)
        x, y = self.place()
        color = self.color()
        for line in range(self.integer(1, 8)):
            letters = [_LETTERS[self.integer(0, len(_LETTERS))] for _ in range(self.integer(2, 40))]
            self.canvas.text((x, y + 1.2 * size * line), "".join(letters), color, font)

    def bars(self) -> None:
        """Parallel bars, upright, level or slanted; crossed by others they make a grid."""
        period = self.spread(4, 40) * _OVERSAMPLING
        width = max(1, round(period * self.uniform(0.2, 0.8)))
        length, count = self.uniform(0.1, 0.8) * self.side, self.integer(3, 24)
        is_upright = self.uniform(0, 1) < 0.4
        slant = 0.0 if self.uniform(0, 1) < 0.5 else self.uniform(-0.5, 0.5)
        x, y = self.place()
        color = self.color()
        for index in range(count):
            start = (x + index * period, y) if is_upright else (x, y + index * period)
            step = (slant * length, length) if is_upright else (length, slant * length)
            end = (start[0] + step[0], start[1] + step[1])
            self.canvas.line([start, end], color, width)

    def shape(self) -> None:
        x, y = self.place()
        width, height = (self.spread(8, 200) * _OVERSAMPLING for _ in range(2))
        box = (x, y, x + width, y + height)
        outline = self.integer(0, 5) * _OVERSAMPLING
        fill = None if outline and self.uniform(0, 1) < 0.5 else self.color()
        draws = (self.canvas.rectangle, self.canvas.ellipse)
        draws[self.integer(0, 2)](box, fill=fill, outline=self.color(), width=outline)

    def rings(self) -> None:
        x, y = self.place()
        period, color = self.spread(4, 24) * _OVERSAMPLING, self.color()
        for index in range(self.integer(2, 12), 0, -1):
            radius = index * period
            box = (x - radius, y - radius, x + radius, y + radius)
            self.canvas.ellipse(box, outline=color, width=max(1, round(period / 2)))

    def item(self) -> None:
        kinds = (self.text, self.text, self.bars, self.bars, self.shape, self.rings)
        kinds[self.integer(0, len(kinds))]()


def _background(photos: list[Tensor], generator: torch.Generator) -> Any:
    """A crop of a photograph, or one colour; a Pillow image."""
    from PIL import Image

    side = SIDE_PX * _OVERSAMPLING
    is_photo = photos and float(torch.rand((), generator=generator)) < _ON_PHOTO_SHARE
    if is_photo:
        photo = photos[int(torch.randint(len(photos), (), generator=generator))][0]
        image = Image.fromarray(rearrange(photo, "c h w -> h w c").contiguous().numpy())
        short = min(image.size)
        left, top = ((length - short) // 2 for length in image.size)
        box = (left, top, left + short, top + short)
        return image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    image = Image.new("RGB", (side, side))
    image.paste(_Drawer(image, generator).color(), (0, 0, side, side))
    return image


def draw_stills(count: int, photos: list[Tensor], seed: int) -> list[Tensor]:
    """Draw stills, the same for the same seed, photographs and version of Pillow.

    Args:
        count: How many.
        photos: Decoded stills `1 3 h w`, uint8; some drawings go on top of one.
        seed: Any integer >= 0.

    Returns:
        `1 3 512 512`, uint8, each.

    Raises:
        TrainingError: Pillow is not installed, or cannot draw text in sizes.
    """
    try:
        from PIL import Image, ImageFont

        ImageFont.load_default(12)
    except (ImportError, TypeError) as error:
        raise TrainingError(
            f"drawn_stills needs Pillow 10.1 or newer: {install_hint('train')}"
        ) from error
    generator = torch.Generator().manual_seed(seed)
    stills = []
    for _ in range(count):
        drawer = _Drawer(_background(photos, generator), generator)
        for _ in range(drawer.integer(*_ITEMS)):
            drawer.item()
        small = drawer.image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
        stills.append(rearrange(pixels, "(t h w c) -> t c h w", t=1, h=SIDE_PX, c=3).contiguous())
    return stills
