"""A lock that dies with its process, so that no stale lock is ever left to clear by hand."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import TracebackType

from ..video import VideoError

# Windows locks bytes, not files, and a locked byte cannot be read: lock one past the text.
_LOCKED_BYTE = 1 << 16


class FileLock:
    """Holds an exclusive lock on a file; its text says who holds it.

    The operating system drops the lock when the process ends, however it ends.

    Args:
        path: File to lock; made if missing, its folder must exist.

    Raises:
        VideoError: Another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if not _try_lock(self._descriptor):
                holder = _read(self._descriptor)
                os.close(self._descriptor)
                raise VideoError(
                    f"another process already writes this output ({holder}, lock {str(path)!r}); "
                    "wait for it or choose another output"
                )
            if _is_still_there(self._descriptor, path):
                break
            os.close(self._descriptor)  # its folder was removed in between by a run that finished
        text = f"pid {os.getpid()} on {socket.gethostname()}"
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, text.encode())

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back; calling it twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(path: Path) -> bool:
    """Whether some process holds the lock, as far as the file system shares locks.

    Args:
        path: A `FileLock`'s file; a missing one is not held.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:  # Windows' word for "locked by somebody else"
        return False
    return True


def _read(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 200).decode(errors="replace") or "unknown process"


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
