"""YUV to RGB and back with the file's own matrix and range, to half a code value.

8-bit pictures go through swscale with accurate rounding; without it, it is off by up to 2.7 codes
and by 1.1 on average. Deeper pictures and full-range output are calculated here in float32:
swscale's
16-bit RGB reaches only 65280 for white, and the swscale of FFmpeg 8 writes full-range chroma half
a code low (both measured).

A file that does not name its matrix is taken as players (mpv's rule) take it: BT.709 when it is
1280 or more pixels long or more than 576 high, BT.601 below. One that does not name its range is
limited, unless its pixel format says full.
"""

from __future__ import annotations

import logging
from fractions import Fraction

import av
import av.filter
import numpy as np

from .errors import AV_ERRORS, VideoError
from .info import UNSPECIFIED, ColorTags, bit_depth_of
from .linear_light import is_float, is_wide, samples_of

log = logging.getLogger(__name__)

RGB_MATRIX, BT709, BT601 = 0, 1, 6
LIMITED, FULL = 1, 2

# AVColorSpace: swscale's name, then the weights of red and blue in luma (H.273, table 4).
_MATRICES: dict[int, tuple[str, float, float]] = {
    1: ("bt709", 0.2126, 0.0722),
    4: ("fcc", 0.30, 0.11),
    5: ("bt470", 0.299, 0.114),
    6: ("smpte170m", 0.299, 0.114),
    7: ("smpte240m", 0.212, 0.087),
    9: ("bt2020", 0.2627, 0.0593),
    10: ("bt2020", 0.2627, 0.0593),
}
# WebP is video inside and says nothing; JPEG says so itself.
PICTURE_COLORS = {
    "webp": ColorTags(matrix=BT601, range=LIMITED),
    "mjpeg": ColorTags(matrix=BT601, range=FULL),
}
_GREY = ("gray", "ya", "mono")
_CHROMA_LOCATIONS = ("left", "left", "center", "topleft", "top", "bottomleft", "bottom")
# Where chroma lies between the luma samples: centred in JPEG and MPEG-1, left in all that came
# later. A file may say otherwise (UHD discs: top left), but PyAV does not show it and the filter
# ignores it.
_CENTERED_CODECS = ("mjpeg", "mpeg1video", "theora", "h263", "flv1")
_SCALER = "accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
_TICK = Fraction(1, 1000)
# Any matrix, as long as it is the same: then only the chroma is resampled and luma codes pass as
# they are. Left to itself the filter would convert from the frame's matrix to its own default.
_SAME_COLORS = {
    "in_color_matrix": "bt709",
    "out_color_matrix": "bt709",
    "in_range": "full",
    "out_range": "full",
}

# Thresholds of an 8x8 ordered dither, in (0, 1); deterministic, and still under a moving picture.
_BAYER_2 = np.array([[0, 2], [3, 1]])
_BAYER_4 = np.block([[4 * _BAYER_2 + v for v in row] for row in _BAYER_2.tolist()])
_BAYER_8 = np.block([[4 * _BAYER_4 + v for v in row] for row in _BAYER_2.tolist()])
_DITHER = ((_BAYER_8 + 0.5) / 64).astype(np.float32)


def guess_matrix(width: int, height: int) -> int:
    """Return the matrix players assume for an untagged picture, in either orientation."""
    is_hd = max(width, height) >= 1280 or min(width, height) > 576
    return BT709 if is_hd else BT601


def resolve_matrix(matrix: int, width: int, height: int) -> int:
    """Return a YUV matrix to calculate with: the given one, or the players' guess.

    Args:
        matrix: AVColorSpace; unspecified, RGB and the ones that are no plain matrix are guessed.
        width: of the picture, pixels.
        height: likewise.
    """
    return matrix if matrix in _MATRICES else guess_matrix(width, height)


def resolve_range(color_range: int, pixel_format: str) -> int:
    """Return LIMITED or FULL for a YUV picture.

    Grey is full, whatever is said: so FFmpeg reads it, and so its encoders store it.
    """
    if pixel_format.startswith(_GREY):
        return FULL
    if color_range in (LIMITED, FULL):
        return color_range
    return FULL if pixel_format.startswith("yuvj") else LIMITED


