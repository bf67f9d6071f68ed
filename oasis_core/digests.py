"""Hashes of files, and what identifies files without reading all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .remote import RemoteFile

PIECE_BYTES = 1 << 20
"""Bytes read at a time, and at each end of a file that is identified by its ends."""


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(PIECE_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_fingerprint(path: Path | RemoteFile) -> dict[str, Any]:
    """What identifies a file without reading all of it: size, time, and a hash of both ends."""
    if not isinstance(path, Path):  # behind a URL, or in memory
        return path.fingerprint()
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(PIECE_BYTES))
        file.seek(max(0, status.st_size - PIECE_BYTES))
        digest.update(file.read(PIECE_BYTES))
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256_of_ends": digest.hexdigest(),
    }


def listing_fingerprint(paths: Sequence[Path]) -> dict[str, Any]:
    """What identifies a sequence of files: names, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return {"files": len(paths), "sha256_of_listing": digest.hexdigest()}
