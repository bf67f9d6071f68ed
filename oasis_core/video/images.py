"""Pictures as a film: one picture, a numbered sequence, or a folder of pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from .alpha import alpha_of
from .changes import PictureKind, fitted, in_depth
from .color import FULL, PICTURE_COLORS, RGB_MATRIX, ToRgb
from .containers import check_file, check_size
from .errors import AV_ERRORS, VideoError, reason
from .frame import VideoFrame
from .image_tags import ImageTags, read_image_tags
from .info import ColorTags, VideoInfo, bit_depth_of
from .linear_light import is_float, light_of, split_light
from .names import is_animated
from .piece import TimeWindow
from .tiff import decode_tiff, read_tiff
from .whole import check_whole

log = logging.getLogger(__name__)

DEFAULT_RATE = Fraction(25)


class ImageReader:
    """Reads pictures as the frames of a film; otherwise like `VideoReader`.

    Args:
        paths: the pictures, in order, all of one size.
        frame_rate: pictures per second.
        window: the piece to read; None is everything.
        on_change: "stop" at a picture of another size, or "scale" it to fit into the first.

    Raises:
        VideoError: the first picture cannot be used.
    """

    num_corrupt_frames = 0
    """Damaged pictures are errors, never concealed."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        frame_rate: Fraction = DEFAULT_RATE,
        window: TimeWindow | None = None,
        on_change: str = "stop",
    ) -> None:
        self.paths = list(paths)
        self._scales = on_change == "scale"
        self._window = window
        self.num_frames_read = 0
        frame, codec, tags = _decode(self.paths[0])
        self.info = _describe(self.paths, frame, codec, tags, frame_rate)

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open."""

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every picture of the window, and those of its context."""
        start, stop, context = 0, len(self.paths), 0
        if self._window is not None:
            start, stop = self._window.ticks(0, self.info.time_base)
            stop, context = int(min(stop, len(self.paths))), self._window.context_frames
        if start >= len(self.paths):
            raise VideoError(
                f"the piece to read must begin before the last of {len(self.paths)} pictures, got "
                f"start_s {self._window.start_s:g}"
            )
        for index in range(max(0, start - context), min(len(self.paths), stop + context)):
            self.num_frames_read += 1
            yield self._frame(index, is_context=not start <= index < stop)

    def _frame(self, index: int, *, is_context: bool) -> VideoFrame:
        path = self.paths[index]
        frame, codec, tags = _decode(path)
        width, height = frame.width, frame.height
        if tags.orientation.transpose:
            width, height = height, width
        kind, is_light = self._kind(width, height), is_float(frame.format)
        is_other = (width, height) != (self.info.width, self.info.height)
        if is_other and (is_light or self.info.is_linear or not self._scales):
            raise VideoError(
                f"{str(path)!r} is {width}x{height} px and the pictures before it are "
                f"{self.info.width}x{self.info.height}; use --stills for pictures that are no "
                "film, or --on-change scale to fit all into the first size"
            )
        if is_other:
            log.warning("%s: %dx%d px, fitted into the first size", path.name, width, height)
        if is_light:
            return self._light_frame(path, frame, codec, index, is_context=is_context)
        pixels = self._fitted(tags.orientation.apply(to_rgb(frame, codec)), kind)
        excess = np.zeros(pixels.shape, np.float32) if self.info.is_linear else None
        alpha = None
        if self.info.has_alpha:
            alpha = np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
            if has_alpha(frame):
                stored = tags.orientation.apply(alpha_of(frame)[..., None])
                alpha = self._fitted(stored, kind)[..., 0]
            elif is_other:
                whole = np.full((height, width, 1), np.iinfo(pixels.dtype).max, pixels.dtype)
                alpha = self._fitted(whole, kind)[..., 0]
        elif has_alpha(frame):
            log.warning("%s has transparency, unlike the first picture; dropped", path.name)
        return VideoFrame(
            pixels=pixels, pts=index, duration=1, alpha=alpha, excess=excess, is_context=is_context
        )

    def _light_frame(
        self, path: Path, frame: av.VideoFrame, codec: str, index: int, *, is_context: bool
    ) -> VideoFrame:
        # What `tiff` reads is not multiplied any more.
        light, cover = light_of(frame, is_premultiplied=codec != "tiff")
        pixels, excess = split_light(light)
        alpha = None
        if self.info.has_alpha:
            cover = np.ones(pixels.shape[:2], np.float32) if cover is None else cover
            alpha = self._in_depth(np.rint(cover * 65535).astype(np.uint16)[..., None])[..., 0]
        elif cover is not None:
            log.warning("%s has transparency, unlike the first picture; dropped", path.name)
        if not self.info.is_linear:
            log.warning("%s holds light, unlike the first picture; limited to 0 to 1", path.name)
        return VideoFrame(
            pixels=self._in_depth(pixels),
            pts=index,
            duration=1,
            alpha=alpha,
            excess=excess if self.info.is_linear else None,
            is_context=is_context,
        )

    def _kind(self, width: int, height: int) -> PictureKind:
        return PictureKind(
            width=width,
            height=height,
            aspect=Fraction(1),
            pixel_format=self.info.pixel_format,
            light="SDR",
            gamut="",
        )

    def _fitted(self, pixels: np.ndarray, kind: PictureKind) -> np.ndarray:
        """Upright pixels in the size and depth of the first picture."""
        return self._in_depth(fitted(pixels, kind, self._kind(self.info.width, self.info.height)))

    def _in_depth(self, pixels: np.ndarray) -> np.ndarray:
        """The first picture decides how deep all are."""
        return in_depth(pixels, self.info.bit_depth)


