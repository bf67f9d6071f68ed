"""How much memory is free and how much was used, without any extra package."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

FALLBACK_FREE_BYTES = 4 << 30
"""Assumed where the system does not say."""


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated on a device, in bytes.

    On the CPU that is what the machine has available and what the control group allows.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        # A process may be allowed a part of the GPU only.
        allowed = int(_cuda_share(device) * total) - reserved
        return min(free, allowed) + reserved - torch.cuda.memory_allocated(device)
    return free_host_bytes()


def _cuda_share(device: torch.device) -> float:
    share = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # newer torch
    return 1.0 if share is None else share(device)


def free_host_bytes() -> int:
    """Main memory that can still be allocated, in bytes."""
    if sys.platform == "win32":
        return _free_windows() or FALLBACK_FREE_BYTES
    available = _meminfo_available() or _half_of_physical() or FALLBACK_FREE_BYTES
    return min([available, *_cgroup_free()])


def peak_rss_bytes() -> int:
    """Largest resident size of this process so far, in bytes; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource  # POSIX only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_cuda_bytes(device: torch.device) -> int:
    """Largest amount allocated on a CUDA device so far, in bytes; 0 for other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _half_of_physical() -> int | None:
    # macOS counts most of its cache as used; half of what is installed is a fair guess there.
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return None


def _cgroup_free() -> list[int]:
    """Free bytes under each control-group limit that applies (v1 and v2)."""
    roots = {Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")}
    try:
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                base = Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
                roots.update([base, *base.parents[: len(Path(path).parts)]])
    except (OSError, ValueError):
        pass
    return [free for root in roots if (free := _free_under(root)) is not None]


def _free_under(root: Path) -> int | None:
    for limit_name, used_name, cache_key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit = (root / limit_name).read_text(encoding="ascii").strip()
            used = int((root / used_name).read_text(encoding="ascii"))
            stat = (root / "memory.stat").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            continue
        if limit == "max":
            return None
        # File cache counts as used but is given back on demand.
        cache = sum(int(line.split()[1]) for line in stat if line.startswith(cache_key + " "))
        return max(0, int(limit) - used + cache)
    return None


def _free_windows() -> int | None:
    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", *"abcde")),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return status.available
