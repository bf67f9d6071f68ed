"""Floating-point pictures: amounts of light, and the coded values that a model works on.

A model knows coded values in [0, 1]. Light is coded by sRGB's curve up to 1 and by a logarithm of
the same slope above, so that 1,000 becomes 4.04. The part in [0, 1] goes the way of any picture;
what lies outside, the excess, is resized beside it and added again. So nothing is clipped, and
where nothing is changed the same half-precision values come out.

Source of the lower part: IEC 61966-2-1, clause 5.2.
"""

from __future__ import annotations

import logging
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

log = logging.getLogger(__name__)

MAX_HALF = 65504.0
_SLOPE = 1.055 / 2.4
_TOE = 0.0031308
_FLOAT = re.compile(r"f(16|32)(le|be)$")
_WIDE = re.compile(r"(gray32|rgb96|rgba128|gbrap32)(le|be)$")
_EXR_MAGIC = b"v/1\x01"
# What the writer makes anew, and what says nothing about the picture.
_EXR_OWN = frozenset(
    (
        "channels", "compression", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio",
        "screenWindowCenter", "screenWindowWidth", "type", "version", "chunkCount", "tiles",
        "gamma", "writer", "name", "dwaCompressionLevel",
    )
)  # fmt: skip
_EXR_READ = ("R", "G", "B", "A", "Y")
_EXR_FLOAT = 2
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExrHeader:
    """What an OpenEXR file has beside the samples that are read."""

    other_channels: tuple[str, ...]
    """Depth, normals, layers, and so on."""
    attributes: tuple[str, ...]
    """Chromaticities, time code, and so on."""
    is_deep: bool
    """Whether its samples are 32-bit numbers."""


def is_float(pixel_format: av.VideoFormat) -> bool:
    """Return whether samples are floating-point numbers."""
    return _FLOAT.search(pixel_format.name) is not None


