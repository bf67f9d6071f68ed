"""HDR10 side data: what the mastering display could show and how bright the film gets.

PyAV shows it on decoded frames and cannot attach it to encoders, so it is handed to those that take
it as a parameter; it then travels inside the coded pictures.

Source: FFmpeg, libavutil/mastering_display_metadata.h (layout of the structures); SMPTE ST 2086 and
CTA-861.3 (meaning); the units are those of H.265 annex D.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_COLOR_UNITS, _LIGHT_UNITS = 50_000, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HdrMetadata:
    """Static HDR metadata, as whole numbers of H.265's units; empty where unknown."""

    mastering: tuple[int, ...] = ()
    """Red x, y, green x, y, blue x, y, white x, y in 1/50000; largest, least cd/m2 in 1/10000."""
    light_level: tuple[int, ...] = ()
    """MaxCLL and MaxFALL in cd/m2."""

    def __bool__(self) -> bool:
        return bool(self.mastering or self.light_level)


def hdr_of(side_data: dict[str, bytes]) -> HdrMetadata:
    """Return the static HDR metadata in a decoded frame's side data."""
    mastering = side_data.get("MASTERING_DISPLAY_METADATA")
    light = side_data.get("CONTENT_LIGHT_LEVEL")
    level = struct.unpack_from("=2I", light) if light else ()
    return HdrMetadata(
        mastering=_mastering(mastering) if mastering else (),
        light_level=level if any(level) else (),
    )


def _mastering(data: bytes) -> tuple[int, ...]:
    *numbers, has_primaries, has_luminance = struct.unpack_from("=22i", data)
    if not (has_primaries and has_luminance) or 0 in numbers[1::2]:
        return ()
    values = [a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    darkest, brightest = values[8:]
    colors = [round(value * _COLOR_UNITS) for value in values[:8]]
    return (*colors, round(brightest * _LIGHT_UNITS), round(darkest * _LIGHT_UNITS))


def x265_params(hdr: HdrMetadata) -> str:
    """Return parameters for x265, to be appended to others."""
    text = ""
    if hdr.mastering:
        text += f":master-display={_display(hdr.mastering)}"
    if hdr.light_level:
        text += ":max-cll={},{}".format(*hdr.light_level)
    return text


def x264_params(hdr: HdrMetadata) -> str:
    """Return parameters for x264, to be appended to others."""
    text = ""
    if hdr.mastering:
        text += f":mastering-display={_display(hdr.mastering)}"
    if hdr.light_level:
        text += ":cll={},{}".format(*hdr.light_level)
    return text


def svtav1_params(hdr: HdrMetadata) -> str:
    """Return parameters for SVT-AV1, to be appended to others; it takes plain numbers."""
    text = ""
    if hdr.mastering:
        colors = [f"{value / _COLOR_UNITS:.5f}" for value in hdr.mastering[:8]]
        light = [f"{value / _LIGHT_UNITS:.4f}" for value in hdr.mastering[8:]]
        text += f":mastering-display={_display((*colors, *light))}"
    if hdr.light_level:
        text += ":content-light={},{}".format(*hdr.light_level)
    return text


def _display(values: tuple[object, ...]) -> str:
    red, green, blue = values[:2], values[2:4], values[4:6]
    pairs = zip("GBR", (green, blue, red), strict=True)
    text = "".join(f"{name}({x},{y})" for name, (x, y) in pairs)
    return text + "WP({},{})L({},{})".format(*values[6:])
