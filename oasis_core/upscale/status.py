"""How far runs are, read from their journals while others write them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..remote import is_url
from ..video import VideoError, probe
from .journal import FOLDER_SUFFIX, LOCK, MANIFEST, RECORDS, Journal, journal_path
from .lock import is_held


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """One unfinished run, as its journal tells."""

    destination: str
    """What it is to write."""
    source: str | None
    """What it reads, if the journal says."""
    state: str
    """"running", "stopped" (the same command continues it) or "joining"."""
    num_segments: int
    """Segments that are done."""
    num_frames: int
    """Frames in them."""
    total_frames: int | None
    """Frames of the source, about; None where it does not say."""
    num_gaps: int
    """Segments that are missing before the last one done: in work, or lost with a worker."""
    holder: str
    """Process and machine that work on it, or did last."""
    silent_s: float
    """Seconds since the last segment was done."""
    left_s: float | None
    """Seconds to go at the pace so far, if it is running."""

    def to_json(self) -> dict[str, Any]:
        """The status as plain JSON values."""
        return asdict(self)


def run_statuses(destination: Path) -> list[RunStatus]:
    """The unfinished runs of an output, or of all outputs in a folder.

    Args:
        destination: An output, its `.oasis` folder, or a folder that holds outputs.

    Raises:
        VideoError: A journal cannot be read.
    """
    folder = destination if destination.name.endswith(FOLDER_SUFFIX) else journal_path(destination)
    if (folder / MANIFEST).is_file():
        return [_status(folder)]
    if not destination.is_dir():
        return []
    folders = sorted(path.parent for path in destination.glob(f"*{FOLDER_SUFFIX}/{MANIFEST}"))
    return [_status(folder) for folder in folders]


def _status(folder: Path) -> RunStatus:
    manifest, records = folder / MANIFEST, folder / RECORDS
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        source, setting = content["about"].get("source"), content["identity"]["setting"]
        begun, now = manifest.stat().st_mtime, time.time()
        changed = records.stat().st_mtime if records.is_file() else begun
        done = Journal.read_records(folder)
        holder = (folder / LOCK).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VideoError(
            f"the journal {str(folder)!r} cannot be read ({error}); it may just have been finished"
        ) from error
    num_frames = sum(record.num_frames for record in done)
    total = content["about"].get("num_frames")
    if total is None and setting.get("start_s") is None:
        total = _total(source)
    is_running = is_held(folder / LOCK)
    is_joining = total is not None and num_frames >= total
    left_s = None
    if is_running and num_frames and total is not None:
        left_s = max(0.0, (changed - begun) / num_frames * (total - num_frames))
    state = "running" if is_running else "stopped"
    return RunStatus(
        destination=str(folder.with_name(folder.name.removesuffix(FOLDER_SUFFIX))),
        source=source,
        state="joining" if is_running and is_joining else state,
        num_segments=len(done),
        num_frames=num_frames,
        total_frames=total,
        num_gaps=done[-1].index + 1 - len(done) if done else 0,
        holder=holder or "unknown process",
        silent_s=max(0.0, now - changed),
        left_s=left_s,
    )


def _total(source: str | None) -> int | None:
    if source is None or is_url(source):  # not over the network for a percentage
        return None
    try:
        return probe(Path(source)).num_frames
    except VideoError:
        return None
