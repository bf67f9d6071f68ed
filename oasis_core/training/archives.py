"""Footage that does not fit a disk: WebDataset archives, read as the samples ask for them.

An archive is a tar of clips and stills. Which one fills which place of which batch depends on the
seed alone, so that a run goes on to the same weights, and each of several processes reads only the
archives of its own places.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..extras import need
from ..remote import as_source, is_url
from ..video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source
from .config import TrainingError
from .footage import READ_ERRORS, Sources, decode_footage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedFootage:
    """Archives, each decoded when a place of a batch needs it; stands for `Sources`."""

    archives: tuple[str, ...]
    """Paths or URLs of tar files, in order."""
    seed: int
    batch_size: int
    min_side_px: int
    """Smaller footage is skipped."""
    min_frames: int
    """Shorter clips are skipped."""

    @property
    def names(self) -> list[str]:
        """The archives, as they are noted with the weights."""
        return [str(as_source(name)) for name in self.archives]

    def archive_of(self, shard_index: int, place: int) -> str:
        """The archive that the samples of a place come from: all once, in another order each time.

        Args:
            shard_index: Of the shard of samples within its stage.
            place: In the batch.
        """
        visit = shard_index * self.batch_size + place
        epoch, position = divmod(visit, len(self.archives))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.archives), generator=generator)
        return self.archives[int(order[position])]

    def at(self, shard_index: int, place: int) -> Sources:
        """The decoded footage of a place.

        Raises:
            TrainingError: The archive cannot be read or holds nothing usable.
        """
        archive = self.archive_of(shard_index, place)
        sources = Sources(clips=[], stills=[], names=[])
        with tempfile.TemporaryDirectory(prefix="oasis-footage-") as folder:
            for name, content in _members(archive):
                suffix = Path(name).suffix.lower()
                if suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                    file = Path(folder) / f"footage{suffix}"
                    file.write_bytes(content)
                    self._add(sources, Source.resolve(file), name, archive)
        if not sources.names:
            raise TrainingError(
                f"the archive {str(as_source(archive))!r} must hold a clip or still of "
                f"{self.min_side_px} px and {self.min_frames} frames or more and holds none; "
                "remove it from data_archives"
            )
        return sources

    def _add(self, sources: Sources, source: Source, name: str, archive: str) -> None:
        """Decode one member of an archive, if it can be used."""
        try:
            clip = decode_footage(source, name)
        except READ_ERRORS as error:
            logger.warning("%s in %s was skipped: %s", name, as_source(archive), error)
            return
        is_short = not source.pictures and len(clip) < self.min_frames
        if not is_short and min(clip.shape[-2:]) >= self.min_side_px:
            (sources.stills if source.pictures else sources.clips).append(clip)
            sources.names.append(name)


def find_archives(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Spell out `clips-{000..099}.tar` and `*`, on disks and behind URLs.

    Raises:
        TrainingError: The webdataset library is missing, or a pattern stands for nothing.
    """
    expand = _library().shardlists.expand_urls
    found: list[str] = []
    for name in (name for pattern in patterns for name in expand(pattern)):
        matches = _matches(name)
        if not matches:
            raise TrainingError(
                f"data_archives must be tar files, {name} is none; check the pattern"
            )
        found += matches
    return tuple(found)


def _matches(name: str) -> list[str]:
    """The files that a name with or without `*` stands for; one URL is believed to be there."""
    if is_url(name):
        return [file.url for file in as_source(name).matches()] if "*" in name else [name]
    path = Path(name).expanduser()
    files = path.parent.glob(path.name) if "*" in path.name else [path]
    return sorted(str(file) for file in files if file.is_file())


def _library() -> Any:
    return need("webdataset", extra="train", purpose="data_archives")


def _members(archive: str) -> Iterator[tuple[str, bytes]]:
    library = _library()
    try:
        with as_source(archive).open("rb") as stream:
            files = library.tariterators.tar_file_expander(
                [{"url": archive, "stream": stream}], eof_value=None
            )
            for file in files:
                yield file["fname"], file["data"]
    except Exception as error:  # tarfile, the network and the library have errors of their own
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"the archive {str(as_source(archive))!r} cannot be read ({text})"
        ) from error