def light_of(
    frame: av.VideoFrame, *, is_premultiplied: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the light of a decoded floating-point picture, as stored (not turned).

    Args:
        frame: RGB or grey, planar or packed, with or without alpha.
        is_premultiplied: whether colours are multiplied by alpha, as in OpenEXR.

    Returns:
        `h w 3` float32, finite and not premultiplied, and `h w` float32 alpha in [0, 1] or None.
    """
    samples = samples_of(frame)
    has_alpha = samples.shape[-1] in (2, 4)
    light = samples[..., :-1] if has_alpha else samples
    light = _finite(np.repeat(light, 3, axis=2) if light.shape[-1] == 1 else light)
    if not has_alpha:
        return light, None
    alpha = np.clip(np.nan_to_num(samples[..., -1]), 0, 1)
    return _straight(light, alpha) if is_premultiplied else (light, alpha)


def samples_of(frame: av.VideoFrame) -> np.ndarray:
    """Return the samples of a picture of 16- or 32-bit numbers that swscale may not know.

    Args:
        frame: of floating-point numbers, or of 32-bit integers.

    Returns:
        `h w c` float32: grey, or red, green and blue, then alpha if it has it; integers over 0..1.
    """
    name = frame.format.name
    order = ">" if name.endswith("be") else "<"
    if is_float(frame.format):
        dtype = np.dtype(f"{order}f{int(_FLOAT.search(name).group(1)) // 8}")
    else:
        dtype = np.dtype(f"{order}u4")
    num_channels = len(frame.format.components)
    if len(frame.planes) == 1:
        rows = np.frombuffer(frame.planes[0], dtype).reshape(frame.height, -1)
        samples = rows[:, : frame.width * num_channels].reshape(frame.height, -1, num_channels)
    else:
        planes = [
            np.frombuffer(plane, dtype).reshape(frame.height, -1)[:, : frame.width]
            for plane in frame.planes
        ]
        samples = np.stack([planes[index] for index in (2, 0, 1, 3)[:num_channels]], axis=-1)
    if dtype.kind == "u":
        return (samples / np.float64(0xFFFFFFFF)).astype(np.float32)
    return samples.astype(np.float32)


def is_wide(pixel_format: av.VideoFormat) -> bool:
    """Return whether samples are 32-bit integers, which swscale cannot convert."""
    return _WIDE.match(pixel_format.name) is not None


def _finite(light: np.ndarray) -> np.ndarray:
    num_bad = int((~np.isfinite(light)).sum())
    if num_bad:
        log.warning("%d samples are not finite numbers; NaN becomes 0, infinity 65504", num_bad)
    return np.nan_to_num(light, nan=0.0, posinf=MAX_HALF, neginf=-MAX_HALF)


def _straight(light: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide by alpha: OpenEXR holds colours that are multiplied by it."""
    hidden = alpha <= 0
    glowing = int((hidden & (light != 0).any(axis=-1)).sum())
    if glowing:
        log.warning("%d pixels glow without covering (colour at alpha 0); dropped", glowing)
    straight = light / np.where(hidden, 1, alpha)[..., None]
    straight[hidden] = 0
    return np.clip(straight, -MAX_HALF, MAX_HALF), alpha


def encode_light(light: np.ndarray) -> np.ndarray:
    """Return coded values of light; 0 stays 0, 1 stays 1, and negative light is mirrored.

    Args:
        light: float32 of any shape, finite.
    """
    size = np.abs(light)
    inside = np.minimum(size, 1)
    curve = 1.055 * inside ** (1 / 2.4) - 0.055
    coded = np.where(inside <= _TOE, 12.92 * inside, curve)
    coded += _SLOPE * np.log(np.maximum(size, 1))
    return np.copysign(coded, light).astype(np.float32)


def decode_light(coded: np.ndarray) -> np.ndarray:
    """Return the light that `encode_light` coded.

    Args:
        coded: float32 of any shape.
    """
    size = np.abs(coded)
    inside = np.minimum(size, 1)
    curve = ((inside + 0.055) / 1.055) ** 2.4
    light = np.where(inside <= 12.92 * _TOE, inside / 12.92, curve)
    light = light * np.exp((np.maximum(size, 1) - 1) / _SLOPE)
    return np.copysign(light, coded).astype(np.float32)


def split_light(light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture that every format can hold, and what it lacks.

    Args:
        light: `h w 3` float32, finite.

    Returns:
        `h w 3` uint16 coded values over 0..65535, and `h w 3` float32: coded values minus those.
    """
    coded = encode_light(light)
    pixels = np.rint(np.clip(coded, 0, 1) * np.float32(65535)).astype(np.uint16)
    return pixels, coded - pixels.astype(np.float32) / np.float32(65535)


def to_half_bits(light: np.ndarray) -> np.ndarray:
    """Return light as the bits of half-precision numbers, which any 16-bit codec keeps exactly.

    Args:
        light: float32 of any shape.

    Returns:
        uint16 of the same shape.
    """
    return np.clip(light, -MAX_HALF, MAX_HALF).astype(np.float16).view(np.uint16)


def from_half_bits(bits: np.ndarray) -> np.ndarray:
    """Return the light of `to_half_bits`, float32."""
    return np.ascontiguousarray(bits).view(np.float16).astype(np.float32)


def read_exr_header(path: Path) -> ExrHeader:
    """Return what the header of an OpenEXR file says; of other files nothing.

    Args:
        path: the file.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_HEADER_BYTES)
    channels: dict[str, int] = {}
    attributes: list[str] = []
    place = 8
    try:
        while data.startswith(_EXR_MAGIC) and data[place] != 0:
            name, place = _text(data, place)
            _, place = _text(data, place)
            size = struct.unpack_from("<I", data, place)[0]
            value, place = data[place + 4 : place + 4 + size], place + 4 + size
            if name == "channels":
                channels = _channels(value)
            elif name not in _EXR_OWN:
                attributes.append(name)
    except (IndexError, ValueError, struct.error) as error:
        log.debug("%s: its header cannot be read (%s)", path.name, error)
    return ExrHeader(
        other_channels=tuple(name for name in channels if name not in _EXR_READ),
        attributes=tuple(attributes),
        is_deep=any(channels.get(name) == _EXR_FLOAT for name in _EXR_READ),
    )


def _channels(value: bytes) -> dict[str, int]:
    kinds, place = {}, 0
    while value[place] != 0:
        name, place = _text(value, place)
        kinds[name] = struct.unpack_from("<i", value, place)[0]
        place += 16
    return kinds


def _text(data: bytes, place: int) -> tuple[str, int]:
    end = data.index(b"\x00", place)
    return data[place:end].decode("latin-1"), end + 1
