"""What a user names as input, found out once: a video, stills, an animation, a clip in memory."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from ..digests import file_fingerprint, listing_fingerprint
from ..remote import RemoteFile, as_source
from .animated import AnimationReader
from .clip import ClipReader, ClipSource
from .count import Survey, count_listed, survey_film
from .errors import VideoError
from .frame import VideoFrame
from .images import DEFAULT_RATE, ImageReader
from .info import VideoInfo
from .names import (
    IMAGE_SUFFIXES,
    find_numbered,
    is_animated,
    is_animated_webp,
    is_image,
    is_pattern,
    natural_key,
    numbers_of,
)
from .piece import TimeWindow
from .reader import VideoReader
from .source_watch import SourceWatch

logger = logging.getLogger(__name__)

Kind = Literal["film", "animation", "pictures", "clip"]
"""What a source can be; see `Source.kind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a user named as input, resolved once, at the border, into what it is.

    Made by `Source.resolve`; everything behind the border takes a `Source` and never asks a path
    what it is.
    """

    path: Path | RemoteFile | ClipSource
    """What was named: a file, a URL, a folder, a pattern, or frames in memory. As text it is what
    messages print."""
    kind: Kind
    """"film": read by FFmpeg, may hold sound (GIF and animated PNG too); "animation": animated
    WebP; "pictures": one or many stills; "clip": frames in memory."""
    pictures: tuple[Path, ...] = ()
    """The stills in the order in which they are frames: natural order of names, or the numbers of a
    pattern. Empty for everything that is no stills."""
    numbers: tuple[int, ...] = ()
    """The number of each still, for results that are numbered: a gap stays a gap. As long as
    `pictures`."""

    @classmethod
    def resolve(cls, name: str | os.PathLike[str] | RemoteFile | ClipSource | Source) -> Source:
        """Find out what a name stands for; reads at most the head of one file and one listing.

        Whether a file is there is not asked: who opens it says so.

        Args:
            name: A video file or its URL, a picture, a pattern such as `in_%05d.png`, a folder of
                pictures, or a clip in memory. What is resolved already is returned as it is.

        Raises:
            VideoError: The folder or pattern holds no picture, or pictures are behind a URL.
        """
        return name if isinstance(name, Source) else cls._resolved(as_source(name))

    @classmethod
    def _resolved(cls, path: Any, *, warns: bool = True) -> Source:
        if isinstance(path, ClipSource):
            return cls(path=path, kind="clip")
        if isinstance(path, RemoteFile):
            return cls._behind_url(path)
        if path.is_dir():
            return cls.of_pictures(path, _pictures_in(path))
        if not is_image(path) or is_animated(path):
            return cls(path=path, kind="animation" if _holds_webp_frames(path) else "film")
        if path.exists() or not is_pattern(path):
            return cls.of_pictures(path, [path])
        numbered = _pictures_of_pattern(path, warns=warns)
        return cls.of_pictures(path, [p for _, p in numbered], [n for n, _ in numbered])

    @classmethod
    def of_pictures(
        cls, path: Path, pictures: Sequence[Path], numbers: Sequence[int] | None = None
    ) -> Source:
        """Stills that are known.

        Args:
            path: What they are called together.
            pictures: The stills in order, at least one.
            numbers: The number of each; None takes them from the names, see `numbers_of`.
        """
        numbers = numbers_of(pictures) if numbers is None else numbers
        return cls(path=path, kind="pictures", pictures=tuple(pictures), numbers=tuple(numbers))

    @classmethod
    def _behind_url(cls, path: RemoteFile) -> Source:
        if is_image(path):
            raise VideoError(
                f"pictures must be files on a disk, got {str(path)!r}; download them first"
            )
        return cls(path=path, kind="film")

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of what was named, for short messages."""
        return self.path.name

    @property
    def has_streams(self) -> bool:
        """Whether sound, subtitles and data may lie beside the picture: true for films only."""
        return self.kind == "film"

    @property
    def beside(self) -> Path | RemoteFile | None:
        """The file whose sound and other streams belong to the pictures; None if there is none."""
        if isinstance(self.path, ClipSource):
            return self.path.sound
        return self.path if self.has_streams else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files on a disk that are read: the stills, or the one file; none behind a URL."""
        if self.pictures:
            return self.pictures
        return (self.path,) if isinstance(self.path, Path) else ()

    @property
    def tags_file(self) -> Path | None:
        """The picture file whose profile and camera data stand for all; None for other sources."""
        if self.pictures:
            return self.pictures[0]
        return self.path if self.kind == "animation" else None

    def is_missing(self) -> bool:
        """Whether a file that was named is not there; stills and URLs say so when they are read."""
        return isinstance(self.path, Path) and not self.pictures and not self.path.exists()

    def absolute(self) -> Source:
        """The same source under names that do not depend on the current folder."""
        pictures = tuple(picture.absolute() for picture in self.pictures)
        return replace(self, path=self.path.absolute(), pictures=pictures)

    def again(self) -> Source:
        """The same name resolved once more, on this machine: another may find other files there."""
        return Source._resolved(self.path, warns=False)

    def open(
        self,
        *,
        window: TimeWindow | None = None,
        deinterlace: bool = False,
        frame_rate: Fraction | None = None,
        allow_truncated: bool = False,
        on_change: str = "stop",
    ) -> VideoReader | ImageReader | AnimationReader:
        """Open for reading; arguments as of `open_source`, `on_change` as of `VideoReader`.

        Raises:
            VideoError: It cannot be used.
        """
        if isinstance(self.path, ClipSource):
            return ClipReader(self.path, window=window)
        if self.kind == "pictures":
            rate = DEFAULT_RATE if frame_rate is None else frame_rate
            return ImageReader(self.pictures, frame_rate=rate, window=window, on_change=on_change)
        if self.kind == "animation":
            return AnimationReader(self.path, window=window)
        return VideoReader(
            self.path,
            allow_truncated=allow_truncated,
            window=window,
            deinterlace=deinterlace,
            on_change=on_change,
        )

    def probe(
        self,
        *,
        frame_rate: Fraction | None = None,
        allow_truncated: bool = False,
        deinterlace: bool = False,
    ) -> VideoInfo:
        """Facts that hold before frames are read; the first frame is decoded for them.

        Args:
            frame_rate: See `open`.
            allow_truncated: See `open`.
            deinterlace: Whether it will be, so that nobody is advised to.

        Raises:
            VideoError: It cannot be used.
        """
        with self.open(
            frame_rate=frame_rate, allow_truncated=allow_truncated, deinterlace=deinterlace
        ) as reader:
            return reader.info

    def survey(self, info: VideoInfo, window: TimeWindow | None = None) -> Survey:
        """What can be told of the frames to read without decoding them: their number, and changes.

        Args:
            info: Facts of this source.
            window: The piece; None is everything.

        Raises:
            VideoError: No frame begins in the piece.
        """
        if self.kind != "film" or info.frame_times is not None:
            return Survey(num_frames=count_listed(self.path, info, window), info=info)
        return survey_film(self.path, info, window)

    def count(self, info: VideoInfo, window: TimeWindow | None = None) -> int | None:
        """Frames that a reader will hand out, without context; as `count_frames` tells them.

        Args:
            info: Facts of this source.
            window: The piece; None is everything.

        Raises:
            VideoError: No frame begins in the piece.
        """
        return self.survey(info, window).num_frames

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the content in journals, as JSON values.

        Raises:
            OSError: A file is not there or cannot be read.
        """
        if self.pictures:
            return listing_fingerprint(self.pictures)
        return file_fingerprint(self.path)

    def watch(self) -> SourceWatch:
        """Notices when the file changes while it is read; of others nothing is noticed."""
        return SourceWatch(self.path)

    def first_frames(self, num_frames: int) -> Iterator[VideoFrame]:
        """The first frames in the colours the engine reads; 0: all of them.

        Raises:
            VideoError: It cannot be used.
        """
        with self.open() as reader:
            yield from itertools.islice(reader, num_frames or None)


def _holds_webp_frames(path: Path) -> bool:
    try:
        return path.is_file() and is_animated_webp(path)
    except OSError:  # the reader will say why
        return False


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted((p for p in folder.iterdir() if is_image(p) and p.is_file()), key=natural_key)
    if not found:
        raise VideoError(
            f"the folder {str(folder)!r} holds no picture; looked for "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return found


def _pictures_of_pattern(pattern: Path, *, warns: bool) -> list[tuple[int, Path]]:
    if not pattern.parent.is_dir():
        raise VideoError(f"the folder {str(pattern.parent)!r} does not exist; check the name")
    found = find_numbered(pattern)
    if not found:
        raise VideoError(
            f"no file matches {str(pattern)!r}; check the name and the number of digits"
        )
    missing = found[-1][0] - found[0][0] + 1 - len(found)
    if missing and warns:
        logger.warning(
            "%s: %s missing in between; what is there keeps its numbers",
            pattern.name,
            "1 number is" if missing == 1 else f"{missing} numbers are",
        )
    return found


def open_source(
    path: str | Path | RemoteFile | ClipSource | Source,
    *,
    allow_truncated: bool = False,
    window: TimeWindow | None = None,
    deinterlace: bool = False,
    frame_rate: Fraction | None = None,
) -> VideoReader | ImageReader | AnimationReader:
    """Open a source for reading.

    Args:
        path: A video file or its URL, a picture, a pattern such as `in_%05d.png`, or a folder of
            pictures; or a clip in memory.
        allow_truncated: Read what is there of a video that ends before its headers say.
        window: The piece to read; None is everything.
        deinterlace: Make whole frames of fields; pictures have none.
        frame_rate: Rate of pictures, per second; videos have their own.

    Raises:
        VideoError: It cannot be used.
    """
    return Source.resolve(path).open(
        window=window,
        deinterlace=deinterlace,
        frame_rate=frame_rate,
        allow_truncated=allow_truncated,
    )


def has_streams(path: str | Path | RemoteFile | ClipSource | Source) -> bool:
    """Whether a source is a file that may hold sound and other streams.

    Args:
        path: What the user named.
    """
    return Source.resolve(path).has_streams


def probe(
    path: str | Path | RemoteFile | ClipSource | Source,
    *,
    allow_truncated: bool = False,
    frame_rate: Fraction | None = None,
) -> VideoInfo:
    """What is known about a source; its first frame is decoded for it.

    Args:
        path: See `open_source`.
        allow_truncated: Describe a file that ends before its headers say, too.
        frame_rate: See `open_source`.

    Raises:
        VideoError: The file cannot be used.
    """
    source = Source.resolve(path)
    return source.probe(frame_rate=frame_rate, allow_truncated=allow_truncated)


def count_frames(
    path: str | Path | RemoteFile | ClipSource | Source,
    info: VideoInfo,
    window: TimeWindow | None = None,
) -> int | None:
    """The number of frames of a source or of a piece of it.

    A whole MP4 or MOV is told from its index and most others from what they claim; the rest is
    counted packet by packet, which takes as long as reading the file (a piece: as reading it).

    Args:
        path: What the user named.
        info: Facts of it.
        window: The piece; None is everything.

    Returns:
        Shown frames without context; None where the file's packets do not tell.

    Raises:
        VideoError: No frame begins in the piece.
    """
    return Source.resolve(path).count(info, window)


def list_images(path: Path | RemoteFile | ClipSource | Source) -> list[Path] | None:
    """The pictures that a source stands for, in order; None if it is no picture source.

    A picture that is animated is a film.

    Args:
        path: A picture, a pattern such as `in_%05d.png`, or a folder.

    Raises:
        VideoError: The folder or pattern holds no picture.
    """
    return list(Source.resolve(path).pictures) or None
