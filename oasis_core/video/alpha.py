"""Transparency: reading it from any pixel format, and colours under it that do not bleed.

Alpha is taken as straight (not premultiplied), as FFmpeg's formats are: the colour of a fully
transparent pixel means nothing, and a filter that looks at neighbours must not see it.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from ..remote import RemoteFile
from .color import convert, plane_of, rescale
from .containers import open_video
from .errors import AV_ERRORS
from .info import bit_depth_of
from .linear_light import is_float, is_wide, samples_of

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def alpha_of(frame: av.VideoFrame) -> np.ndarray:
    """Return the transparency of a decoded frame.

    Args:
        frame: in a format that has alpha, or a palette.

    Returns:
        `h w` as stored (not turned): uint8 up to 8 bits a component, else uint16 over 0..65535;
        0 is transparent.
    """
    name, bits = frame.format.name, bit_depth_of(frame.format)
    if name.startswith(("yuva", "gbrap")) and name.endswith("p"):
        return plane_of(frame, 3, np.uint8).copy()
    if name.startswith(("yuva", "gbrap")) and name.endswith("le"):
        codes = plane_of(frame, 3, np.uint16)
        return codes.copy() if bits == 16 else rescale(codes, 2**bits - 1, 65535)
    if is_float(frame.format) or is_wide(frame.format):
        cover = np.clip(np.nan_to_num(samples_of(frame)[..., -1]), 0, 1)
        return np.rint(cover * 65535).astype(np.uint16)
    packed = convert(frame, "rgba64le" if bits > 8 else "rgba")
    return np.ascontiguousarray(packed.to_ndarray()[..., 3])


def decoder_with_alpha(
    stream: av.VideoStream,
) -> tuple[av.VideoCodecContext, tuple[str, ...]]:
    """Return what decodes a film, with its transparency; and a line if that is lost.

    WebM keeps the transparency of VP8 and VP9 beside each packet, where FFmpeg's own decoders do
    not look; libvpx does.

    Args:
        stream: of an opened file.
    """
    context = stream.codec_context
    mode = next((v for k, v in stream.metadata.items() if k.lower() == "alpha_mode"), "0")
    if mode != "1" or context.name not in _WITH_ALPHA:
        return context, ()
    try:
        decoder = av.CodecContext.create(_WITH_ALPHA[context.name], "r")
        decoder.thread_count = 1
        decoder.open()
    except (*AV_ERRORS, ValueError):
        return context, ("transparency: this FFmpeg build has no libvpx, which alone reads it",)
    return decoder, ()


def has_clear_pixels(path: Path | RemoteFile) -> bool:
    """Whether any picture of a GIF is transparent somewhere; all are decoded until one is.

    FFmpeg gives every GIF alpha, and the first picture may well be the only opaque one.

    Args:
        path: a file that can be opened.
    """
    container, stream = open_video(path, allow_truncated=True)
    with container:
        try:
            return any((alpha_of(frame) == 0).any() for frame in container.decode(stream))
        except AV_ERRORS:  # said by whoever reads the pictures
            return False


def bleed(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give fully transparent pixels the colours around them.

    What stood there (black, most often) would otherwise leak into the visible edge with every
    filter and every model. Colours spread outwards through a pyramid of means over the visible
    pixels; those are returned unchanged.

    Args:
        pixels: `h w 3` uint8 or uint16, or float32 of any range.
        alpha: `h w` uint8 or uint16, of the same type as integer pixels.

    Returns:
        `h w 3` of the same type; the same array where nothing is transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    is_float = pixels.dtype.kind == "f"
    weight = alpha.astype(np.float32)[..., None] / np.float32(np.iinfo(alpha.dtype).max)
    levels = [(pixels * weight, weight)]
    while max(levels[-1][1].shape[:2]) > 1 and not levels[-1][1].all():
        levels.append(tuple(_halved(values) for values in levels[-1]))
    color, total = levels[-1]
    filled = color / np.maximum(total, np.float32(1e-12))
    for color, total in reversed(levels[:-1]):
        rough = filled.repeat(2, 0).repeat(2, 1)[: color.shape[0], : color.shape[1]]
        own = color / np.maximum(total, np.float32(1e-12))
        filled = np.where(total > 0, own, rough)
    result = pixels.copy()
    if is_float:
        result[hidden] = filled[hidden]
    else:
        top = np.iinfo(pixels.dtype).max
        result[hidden] = np.clip(filled[hidden] + np.float32(0.5), 0, top).astype(pixels.dtype)
    return result


def _halved(values: np.ndarray) -> np.ndarray:
    """Return sums of 2x2 pixels, `h w c`; odd sides are padded with nothing."""
    height, width, _ = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