def _graph(
    width: int, height: int, source: str, target: str, scale: dict[str, str]
) -> av.filter.Graph:
    graph = av.filter.Graph()
    options = {"flags": _SCALER, **scale}
    nodes = (
        graph.add(
            "buffer",
            f"video_size={width}x{height}:pix_fmt={source}:time_base={_TICK}:pixel_aspect=1/1",
        ),
        graph.add("scale", ":".join(f"{k}={v}" for k, v in options.items())),
        graph.add("format", f"pix_fmts={target}"),
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes)
    try:
        graph.configure()
    except AV_ERRORS as error:
        raise VideoError(
            f"pictures stored as {source} cannot be converted by this FFmpeg build; convert them "
            "to another format, such as PNG, first"
        ) from error
    return graph


def convert(frame: av.VideoFrame, target: str) -> av.VideoFrame:
    """Return a frame in another format of the same kind of colour (RGB stays RGB, and so on)."""
    if frame.format.name == target:
        return frame
    return _run(_graph(frame.width, frame.height, frame.format.name, target, {}), frame)


def _run(graph: av.filter.Graph, frame: av.VideoFrame) -> av.VideoFrame:
    frame.time_base = _TICK
    graph.push(frame)
    return graph.pull()


def plane_of(frame: av.VideoFrame, index: int, dtype: type[np.generic]) -> np.ndarray:
    """Return a view `h w` of one plane; writable."""
    plane = frame.planes[index]
    view = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return view[:, : plane.width]


