"""Opening whatever a user names as a source: a video, a picture, a sequence, a folder of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from ..remote import RemoteFile, as_source
from .animated import AnimationReader
from .clip import ClipReader, ClipSource
from .images import DEFAULT_RATE, ImageReader, list_images
from .info import VideoInfo
from .names import is_animated, is_animated_webp
from .piece import TimeWindow
from .reader import VideoReader


def open_source(
    path: str | Path | RemoteFile | ClipSource,
    *,
    allow_truncated: bool = False,
    window: TimeWindow | None = None,
    deinterlace: bool = False,
    frame_rate: Fraction | None = None,
) -> VideoReader | ImageReader | AnimationReader:
    """Open a source for reading.

    Args:
        path: a video file or its URL, a picture, a pattern such as `in_%05d.png`, or a folder of
            pictures; or a clip in memory.
        allow_truncated: read what is there of a video that ends before its headers say.
        window: the piece to read; None is everything.
        deinterlace: make whole frames of fields; pictures have none.
        frame_rate: of pictures, per second; videos have their own.

    Raises:
        VideoError: it cannot be used.
    """
    path = as_source(path)
    if isinstance(path, ClipSource):
        return ClipReader(path, window=window)
    images = list_images(path)
    if images is not None:
        return ImageReader(images, frame_rate=frame_rate or DEFAULT_RATE, window=window)
    if isinstance(path, Path) and path.is_file() and is_animated_webp(path):
        return AnimationReader(path, window=window)
    return VideoReader(
        path, allow_truncated=allow_truncated, window=window, deinterlace=deinterlace
    )


def has_streams(path: Path | RemoteFile | ClipSource) -> bool:
    """Return whether a source is a file that may hold sound and other streams.

    Args:
        path: what the user named.
    """
    if isinstance(path, ClipSource):
        return False
    if isinstance(path, Path) and path.is_file() and is_animated(path):
        return not is_animated_webp(path)
    return list_images(path) is None


def probe(
    path: str | Path | RemoteFile | ClipSource,
    *,
    allow_truncated: bool = False,
    frame_rate: Fraction | None = None,
) -> VideoInfo:
    """Return what is known about a source; its first frame is decoded for it.

    Args:
        path: see `open_source`.
        allow_truncated: describe a file that ends before its headers say, too.
        frame_rate: see `open_source`.

    Raises:
        VideoError: the file cannot be used.
    """
    with open_source(path, allow_truncated=allow_truncated, frame_rate=frame_rate) as reader:
        return reader.info
