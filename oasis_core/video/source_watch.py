"""Noticing that a source changes while it is read."""

from __future__ import annotations

from pathlib import Path

from ..digests import file_fingerprint
from ..remote import RemoteFile
from .errors import VideoError


class SourceWatch:
    """Notices when a file changes while it is read: its parts would not belong together.

    Args:
        path: The file; of others nothing is noticed.
    """

    def __init__(self, path: Path | RemoteFile) -> None:
        self._path = path if isinstance(path, Path) and path.is_file() else None
        self._before = {} if self._path is None else file_fingerprint(self._path)

    def check(self) -> None:
        """Look again.

        Raises:
            VideoError: It is another file now, or none. A new time alone is no change.
        """
        if self._path is None:
            return
        try:
            status = self._path.stat()
            if (status.st_size, status.st_mtime_ns) == self._size_and_time():
                return
            now = file_fingerprint(self._path)
        except OSError as error:
            raise self._changed("is gone or cannot be read any more") from error
        if (
            now["sha256_of_ends"] != self._before["sha256_of_ends"]
            or now["size"] != (self._before["size"])
        ):
            raise self._changed("has changed while it was read")
        self._before = now

    def _size_and_time(self) -> tuple[int, int]:
        return self._before["size"], self._before["mtime_ns"]

    def _changed(self, what: str) -> VideoError:
        return VideoError(
            f"{str(self._path)!r} {what}; put it back as it was and repeat the command to go on, "
            "or start over with --fresh"
        )
