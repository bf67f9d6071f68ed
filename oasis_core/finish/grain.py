"""Film grain: what it is like, and laying it on finished pictures.

The grain of a picture depends on the seed and on the number of its frame alone, so that it is the
same however the film is cut into segments, wherever these are done and in whatever order. It is
drawn from a counter-based generator as whole numbers, which are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)
"""Share of red, green and blue in brightness (BT.709), on coded values."""
_RED_OF_CR, _BLUE_OF_CB = 2 * (1 - LUMA[0]), 2 * (1 - LUMA[2])

PIXEL_SIZE = 12**-0.5
"""Standard deviation of a pixel's own square, in pixels: grain that is finer looks the same."""

MOST_SIGMA = 0.06
"""Of full scale: the grain of middle grey at amount 1."""
# Strength over brightness, from black to white, of the amounts: as on a print, most below the
# middle, little in the lights and none that would lift black.
_PRINT = (0.3, 0.7, 0.9, 1.0, 1.0, 1.0, 0.9, 0.75, 0.6, 0.45, 0.3)
# A print's grain at 1080 lines, in lines: seen from where the whole picture is looked at, it is as
# large at every resolution.
_PRINT_SIZE_PX, _PRINT_COLOR_SIZE_PX, _PRINT_LINES = 0.7, 1.0, 1080
_PRINT_COLOR = 0.25

# Blur kernels end where they have fallen to a thousandth.
_REACH = 3.7
# The sum of this many bytes is near enough to a bell curve, and the blur brings it nearer.
_BYTES_PER_SAMPLE = 4
_BYTE_VARIANCE = (256**2 - 1) / 12
_TABLE = 1024
_STRIP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GrainProfile:
    """What grain is like: how strong by brightness, how large, how colourful."""

    sigma: tuple[float, ...]
    """Standard deviation of brightness, of full scale, at brightnesses evenly from 0 to 1."""
    size_px: tuple[float, float]
    """(width, height) of a grain: the standard deviation of the bell curve that white noise would
    have to be blurred with, in pixels."""
    color: tuple[float, float]
    """Standard deviation of (Cb, Cr) over that of brightness."""
    color_size_px: tuple[float, float]
    """As `size_px`, of Cb and Cr."""

    @property
    def is_none(self) -> bool:
        """Whether there is no grain at all."""
        return not any(self.sigma)

    def to_json(self) -> dict[str, Any]:
        """The profile as plain JSON values."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GrainProfile:
        """The profile of `to_json`."""
        return cls(**{name: tuple(value) for name, value in values.items()})

    def enlarged(self, scale: tuple[float, float]) -> GrainProfile:
        """The same grain in a picture with (width, height) `scale` times the pixels.

        Args:
            scale: Of the result over the source.
        """
        return replace(
            self,
            size_px=_enlarged(self.size_px, scale),
            color_size_px=_enlarged(self.color_size_px, scale),
        )


def _enlarged(size_px: tuple[float, float], scale: tuple[float, float]) -> tuple[float, float]:
    return tuple(max(s, PIXEL_SIZE) * f for s, f in zip(size_px, scale, strict=True))


def print_grain(amount: float, height: int) -> GrainProfile:
    """The grain of a film print, in an amount that was asked for.

    Args:
        amount: 0 to 1.
        height: Lines of the shorter side of the result, which decide how large a grain is.
    """
    lines = height / _PRINT_LINES
    return GrainProfile(
        sigma=tuple(MOST_SIGMA * amount * share for share in _PRINT),
        size_px=(_PRINT_SIZE_PX * lines,) * 2,
        color=(_PRINT_COLOR,) * 2,
        color_size_px=(_PRINT_COLOR_SIZE_PX * lines,) * 2,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grain:
    """The grain of a job, found once."""

    profile: GrainProfile
    """In pixels of the result."""
    left: float | None = None
    """Of the source's own grain: the share of its strength that the model leaves in the picture.
    None: the grain is not the source's, and all of it is laid."""
    seed: int = 0
    """Another seed is another grain of the same kind."""

    def __str__(self) -> str:
        if self.profile.is_none:
            return "no grain, the source has none"
        size = sum(self.profile.size_px) / 2
        text = f"grain of {255 * max(self.profile.sigma):.1f}/255, {size:.1f} px"
        return text if self.left is None else f"{text}, the model leaves {100 * self.left:.0f} %"

    def to_json(self) -> dict[str, Any]:
        """The grain as plain JSON values."""
        return {"profile": self.profile.to_json(), "left": self.left, "seed": self.seed}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Grain:
        """The grain of `to_json`."""
        return cls(**{**values, "profile": GrainProfile.from_json(values["profile"])})

    def share(self, strength: float, mask: Tensor | None) -> Tensor | float:
        """How much of it is to be laid, so that with what is in the picture it is all.

        Args:
            strength: Share of the model's work in the picture.
            mask: `h w` in [0, 1], the same for each pixel; None is 1 everywhere.

        Returns:
            0 to 1, `h w` or one number for all; 0 where the mask is.
        """
        if self.left is None:
            return 1.0 if mask is None else mask
        # Where the model counts little, the resized source still has most of its grain. Both are
        # the same grain, so that their strengths add up, and with another one's squares do.
        gone = strength * (1 - self.left) * (1.0 if mask is None else mask)
        return (1 - (1 - gone) ** 2) ** 0.5


