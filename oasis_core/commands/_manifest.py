"""Lists of films: CSV, JSON lines, and patterns such as `in/**/*.mp4`."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..remote import RemoteFile, as_source, is_url

SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One film of a list."""

    source: Path | RemoteFile
    destination: Path | None = None
    """Where its result goes, seen from the destination's folder; None leaves the name to us."""


def is_list(source: Path | RemoteFile) -> bool:
    """Whether a source is a list of films or a pattern that stands for several."""
    if source.suffix.lower() in SUFFIXES:
        return True
    if isinstance(source, RemoteFile):
        return "*" in str(source)
    return glob.has_magic(str(source)) and not source.exists()


def read_rows(sources: Sequence[Path | RemoteFile]) -> list[Row]:
    """The films that lists, patterns and plain names stand for, in order.

    A list's relative paths start at the list. CSV has a column `source` and may have one
    `destination`, or just one path a line without a header; JSON lines have the same as keys.

    Raises:
        ValueError: A list cannot be read, or a pattern finds nothing.
    """
    rows = []
    for source in sources:
        if not is_list(source):
            rows.append(Row(source=source))
        elif source.suffix.lower() not in SUFFIXES:
            rows += _matches(source)
        else:
            rows += _read_list(source)
    return rows


def _matches(pattern: Path | RemoteFile) -> list[Row]:
    if isinstance(pattern, RemoteFile):
        found = [Row(source=file) for file in pattern.matches()]
        if not found:
            raise ValueError(f"the pattern {str(pattern)!r} matches no file; check it")
        return found
    paths = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 - Path.glob knows no absolute patterns
    found = [Row(source=path) for path in paths if path.is_file()]
    if not found:
        raise ValueError(f"the pattern {str(pattern)!r} matches no file; check it")
    return found


def _read_list(path: Path | RemoteFile) -> list[Row]:
    if isinstance(path, RemoteFile):
        raise ValueError(f"lists must be files on a disk, got {str(path)!r}; download it first")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list {str(path)!r} cannot be read ({error})") from error
    entries = _csv(text) if path.suffix.lower() == ".csv" else _json_lines(text, path)
    rows = []
    for number, entry in entries:
        source, destination = entry.get("source"), entry.get("destination") or None
        if not isinstance(source, str) or not source.strip():
            raise ValueError(f"{str(path)!r} line {number} must name a source, got {entry!r}")
        if destination is not None and not isinstance(destination, str):
            raise ValueError(f"{str(path)!r} line {number}: destination must be a path")
        rows.append(
            Row(
                source=_listed_source(source.strip(), path.parent),
                destination=None if destination is None else Path(destination.strip()),
            )
        )
    if not rows:
        raise ValueError(f"the list {str(path)!r} names no film")
    return rows


def _listed_source(name: str, folder: Path) -> Path | RemoteFile:
    return as_source(name) if is_url(name) else folder / name


def _csv(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = [(n, row) for n, row in enumerate(csv.reader(text.splitlines()), start=1) if any(row)]
    names = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if "source" in names:
        yield from ((n, dict(zip(names, row, strict=False))) for n, row in lines[1:])
    else:
        yield from ((n, {"source": row[0]}) for n, row in lines)


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{str(path)!r} line {number} is not JSON ({error})") from error
        if isinstance(entry, str):
            entry = {"source": entry}
        if not isinstance(entry, dict):
            raise ValueError(f"{str(path)!r} line {number} must be an object or a path")
        yield number, entry
