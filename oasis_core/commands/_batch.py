"""From what a user names to single jobs: several files, folders, stills."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..remote import RemoteFile, is_url
from ..words import counted
from ._manifest import Row, is_list, read_rows

if TYPE_CHECKING:
    from ..video import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """What to do, one file at a time."""

    pairs: tuple[tuple[Path | RemoteFile | Source, Path], ...]
    """Source and destination of each; a folder of pictures that is one film is resolved."""
    is_batch: bool
    """Whether failures are collected and finished files skipped."""
    folder: Path | None = None
    """Where the results of a batch go."""

    def make_folders(self) -> None:
        """Make the folders of a batch's results."""
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            for _, target in self.pairs:
                target.parent.mkdir(parents=True, exist_ok=True)


def find_tasks(
    sources: Sequence[Path | RemoteFile], destination: Path, *, stills: bool, codec: str | None
) -> Tasks:
    """Decide what the named files and folders mean.

    Args:
        sources: Files, patterns and folders.
        destination: A file, pattern or folder.
        stills: Every picture is a job of its own.
        codec: Of videos, which may need a certain container.

    Raises:
        ValueError: A source is missing or means nothing, or the destination must be a folder.
    """
    if any(is_list(source) for source in sources):
        return _listed(read_rows(sources), destination, codec)
    if len(sources) == 1 and (not stills or sources[0].is_file()):
        source = sources[0]
        pictures = _pictures_of_film(source) if source.is_dir() else []
        if pictures:  # listed once, and not once more by the engine
            from ..video import Source

            film = Source.of_pictures(source, pictures)
            return Tasks(pairs=((film, destination),), is_batch=False)
        if not source.is_dir() and not (destination.is_dir() and source.is_file()):
            return Tasks(pairs=((source, destination),), is_batch=False)
    items = [item for source in sources for item in _items(source, stills=stills)]
    _check_folder(destination, sources)
    pairs = tuple(_named(items, destination, codec))
    return Tasks(pairs=pairs, is_batch=True, folder=destination)


def _listed(rows: Sequence[Row], destination: Path, codec: str | None) -> Tasks:
    """The films of lists and patterns; one that is missing fails alone, later."""
    _check_folder(destination, [row.source for row in rows if row.source.is_dir()])
    free = [row.source for row in rows if row.destination is None]
    names = iter(_named(free, destination, codec))
    pairs = []
    for row in rows:
        if row.destination is None:
            pairs.append(next(names))
            continue
        pairs.append((row.source, destination / row.destination))
    twice = [target for target, n in Counter(target for _, target in pairs).items() if n > 1]
    if twice:
        raise ValueError(f"each film needs a destination of its own, {str(twice[0])!r} has two")
    for source, target in pairs:
        is_here = not is_url(source)
        # The folder may be missing yet, and then `out/../in` is no path.
        target = Path(os.path.normpath(target))
        if is_here and target.exists() and source.exists() and target.samefile(source):
            raise ValueError(
                f"the destination of {str(source)!r} is the source itself; name another folder"
            )
    return Tasks(pairs=tuple(pairs), is_batch=True, folder=destination)


def _named(items: Sequence[Path], destination: Path, codec: str | None) -> list[tuple[Path, Path]]:
    from ..video.names import distinct

    names = distinct(items, lambda item: _suffix_for(item, codec))
    return [(item, destination / name) for item, name in zip(items, names, strict=True)]


def _pictures_of_film(source: Path) -> list[Path]:
    """The pictures of a folder that is one film; none if it is a folder of videos.

    Raises:
        ValueError: It is a folder of both, or of neither.
    """
    from ..video.names import folder_contents

    videos, images = folder_contents(source)
    if videos and images:
        raise ValueError(
            f"the folder {str(source)!r} holds {counted(len(videos), 'video')} and "
            f"{counted(len(images), 'picture')}; use --stills to do each by itself, or name "
            "the files"
        )
    if not videos and not images:
        raise ValueError(f"the folder {str(source)!r} holds no video and no picture")
    return images


def _items(source: Path, *, stills: bool) -> list[Path]:
    from ..video import Source
    from ..video.names import folder_contents

    if source.is_dir():
        videos, images = folder_contents(source)
        if not videos and not images:
            raise ValueError(f"the folder {str(source)!r} holds no video and no picture")
        if images and not stills:
            raise ValueError(
                f"the folder {str(source)!r} holds pictures; give it alone for a film, or use "
                "--stills to do each by itself"
            )
        return videos + images if stills else videos
    if not source.exists() and not stills:
        raise ValueError(f"{str(source)!r} does not exist; check the name")
    images = Source.resolve(source).pictures if stills else ()
    return list(images) or [source]


def _check_folder(destination: Path, sources: Sequence[Path]) -> None:
    if destination.is_file() or (destination.suffix and not destination.is_dir()):
        what = "several results need" if len(sources) == 1 else f"{len(sources)} sources need"
        raise ValueError(f"{what} a folder as destination, got {str(destination)!r}")
    if not destination.absolute().parent.is_dir():
        raise ValueError(f"the folder {str(destination.parent)!r} does not exist; create it first")
    for source in (source for source in sources if not is_url(source)):
        folder = source if source.is_dir() else source.parent
        if destination.is_dir() and folder.is_dir() and destination.samefile(folder):
            raise ValueError(
                f"the destination {str(destination)!r} is the folder of the sources; name another"
            )


def _suffix_for(source: Path, codec: str | None) -> str:
    """The source's own ending, if the format can be written; else one that holds everything."""
    from ..video import CODECS, CONTAINERS, IMAGE_SUFFIXES, is_animated
    from ..video.image_writer import IMAGE_FORMATS

    suffix = source.suffix.lower()
    if suffix in IMAGE_SUFFIXES and not (isinstance(source, Path) and is_animated(source)):
        return suffix if suffix in IMAGE_FORMATS else ".png"
    holders = CODECS[codec or "h264"].containers
    kind = "mov" if suffix == ".mov" else CONTAINERS.get(suffix)
    return suffix if kind in holders else ".mkv"
