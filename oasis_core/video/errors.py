"""The one error of the file layer, and how FFmpeg's own errors become part of its sentence."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import av

log = logging.getLogger(__name__)

AV_ERRORS: tuple[type[BaseException], ...] = (av.error.FFmpegError, OSError, ValueError)
"""What a failing PyAV call can raise: FFmpeg's codes, the system's, and refused arguments."""


# What a disk, a network drive or the system's limits can say; the rest is FFmpeg's own.
_OF_THE_DISK = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR",
        "EISDIR", "ESTALE", "ENXIO", "ENODEV", "EBADF", "EMFILE", "ENFILE", "ETIMEDOUT", "EBUSY",
        "ENOTCONN", "ECONNRESET", "EINTR", "EPIPE", "ENAMETOOLONG", "ELOOP", "ENOMEM", "EEXIST",
    )
    if hasattr(errno, name)
)  # fmt: skip


class VideoError(ValueError):
    """A problem with a user's file, in one sentence: what, which rule, which value, what to do."""


def reason(error: BaseException) -> str:
    """Return FFmpeg's or the system's own words for an error, without numbers and file names."""
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().rstrip(".") or type(error).__name__


def is_refusal(error: BaseException) -> bool:
    """Whether FFmpeg refused what it was given, as opposed to a disk that failed.

    Everything FFmpeg says of its own accord counts: not implemented, no such option, out of range.
    """
    if not isinstance(error, av.error.FFmpegError):
        return False
    return getattr(error, "errno", None) not in _OF_THE_DISK


def write_error(path: object, error: BaseException) -> VideoError:
    """Return the sentence for a file that could not be written.

    Args:
        path: the file the user asked for (never the temporary one).
        error: what the system or FFmpeg reported.
    """
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free some space or write to another disk"
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "choose a folder you may write to"
    elif code == errno.ENOMEM:
        remedy = "free some memory"
    elif is_refusal(error):
        remedy = "FFmpeg refuses it: try another container (.mkv, .mp4) or codec"
    else:
        remedy = "check the folder and the free space on its disk"
    return VideoError(f"{str(path)!r} could not be written ({reason(error)}); {remedy}")


def discard(path: Path) -> None:
    """Remove a half-written file while its error is being raised; what fails here is only logged.

    Args:
        path: a temporary file of ours, which need not exist.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s stays: %s", path, error)
