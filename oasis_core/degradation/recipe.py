"""Recipes: which operators run, in which order, with which parameters.

A recipe is drawn from a seed first and applied afterwards, so it can be printed, stored and run
again. The order of operators, their kinds and shares are RealBasicVSR's. The ranges of resize,
noise and JPEG are DLoRAL's milder ones: RealBasicVSR's own leave so little of a clip that a network
trained on them for fidelity learns to blur.

Source: RealBasicVSR, arXiv 2111.12704; DLoRAL, arXiv 2506.15591; Real-ESRGAN, arXiv 2107.10833;
OASIS, arXiv 2509.23980 (temporally consistent and inconsistent settings).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..choices import DEGRADATIONS
from . import operators
from .codec import DECODERS, is_available

PRESETS = DEGRADATIONS
"""Presets, from little to much."""
MIN_SIDE_PX = 8
_KERNEL_FAMILIES = ("gaussian", "gaussian", "generalized", "generalized", "plateau", "plateau")
_ISOTROPIC = (True, False, True, False, True, False)
_KERNEL_SHARES = (0.405, 0.225, 0.108, 0.027, 0.108, 0.027)
_SINC_SHARE = 0.1
_RESIZE_SHARES = ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
_RESIZE_RANGES = ((0.3, 1.5), (0.6, 1.2))
_SIGMA_RANGES = ((0.2, 3.0), (0.2, 1.5))
_NOISE_RANGES = ((1.0, 15.0), (1.0, 12.0))
_POISSON_RANGES = ((0.05, 2.0), (0.05, 1.0))
_JPEG_RANGES = ((60.0, 95.0), (60.0, 100.0))
_SECOND_BLUR_SHARE = 0.5
_FIRST_CODEC_SHARE = 0.5
CODECS = ("libx264", "libx264", "mpeg4")
"""Codecs and, by their number, their shares: RealBasicVSR's."""
# Constant quality in place of RealBasicVSR's bits per frame, which depend on the picture size.
_CRF_RANGE = (16.0, 32.0)
_QUALITY_RANGES = {
    "libx264": _CRF_RANGE,
    "libx265": _CRF_RANGE,
    "mpeg4": (2.0, 8.0),
    "libvpx-vp9": (24.0, 48.0),
}
# "clean": hardly softer than the resize itself makes it, noise of a good camera in good light, and
# in half of the clips a codec in the best quarter of its range.
_CLEAN_SIGMA_RANGE = (0.1, 0.6)
_CLEAN_NOISE_RANGE = (0.0, 2.0)
_CLEAN_CODEC_SHARE = 0.5
_CLEAN_QUALITY_SHARE = 0.25
# "web": a phone's or a platform's video. Softness in pixels of the degraded clip, a sensor's noise
# after the camera's own denoising, and the middle of the codec's range: CRF 20 to 28 of x264.
_WEB_SIGMA_RANGE = (0.2, 0.8)
_WEB_NOISE_RANGE = (1.0, 5.0)
_WEB_QUALITY_SHARES = (0.25, 0.75)
_WEB_OUTDATED = "mpeg4"
_LIGHT_SIGMA_RANGE = (0.3, 2.2)
_LIGHT_NOISE_RANGE = (0.0, 14.0)
# Share of its range that a parameter may move per frame in the inconsistent setting. RealBasicVSR
# walks so slowly that 32 frames hardly differ; a tenth makes the change visible within a segment.
_WALK_SHARE = 0.1


class DegradationError(ValueError):
    """A degradation was asked for that cannot be made; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operator and the parameters drawn for it."""

    operator: str
    """Name of the operator: blur, sinc, resize, gaussian, poisson, jpeg or codec."""
    params: dict[str, Any] = field(default_factory=dict)
    """Its parameters; a list holds one value per frame, or a single one for the whole clip."""


