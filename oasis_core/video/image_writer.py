"""Writing still pictures: PNG, JPEG, WebP and TIFF up to 16 bits, and EXR; with transparency."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from .color import BT601, FromRgb, plane_of
from .errors import AV_ERRORS, VideoError, reason
from .image_tags import ImageTags, with_tags
from .linear_light import decode_light

DEFAULT_QUALITY = 95
# FFmpeg's JPEG counts quantiser steps, 1 to 31; six of them give files as large as libjpeg's at
# quality 50 (measured on one photographic frame).
_JPEG_STEPS_AT_50 = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    encoder: str
    formats: dict[tuple[int, bool], str]
    """Pixel format by (bits, has alpha)."""
    max_side_px: int = 65_535

    @property
    def has_alpha(self) -> bool:
        return (8, True) in self.formats

    @property
    def max_bits(self) -> int:
        return max(bits for bits, _ in self.formats)


_PNG = _Format(
    encoder="png",
    formats={
        (8, False): "rgb24", (8, True): "rgba", (16, False): "rgb48be", (16, True): "rgba64be",
    },
)  # fmt: skip
_JPEG = _Format(encoder="mjpeg", formats={(8, False): "yuvj444p"})
_WEBP = _Format(
    encoder="libwebp", formats={(8, False): "bgra", (8, True): "bgra"}, max_side_px=16_383
)
_TIFF = _Format(
    encoder="tiff",
    formats={
        (8, False): "rgb24", (8, True): "rgba", (16, False): "rgb48le", (16, True): "rgba64le",
    },
)  # fmt: skip
_EXR = _Format(
    encoder="exr",
    formats={
        (8, False): "gbrpf32le", (8, True): "gbrapf32le",
        (16, False): "gbrpf32le", (16, True): "gbrapf32le",
    },
)  # fmt: skip
LIGHT_SUFFIX = ".exr"
"""Of the format that holds amounts of light."""
IMAGE_FORMATS = {
    ".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _WEBP, ".tif": _TIFF, ".tiff": _TIFF,
    LIGHT_SUFFIX: _EXR,
}  # fmt: skip
"""What can be written, by file ending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How pictures become files."""

    suffix: str
    """One of `IMAGE_FORMATS`."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    bits: int = 8
    """8 or 16 per component, as far as the format can."""
    has_alpha: bool = False
    """Whether to write transparency, as far as the format can."""
    is_linear: bool = False
    """Whether the source holds amounts of light without bounds."""
    quality: int = DEFAULT_QUALITY
    """1 to 100, for JPEG and WebP; 100 makes WebP lossless."""

    def __post_init__(self) -> None:
        kind = IMAGE_FORMATS.get(self.suffix)
        if kind is None:
            raise VideoError(
                f"a picture must end in one of {', '.join(IMAGE_FORMATS)}, got {self.suffix!r}"
            )
        if max(self.width, self.height) > kind.max_side_px:
            raise VideoError(
                f"{self.suffix} holds at most {kind.max_side_px} px on a side, got "
                f"{self.width}x{self.height}; write .png instead"
            )
        if not 1 <= self.quality <= 100:
            raise VideoError(f"quality must be from 1 to 100, got {self.quality}")
        if kind.encoder not in av.codecs_available:
            raise VideoError(
                f"this FFmpeg build (PyAV {av.__version__}) has no {kind.encoder} encoder for "
                f"{self.suffix}; write .png instead"
            )

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the format the encoder is fed."""
        kind = IMAGE_FORMATS[self.suffix]
        bits = 16 if self.bits > 8 and kind.max_bits > 8 else 8
        return kind.formats[bits, self.has_alpha and kind.has_alpha]

    @property
    def losses(self) -> tuple[str, ...]:
        """What the format cannot keep, one line each."""
        kind = IMAGE_FORMATS[self.suffix]
        lines = []
        if self.has_alpha and not kind.has_alpha:
            lines.append(f"transparency: {self.suffix} has none; write .png to keep it")
        if self.is_linear and self.suffix != LIGHT_SUFFIX:
            lines.append(
                f"light below 0 and above 1: limited, {self.suffix} holds coded values from 0 to "
                "1; write .exr to keep it"
            )
        elif self.bits > 8 and kind.max_bits == 8:
            lines.append(f"{self.bits} bits: {self.suffix} has 8; write .png to keep them")
        return tuple(lines)


class ImageEncoder:
    """Encodes pictures of one kind.

    Args:
        spec: how.
    """

    def __init__(self, spec: ImageSpec) -> None:
        self._spec = spec
        self._from_rgb: FromRgb | None = None
        if spec.suffix == LIGHT_SUFFIX:
            return
        self._from_rgb = FromRgb(
            width=spec.width,
            height=spec.height,
            pixel_format=spec.pixel_format.replace("yuvj", "yuv"),
            matrix=BT601,
            is_full=True,
            chroma_location=1,
        )

    def encode(
        self,
        pixels: np.ndarray,
        alpha: np.ndarray | None = None,
        tags: ImageTags | None = None,
        light: np.ndarray | None = None,
    ) -> bytes:
        """Return the bytes of a picture file.

        Args:
            pixels: `h w 3`, uint8 over 0..255 or uint16 over 0..65535.
            alpha: `h w` of the same type, where the spec has it.
            tags: colour profile and EXIF to put in.
            light: `h w 3` float32, for EXR instead of the pixels, which are 0 to 1.

        Raises:
            VideoError: the encoder refuses.
        """
        spec = self._spec
        if self._from_rgb is None:
            top = np.float32(np.iinfo(pixels.dtype).max)
            frame = _light_frame(
                decode_light(pixels / top) if light is None else light,
                None if alpha is None else alpha / np.float32(np.iinfo(alpha.dtype).max),
                spec.pixel_format,
            )
        else:
            frame = self._from_rgb(pixels, alpha)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        kind = IMAGE_FORMATS[spec.suffix]
        context = av.CodecContext.create(kind.encoder, "w")
        context.width, context.height, context.pix_fmt = spec.width, spec.height, spec.pixel_format
        context.time_base = frame.time_base
        context.options = self._options()
        if spec.pixel_format.startswith("yuvj"):
            frame = _as_format(frame, spec.pixel_format)
        try:
            data = b"".join(bytes(p) for p in (*context.encode(frame), *context.encode(None)))
        except AV_ERRORS as error:
            raise VideoError(
                f"{kind.encoder} cannot encode {spec.width}x{spec.height} px as "
                f"{spec.pixel_format} ({reason(error)}); write .png instead"
            ) from error
        has_alpha = spec.has_alpha and kind.has_alpha
        return with_tags(data, tags or ImageTags(), (spec.width, spec.height), has_alpha=has_alpha)

    def _options(self) -> dict[str, str]:
        quality = self._spec.quality
        encoder = IMAGE_FORMATS[self._spec.suffix].encoder
        if encoder == "mjpeg":
            # libjpeg's scale: steps fall linearly from 50 up, and grow as 1/quality below.
            coarseness = 50 / quality if quality < 50 else 2 - quality / 50
            step = str(min(31, max(1, round(coarseness * _JPEG_STEPS_AT_50))))
            return {"flags": "+bitexact", "qmin": step, "qmax": step, "threads": "1"}
        if encoder == "libwebp":
            lossless = "1" if quality == 100 else "0"
            return {"quality": str(quality), "lossless": lossless, "compression_level": "4"}
        if encoder == "exr":
            return {"format": "half", "compression": "zip16"}
        return {"compression_algo": "deflate"} if encoder == "tiff" else {"threads": "1"}


def _light_frame(light: np.ndarray, alpha: np.ndarray | None, name: str) -> av.VideoFrame:
    """Return an EXR encoder's frame: planes of green, blue, red, multiplied by alpha."""
    height, width, _ = light.shape
    frame = av.VideoFrame(width, height, name)
    if alpha is None and len(frame.planes) == 4:
        alpha = np.ones((height, width), np.float32)
    channels = [light[..., index] for index in (1, 2, 0)]
    if len(frame.planes) == 4:
        channels = [*(channel * alpha for channel in channels), alpha]
    for index, channel in enumerate(channels):
        plane_of(frame, index, np.float32)[...] = channel
    return frame


def _as_format(frame: av.VideoFrame, name: str) -> av.VideoFrame:
    """Copy planes into a frame of a format that differs in name only."""
    other = av.VideoFrame(frame.width, frame.height, name)
    for old, new in zip(frame.planes, other.planes, strict=True):
        new.update(bytes(old))
    other.pts, other.time_base = frame.pts, frame.time_base
    return other