class ToRgb:
    """Turns decoded frames into RGB arrays; follows changes of format and tags inside a stream.

    Args:
        stream_color: tags to use where a frame has none.
        codec: FFmpeg's name of the codec the frames come from.
    """

    def __init__(self, stream_color: ColorTags, codec: str = "") -> None:
        self._stream_color = stream_color
        self._siting = "center" if codec in _CENTERED_CODECS else "left"
        self._graphs: dict[tuple[str, str], av.filter.Graph] = {}
        self._warned: set[int] = set()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Convert one frame.

        Returns:
            `h w 3` as stored (not turned): uint8 up to 8 bits a component, else uint16 over
            0..65535.
        """
        name = frame.format.name
        if is_float(frame.format) or is_wide(frame.format):
            samples = samples_of(frame)
            color = samples[..., :-1] if samples.shape[-1] in (2, 4) else samples
            color = np.repeat(color, 3, axis=2) if color.shape[-1] == 1 else color
            return np.rint(np.clip(np.nan_to_num(color), 0, 1) * 65535).astype(np.uint16)
        if bit_depth_of(frame.format) <= 8:
            options = self._siting_of(frame) | self._tags_of(frame, name)
            return self._converted(frame, name, "rgb24", options).to_ndarray()
        if frame.format.is_rgb or name.startswith("xyz"):
            return self._deep_rgb(frame, name)
        return self._deep_yuv(frame, name)

    def _matrix_and_range(self, frame: av.VideoFrame, name: str) -> tuple[int, int]:
        tagged = frame.colorspace if frame.colorspace != UNSPECIFIED else self._stream_color.matrix
        if tagged not in (*_MATRICES, UNSPECIFIED, RGB_MATRIX) and tagged not in self._warned:
            self._warned.add(tagged)
            log.warning(
                "colour matrix %d has no plain YUV form here; guessed from the size", tagged
            )
        matrix = resolve_matrix(tagged, frame.width, frame.height)
        return matrix, resolve_range(frame.color_range or self._stream_color.range, name)

    def _tags_of(self, frame: av.VideoFrame, name: str) -> dict[str, str]:
        if frame.format.is_rgb or frame.format.has_palette:
            return {}
        matrix, color_range = self._matrix_and_range(frame, name)
        return {
            "in_color_matrix": _MATRICES[matrix][0],
            "in_range": "full" if color_range == FULL else "limited",
        }

    def _siting_of(self, frame: av.VideoFrame) -> dict[str, str]:
        if frame.format.is_rgb or frame.format.chroma_width(2) != 1:
            return {}
        return {"in_chroma_loc": self._siting}

    def _converted(
        self, frame: av.VideoFrame, name: str, target: str, options: dict[str, str]
    ) -> av.VideoFrame:
        if name == target:
            return frame
        key = (name, f"{target}{options}{frame.width}x{frame.height}")
        if key not in self._graphs:
            self._graphs[key] = _graph(frame.width, frame.height, name, target, options)
        return _run(self._graphs[key], frame)

    def _deep_rgb(self, frame: av.VideoFrame, name: str) -> np.ndarray:
        bits = bit_depth_of(frame.format)
        if not (name.startswith(("gbrp", "gbrap")) and name.endswith(f"{bits}le")):
            return self._converted(frame, name, "rgb48le", {}).to_ndarray()
        # Plane by plane: swscale of FFmpeg 8 garbles a deep gbrap picture on its way to gbrp.
        rgb = np.stack([plane_of(frame, index, np.uint16) for index in (2, 0, 1)], axis=-1)
        return rescale(rgb, 2**bits - 1, 65535)

    def _deep_yuv(self, frame: av.VideoFrame, name: str) -> np.ndarray:
        bits = bit_depth_of(frame.format)
        bits = bits if bits in (9, 10, 12, 14) else 16
        matrix, color_range = self._matrix_and_range(frame, name)
        is_gray = name.startswith(_GREY)
        alpha = "a" if name.startswith("yuva") else ""
        target = f"gray{bits}le" if is_gray else f"yuv{alpha}444p{bits}le"
        options = {} if is_gray else self._siting_of(frame) | _SAME_COLORS
        planar = self._converted(frame, name, target, options)
        y = plane_of(planar, 0, np.uint16)
        if is_gray:
            cb = cr = np.full((1, 1), 1 << (bits - 1), np.uint16)
        else:
            cb, cr = plane_of(planar, 1, np.uint16), plane_of(planar, 2, np.uint16)
        return _yuv_to_rgb(y, cb, cr, matrix=matrix, is_full=color_range == FULL, bits=bits)


def rescale(codes: np.ndarray, old_max: int, new_max: int) -> np.ndarray:
    """Return codes rounded to another maximum, exactly, as uint16; as they are for the same."""
    if old_max == new_max:
        return codes
    wide = codes.astype(np.uint32)
    return ((2 * wide * new_max + old_max) // (2 * old_max)).astype(np.uint16)


def _levels(is_full: bool, bits: int) -> tuple[float, float, float, float]:
    """Return luma's black and span, chroma's zero and span, in codes of `bits` bits."""
    unit = float(1 << (bits - 8))
    if is_full:
        top = float((1 << bits) - 1)
        return 0.0, top, 128 * unit, top
    return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def _yuv_to_rgb(
    y: np.ndarray, cb: np.ndarray, cr: np.ndarray, *, matrix: int, is_full: bool, bits: int
) -> np.ndarray:
    _, red, blue = _MATRICES[matrix]
    green = 1 - red - blue
    black, y_span, zero, c_span = _levels(is_full, bits)
    luma = (y.astype(np.float32) - black) * np.float32(65535 / y_span)
    pb = (cb.astype(np.float32) - zero) * np.float32(65535 / c_span)
    pr = (cr.astype(np.float32) - zero) * np.float32(65535 / c_span)
    out = np.empty((*y.shape, 3), np.uint16)
    channels = (
        luma + np.float32(2 * (1 - red)) * pr,
        luma
        - np.float32(2 * (1 - red) * red / green) * pr
        - np.float32(2 * (1 - blue) * blue / green) * pb,
        luma + np.float32(2 * (1 - blue)) * pb,
    )
    for index, channel in enumerate(channels):
        out[..., index] = np.clip(channel, 0, 65535) + 0.5
    return out


class FromRgb:
    """Turns RGB arrays into frames of one pixel format."""

    def __init__(
        self,
        *,
        width: int,
        height: int,
        pixel_format: str,
        matrix: int,
        is_full: bool,
        chroma_location: int,
    ) -> None:
        """Prepare conversions.

        Args:
            width: pixels.
            height: pixels.
            pixel_format: any of RGB or of YUV, with or without alpha, up to 16 bits.
            matrix: a resolved AVColorSpace (unused for RGB formats).
            is_full: whether YUV codes use the whole range.
            chroma_location: AVChromaLocation.
        """
        self._size = (width, height)
        self._format = pixel_format
        self._matrix = matrix
        self._is_full = is_full
        kind = av.VideoFormat(pixel_format)
        self._bits = bit_depth_of(kind)
        self._has_alpha = any(component.is_alpha for component in kind.components)
        self._is_rgb = kind.is_rgb
        self._is_shallow_rgb = self._bits == 8 and self._is_rgb
        where = {"out_chroma_loc": _CHROMA_LOCATIONS[chroma_location]}
        deep = "" if self._bits == 8 else f"{self._bits}le"
        if self._is_rgb:
            self._planar_format = f"gbr{'a' * self._has_alpha}p{deep}"
        else:
            self._planar_format = f"yuv{'a' * self._has_alpha}444p{deep}"
        self._resample: av.filter.Graph | None = None
        self._direct: av.filter.Graph | None = None
        if self._planar_format != pixel_format:
            options = {} if self._is_rgb else _SAME_COLORS | where
            self._resample = _graph(width, height, self._planar_format, pixel_format, options)
        if self._is_shallow_rgb:
            packed = "rgba" if self._has_alpha else "rgb24"
            self._direct = _graph(width, height, packed, pixel_format, {})
        elif self._bits == 8 and not is_full and not self._has_alpha:
            options = {"in_range": "full", "out_range": "limited", **where}
            options["out_color_matrix"] = _MATRICES[matrix][0]
            self._direct = _graph(width, height, "rgb24", pixel_format, options)

    def __call__(self, pixels: np.ndarray, alpha: np.ndarray | None = None) -> av.VideoFrame:
        """Convert one picture.

        Args:
            pixels: `h w 3`, uint8 over 0..255 or uint16 over 0..65535.
            alpha: `h w` of the same type for formats that have it; None is opaque.
        """
        top = np.iinfo(pixels.dtype).max
        if self._has_alpha and alpha is None:
            alpha = np.full(pixels.shape[:2], top, pixels.dtype)
        if self._direct is not None:
            pixels = dither_to_8_bit(pixels) if top > 255 else pixels
            packed = "rgb24"
            if self._has_alpha:
                pixels, packed = np.dstack((pixels, rescale(alpha, top, 255))), "rgba"
            pixels = np.ascontiguousarray(pixels, np.uint8)
            return _run(self._direct, av.VideoFrame.from_ndarray(pixels, packed))
        frame = self._planar_rgb(pixels) if self._is_rgb else self._planar(pixels)
        if self._has_alpha:
            dtype = np.uint8 if self._bits == 8 else np.uint16
            plane_of(frame, 3, dtype)[...] = rescale(alpha, top, (1 << self._bits) - 1)
        return frame if self._resample is None else _run(self._resample, frame)

    def _planar_rgb(self, pixels: np.ndarray) -> av.VideoFrame:
        frame = av.VideoFrame(*self._size, self._planar_format)
        top = np.iinfo(pixels.dtype).max
        for index, channel in enumerate((1, 2, 0)):
            codes = rescale(pixels[..., channel], top, (1 << self._bits) - 1)
            plane_of(frame, index, np.uint16)[...] = codes
        return frame

    def _planar(self, pixels: np.ndarray) -> av.VideoFrame:
        """Return the 4:4:4 frame, calculated in float32 and rounded."""
        _, red, blue = _MATRICES[self._matrix]
        black, y_span, zero, c_span = _levels(self._is_full, self._bits)
        scale = np.float32(1 / (65535 if pixels.dtype == np.uint16 else 255))
        r, g, b = (pixels[..., i].astype(np.float32) for i in range(3))
        luma = np.float32(red) * r + np.float32(1 - red - blue) * g + np.float32(blue) * b
        planes = (
            luma * (scale * y_span) + black,
            (b - luma) * (scale * c_span / (2 * (1 - blue))) + zero,
            (r - luma) * (scale * c_span / (2 * (1 - red))) + zero,
        )
        frame = av.VideoFrame(*self._size, self._planar_format)
        dtype = np.uint8 if self._bits == 8 else np.uint16
        top = (1 << self._bits) - 1
        for index, plane in enumerate(planes):
            plane_of(frame, index, dtype)[...] = np.clip(plane, 0, top) + np.float32(0.5)
        return frame


def dither_to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Reduce 16-bit pixels to 8 bits with an ordered dither, so that ramps do not band.

    Args:
        pixels: `h w 3` uint16 over 0..65535.

    Returns:
        `h w 3` uint8.
    """
    height, width, _ = pixels.shape
    tiled = np.tile(_DITHER, (-(-height // 8), -(-width // 8)))[:height, :width, None]
    return np.minimum(pixels * np.float32(255 / 65535) + tiled, 255).astype(np.uint8)