def to_rgb(frame: av.VideoFrame, codec: str) -> np.ndarray:
    """Return a picture's pixels `h w 3`, uint8 or uint16, as stored (not turned)."""
    return ToRgb(PICTURE_COLORS.get(codec, ColorTags(range=FULL)), codec)(frame)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Return whether a picture has transparency."""
    name = frame.format.name
    if frame.format.has_palette or name == "argb":  # WebP is decoded to argb, opaque or not
        return bool((alpha_of(frame) < 255).any())
    return any(c.is_alpha for c in frame.format.components) and name != "gbrap"  # CMYK JPEG


def _decode(path: Path) -> tuple[av.VideoFrame, str, ImageTags]:
    check_file(path)
    if is_animated(path):
        raise VideoError(
            f"{str(path)!r} is animated and cannot be one of several pictures; name it by itself, "
            "it is a film"
        )
    tiff = read_tiff(path)
    if tiff is not None and not tiff.is_for_ffmpeg:
        return decode_tiff(tiff), "tiff", read_image_tags(path)
    try:
        options = {"protocol_whitelist": "file,crypto,data", "pattern_type": "none"}
        with av.open(str(path.absolute()), options=options, metadata_errors="replace") as container:
            stream = container.streams.video[0]
            size = (stream.codec_context.width, stream.codec_context.height)
            check_size(path, size)
            stream.codec_context.thread_count = 1
            frame = next(container.decode(stream), None)
            codec = stream.codec_context.name
    except VideoError:
        raise
    except (*AV_ERRORS, IndexError) as error:
        raise VideoError(
            f"{str(path)!r} is not a picture that FFmpeg can read ({reason(error)}); copy it again "
            "if it is cut off"
        ) from error
    if frame is None:
        raise VideoError(f"{str(path)!r} holds no picture; copy or download it again")
    check_whole(path)
    declared = None if tiff is None else tiff.size
    if declared not in (None, (frame.width, frame.height)):
        raise VideoError(
            f"{str(path)!r} declares {declared[0]}x{declared[1]} pixels and FFmpeg reads "
            f"{frame.width}x{frame.height}; save it as PNG"
        )
    return frame, codec, read_image_tags(path)


def _tagged(cicp: bytes | None) -> ColorTags:
    """Return what a PNG says of its colours, in H.273's code points as films have them."""
    if cicp is None or len(cicp) != 4:
        return ColorTags(matrix=RGB_MATRIX)
    return ColorTags(primaries=cicp[0], transfer=cicp[1], matrix=RGB_MATRIX)


def _describe(
    paths: list[Path],
    frame: av.VideoFrame,
    codec: str,
    tags: ImageTags,
    frame_rate: Fraction,
) -> VideoInfo:
    width, height = frame.width, frame.height
    if tags.orientation.transpose:
        width, height = height, width
    tiff = read_tiff(paths[0])
    return VideoInfo(
        path=paths[0],
        container="picture" if len(paths) == 1 else "pictures",
        codec=codec,
        width=width,
        height=height,
        rotation_deg=tags.orientation.rotation_deg,
        is_mirrored=tags.orientation.is_mirrored,
        sample_aspect_ratio=Fraction(1),
        frame_rate=frame_rate,
        time_base=1 / frame_rate,
        start_pts=0,
        num_frames=len(paths),
        duration_s=float(len(paths) / frame_rate),
        pixel_format=frame.format.name,
        bit_depth=bit_depth_of(frame.format),
        has_alpha=has_alpha(frame),
        is_linear=is_float(frame.format),
        # What was YUV in the file is RGB from here on, and a film made of it is tagged anew.
        color=_tagged(tags.notes.cicp),
        is_interlaced=False,
        not_kept=() if tiff is None else tiff.losses,
    )
