"""Results that are one file: when they are finished, and how they get their name."""

from __future__ import annotations

from pathlib import Path

from ..digests import file_fingerprint
from ..video.writer import give_name
from .job import Job, exists_error
from .journal import Journal, sync_folder


class SingleFile:
    """A result that is one file, made inside the journal's folder and named at the end.

    Args:
        destination: The file.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination

    def outputs(self) -> list[Path]:
        """The file that would be written."""
        return [self.destination]

    def exists(self) -> bool:
        """Whether there is something that would be replaced."""
        return self.destination.exists()

    def is_finished(self, journal: Journal) -> bool:
        """Whether an earlier run got as far as naming the result, and only its journal is left."""
        if journal.result is None or not self.destination.is_file():
            return False
        return file_fingerprint(self.destination) == journal.result

    def place_in(self, journal: Journal) -> Path:
        """Where the result is made, so that a crash leaves nothing beside the destination."""
        return journal.folder / ("result" + self.destination.suffix)

    def give_name(self, result: Path, job: Job, journal: Journal) -> None:
        """Let the finished file have its name, for good.

        Args:
            result: From `place_in`, whole and synced.
            job: What it is the result of.
            journal: Notes first that it is finished.

        Raises:
            VideoError: There is a file of that name that may not be replaced.
        """
        journal.record_result(result)
        if self.exists() and not job.options.overwrite:
            raise exists_error(self.destination)
        give_name(result, self.destination)
        sync_folder(self.destination.absolute().parent)