class _Drawer:
    """Draws parameters; per clip, or along a random walk through the frames."""

    def __init__(
        self, generator: torch.Generator, num_frames: int, walks: bool, codecs: tuple[str, ...]
    ) -> None:
        self.generator = generator
        self.codecs = codecs
        self.num_frames = num_frames if walks else 1

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def index(self, shares: tuple[float, ...]) -> int:
        weights = torch.tensor(shares)
        return int(torch.multinomial(weights, 1, generator=self.generator))

    def happens(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def sequence(self, low: float, high: float) -> list[float]:
        """One value per clip, or a clipped random walk of one value per frame."""
        value = self.uniform(low, high)
        values = [value]
        step = _WALK_SHARE * (high - low)
        for _ in range(self.num_frames - 1):
            value = min(high, max(low, value + self.uniform(-step, step)))
            values.append(value)
        return values


def _draw_blur(draw: _Drawer, order: int) -> Step:
    size = 2 * int(draw.uniform(3, 11)) + 1
    if draw.happens(_SINC_SHARE):
        low = math.pi / 3 if size < 13 else math.pi / 5
        return Step(operator="sinc", params={"size": size, "cutoff": draw.sequence(low, math.pi)})
    kind = draw.index(_KERNEL_SHARES)
    family, is_isotropic = _KERNEL_FAMILIES[kind], _ISOTROPIC[kind]
    sigma_x = draw.sequence(*_SIGMA_RANGES[order])
    beta = {"gaussian": (1.0, 1.0), "generalized": (0.5, 4.0), "plateau": (1.0, 2.0)}[family]
    params = {
        "size": size,
        "family": family,
        "sigma_x": sigma_x,
        "sigma_y": sigma_x if is_isotropic else draw.sequence(*_SIGMA_RANGES[order]),
        "angle": [0.0] if is_isotropic else draw.sequence(-math.pi, math.pi),
        "beta": draw.sequence(*beta),
    }
    return Step(operator="blur", params=params)


def _draw_resize(draw: _Drawer, order: int) -> Step:
    low, high = _RESIZE_RANGES[order]
    direction = draw.index(_RESIZE_SHARES[order])
    factor = (draw.uniform(1, high), draw.uniform(low, 1), 1.0)[direction]
    mode = operators.RESIZE_MODES[draw.index((1.0, 1.0, 1.0))]
    return Step(operator="resize", params={"factor": factor, "mode": mode})


def _draw_noise(draw: _Drawer, order: int) -> Step:
    is_gray = draw.happens(0.4)
    if draw.happens(0.5):
        sigma = [value / 255 for value in draw.sequence(*_NOISE_RANGES[order])]
        return Step(operator="gaussian", params={"sigma": sigma, "gray": is_gray})
    scale = draw.sequence(*_POISSON_RANGES[order])
    return Step(operator="poisson", params={"scale": scale, "gray": is_gray})


def _draw_jpeg(draw: _Drawer, order: int) -> Step:
    return Step(operator="jpeg", params={"quality": draw.sequence(*_JPEG_RANGES[order])})


def _draw_codec(draw: _Drawer, low_share: float = 0.0, high_share: float = 1.0) -> Step:
    """An encoder, and a quality between two shares of its range; 0 is the best."""
    codec = draw.codecs[draw.index((1.0,) * len(draw.codecs))]
    best, worst = _QUALITY_RANGES[codec]
    width = worst - best
    quality = draw.uniform(best + low_share * width, best + high_share * width)
    return Step(operator="codec", params={"codec": codec, "quality": quality})


def _draw_simple(
    draw: _Drawer, sigma_range: tuple[float, float], noise_range: tuple[float, float]
) -> list[Step]:
    """Gaussian blur, downscale, Gaussian noise."""
    sigma = [draw.uniform(*sigma_range)]
    params = {"size": 15, "family": "gaussian", "sigma_x": sigma, "sigma_y": sigma}
    noise = [draw.uniform(*noise_range) / 255]
    return [
        Step(operator="blur", params={**params, "angle": [0.0], "beta": [1.0]}),
        Step(operator="resize", params={"factor": None, "mode": "bicubic"}),
        Step(operator="gaussian", params={"sigma": noise, "gray": False}),
    ]


def _draw_web(draw: _Drawer) -> list[Step]:
    """Downscale, slight blur, Gaussian noise, one codec of today."""
    sigma = [draw.uniform(*_WEB_SIGMA_RANGE)]
    blur = {"size": 7, "family": "gaussian", "sigma_x": sigma, "sigma_y": sigma}
    noise = [draw.uniform(*_WEB_NOISE_RANGE) / 255]
    # Neither phones nor platforms write it, so it is drawn only where nothing else is named.
    draw.codecs = tuple(name for name in draw.codecs if name != _WEB_OUTDATED) or draw.codecs
    return [
        Step(operator="resize", params={"factor": None, "mode": "bicubic"}),
        Step(operator="blur", params={**blur, "angle": [0.0], "beta": [1.0]}),
        Step(operator="gaussian", params={"sigma": noise, "gray": False}),
        _draw_codec(draw, *_WEB_QUALITY_SHARES),
    ]


def check_codecs(codecs: Sequence[str]) -> tuple[str, ...]:
    """The codecs, if all of them can be used.

    Raises:
        DegradationError: None is named, or one is unknown or missing in this PyAV.
    """
    for codec in codecs:
        if codec not in DECODERS:
            raise DegradationError(f"codec must be one of {', '.join(DECODERS)}, got {codec!r}")
        if not is_available(codec):
            raise DegradationError(
                f"codec {codec} is not in this build of PyAV; leave it out or install another one"
            )
    if not codecs:
        raise DegradationError(f"codecs must name at least one of {', '.join(DECODERS)}")
    return tuple(codecs)


def draw_recipe(
    preset: str,
    *,
    num_frames: int,
    scale: float,
    generator: torch.Generator,
    codecs: tuple[str, ...] = CODECS,
) -> tuple[Step, ...]:
    """Draw the steps of one clip.

    Args:
        preset: "light" (blur, downscale, Gaussian noise), "consistent" (the second-order
            real-world chain, parameters constant in the clip), "inconsistent" (the same chain,
            parameters walk from frame to frame), "clean" (downscale, hardly any blur and noise,
            at most a good codec: generated video, a good master) or "web" (downscale, slight blur,
            noise of 1 to 5 levels, a codec at middling quality: phone and web video).
        num_frames: Frames of the clip.
        scale: Factor between the sharp and the degraded side, >= 1.
        generator: Source of randomness.
        codecs: Encoders to draw from, from `check_codecs`; one named twice is twice as likely.

    Returns:
        The steps in order; the last resize goes to the degraded size.

    Raises:
        DegradationError: Unknown preset or scale below 1.
    """
    if preset not in PRESETS:
        raise DegradationError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if not 1 <= scale <= 16:
        raise DegradationError(f"scale must be in [1, 16], got {scale}")
    draw = _Drawer(generator, num_frames, preset == "inconsistent", codecs)
    if preset == "light":
        return tuple(_draw_simple(draw, _LIGHT_SIGMA_RANGE, _LIGHT_NOISE_RANGE))
    if preset == "clean":
        steps = _draw_simple(draw, _CLEAN_SIGMA_RANGE, _CLEAN_NOISE_RANGE)
        if draw.happens(_CLEAN_CODEC_SHARE):
            steps.append(_draw_codec(draw, 0.0, _CLEAN_QUALITY_SHARE))
        return tuple(steps)
    if preset == "web":
        return tuple(_draw_web(draw))
    steps = [_draw_blur(draw, 0), _draw_resize(draw, 0), _draw_noise(draw, 0)]
    steps.append(_draw_jpeg(draw, 0))
    if draw.happens(_FIRST_CODEC_SHARE):
        steps.append(_draw_codec(draw))
    if draw.happens(_SECOND_BLUR_SHARE):
        steps.append(_draw_blur(draw, 1))
    steps += [_draw_resize(draw, 1), _draw_noise(draw, 1), _draw_jpeg(draw, 1)]
    last = operators.RESIZE_MODES[draw.index((1.0, 1.0, 1.0))]
    final_group = [Step(operator="resize", params={"factor": None, "mode": last})]
    if draw.happens(0.8):
        params = {"size": 15, "cutoff": draw.sequence(math.pi / 3, math.pi)}
        final_group.append(Step(operator="sinc", params=params))
    codec = [_draw_codec(draw)]
    steps += codec + final_group if draw.happens(0.5) else final_group + codec
    return tuple(steps)