class GrainLayer:
    """Lays grain on the finished pictures of a job.

    Args:
        grain: What.
        device: Where the pictures are.
    """

    def __init__(self, grain: Grain, device: torch.device) -> None:
        profile = grain.profile
        self._seed, self._device = grain.seed, device
        self._sigma = _table(profile.sigma).to(device)
        self._color = profile.color
        self._kernels = (profile.size_px, profile.color_size_px, profile.color_size_px)

    @torch.inference_mode()
    def lay_(self, picture: Tensor, number: int, share: Tensor | float = 1.0) -> None:
        """Lay grain on one picture, in place.

        Nothing is lifted from black or pushed below white: a value moves at most as far as the
        nearer end of the scale is away, so that brightness stays on average, and bars stay black.

        Args:
            picture: `3 h w` float32 in [0, 1].
            number: Of its frame in the job, from 0.
            share: Of the strength, for each pixel `h w` or for all; where it is 0 the picture stays
                as it is, bit for bit.
        """
        height, width = picture.shape[1:]
        planes = 3 if any(self._color) else 1
        noise = [self.noise(number, plane, height, width) for plane in range(planes)]
        for top in range(0, height, _STRIP):
            rows = slice(top, top + _STRIP)
            part = share if isinstance(share, float) else share[rows]
            self._lay_strip(picture[:, rows], [plane[rows] for plane in noise], part)

    def _lay_strip(self, picture: Tensor, noise: list[Tensor], share: Tensor | float) -> None:
        """Lay noise on some rows, so few that the processor's cache holds all that is needed."""
        luma = picture[0] * LUMA[0]
        luma.add_(picture[1], alpha=LUMA[1]).add_(picture[2], alpha=LUMA[2])
        strength = self._sigma[luma.mul_(_TABLE - 1).round_().to(torch.int32)]
        strength *= share
        bright = noise[0].mul_(strength)
        offsets = [bright, bright, bright]
        if len(noise) == 3:
            blue, red = noise[1].mul_(strength), noise[2].mul_(strength)
            blue, red = blue.mul_(self._color[0]), red.mul_(self._color[1])
            offsets[0] = bright.add(red, alpha=_RED_OF_CR)
            offsets[1] = bright.sub(blue, alpha=LUMA[2] * _BLUE_OF_CB / LUMA[1])
            offsets[1].sub_(red, alpha=LUMA[0] * _RED_OF_CR / LUMA[1])
            offsets[2] = bright.add(blue, alpha=_BLUE_OF_CB)
        for plane, offset in zip(picture, offsets, strict=True):
            most = plane * 2
            least = (most - 1).clamp_(min=0)
            torch.add(plane, offset, out=plane)
            torch.minimum(torch.maximum(plane, least, out=plane), most.clamp_(max=1), out=plane)

    def noise(self, number: int, plane: int, height: int, width: int) -> Tensor:
        """Noise of standard deviation 1 and mean 0 with the grain's correlation.

        Args:
            number: Of the frame.
            plane: 0 brightness, 1 Cb, 2 Cr.
            height: Pixels.
            width: Likewise.

        Returns:
            `h w` float32.
        """
        columns, rows = (_kernel(size) for size in self._kernels[plane])
        more_rows, more_columns = len(rows) - 1, len(columns) - 1
        white = _white(self._seed, number, plane, height + more_rows, width + more_columns)
        field = torch.from_numpy(white).to(self._device, torch.float32)
        # Exactly what four bytes give: mean and variance.
        field -= _BYTES_PER_SAMPLE * 127.5
        field /= math.sqrt(_BYTES_PER_SAMPLE * _BYTE_VARIANCE)
        return _blurred(_blurred(field, rows, 0), columns, 1)


def _white(seed: int, number: int, plane: int, height: int, width: int) -> np.ndarray:
    """Sums of random bytes, `h w` int16, told by seed, frame and plane alone."""
    generator = np.random.Philox(key=seed, counter=[0, 0, number, plane])
    num_samples = height * width
    num_words = -(-num_samples * _BYTES_PER_SAMPLE // 8)
    # Little end first, whatever the machine's order is.
    raw = generator.random_raw(num_words).astype("<u8", copy=False).view(np.uint8)
    parts = raw[: num_samples * _BYTES_PER_SAMPLE].reshape(_BYTES_PER_SAMPLE, height, width)
    return parts.sum(axis=0, dtype=np.int16)


def _kernel(size_px: float) -> tuple[float, ...]:
    """A bell curve that keeps the variance of white noise; (1.0,) where nothing is blurred."""
    if size_px <= PIXEL_SIZE:
        return (1.0,)
    reach = max(1, round(_REACH * size_px))
    values = [math.exp(-0.5 * (x / size_px) ** 2) for x in range(-reach, reach + 1)]
    norm = math.sqrt(sum(value * value for value in values))
    return tuple(value / norm for value in values)


def _blurred(field: Tensor, kernel: tuple[float, ...], dim: int) -> Tensor:
    """A field filtered along one axis, without its margins.

    Shifted copies are added up one after the other: a convolution of the library may add in another
    order on another number of threads.
    """
    if len(kernel) == 1:
        return field
    length = field.shape[dim] - len(kernel) + 1
    total = field.narrow(dim, 0, length) * kernel[0]
    for index, weight in enumerate(kernel[1:], start=1):
        total.add_(field.narrow(dim, index, length), alpha=weight)
    return total


def _table(sigma: tuple[float, ...]) -> Tensor:
    """Strength at `_TABLE` brightnesses, straight between the given ones."""
    at = np.linspace(0, len(sigma) - 1, _TABLE)
    return torch.from_numpy(np.interp(at, range(len(sigma)), sigma).astype(np.float32))
