"""How the C library treats freed memory; free of torch, so that every command can begin with it."""

from __future__ import annotations

import ctypes
import sys

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEPT_BYTES = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Make the C library reuse freed blocks instead of returning each to the system.

    Large tensors come and go by the hundred per segment, and the page faults of fresh memory were a
    third of oasis-tiny's time on a CPU. It holds for the whole process, so it is for programs to
    call, before any work, and not for libraries. Linux with glibc only; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
