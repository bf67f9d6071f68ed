"""The journal of a job: what makes a killed run go on where it stopped.

Beside `NAME` lies the folder `NAME.oasis` while the job runs:

- `manifest.json`: input, settings, model, versions and the plan. Written once, atomically.
- `segments.jsonl`: one line per finished segment with the checksum of its file, appended and
  synced; a line that was cut short by a crash is ignored.
- `images`: finished pictures that wait for their names, where the result is pictures.
- `segment_000000.mkv` ...: the finished segments; a file gets this name when it is complete.
- `lock`: held by the process that works on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..digests import file_fingerprint, file_sha256
from ..video import SEGMENT_SUFFIX, VideoError
from ..video.errors import write_error
from .lock import FileLock

logger = logging.getLogger(__name__)

FORMAT = 1
FOLDER_SUFFIX = ".oasis"
MANIFEST = "manifest.json"
RECORDS = "segments.jsonl"
LOCK = "lock"
IMAGES = "images"
MAX_NAME_BYTES = 255


class JournalError(VideoError):
    """The journal of an earlier run cannot be continued; one sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRecord:
    """One finished segment."""

    index: int
    """Position among the job's segments."""
    first_frame: int
    """Number of its first frame in the clip."""
    num_frames: int
    """Frames it holds."""
    sha256: str
    """Of its file."""
    tile: tuple[int, int]
    """Tile (height, width) in use; running out of memory makes it smaller."""
    shot: int
    """Number of its shot."""


def journal_path(destination: Path) -> Path:
    """The folder that holds the journal of an output."""
    if not destination.name:  # the current folder, "."
        destination = destination.absolute()
    name = destination.name
    if len(os.fsencode(name + FOLDER_SUFFIX)) > MAX_NAME_BYTES:
        # File systems refuse longer names; the hash keeps outputs with one beginning apart.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        room = MAX_NAME_BYTES - len(FOLDER_SUFFIX) - len(digest) - 1
        name = f"{os.fsencode(name)[:room].decode(errors='ignore')}-{digest}"
    return destination.with_name(name + FOLDER_SUFFIX)


def segment_name(index: int, token: str = "") -> str:
    """The name of a segment's file.

    Args:
        index: Of the segment, from 0.
        token: Tells a file that is not the journal's yet from all others.
    """
    return f"segment_{index:06d}{token and '.' + token}{SEGMENT_SUFFIX}"


class Journal:
    """The journal of one job, locked; use as a context manager.

    Args:
        folder: From `journal_path`.
        identity: Everything that must be the same for segments to belong together, as JSON values:
            named groups of named values.
        about: What else a reader of the journal wants to know.
        is_fresh: Throw away what an earlier run left.
        before_record: Called before anything is noted as done; may raise.

    Raises:
        JournalError: An earlier run was made with something else.
        VideoError: Another process works on it, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, dict[str, Any]],
        *,
        about: dict[str, Any] | None = None,
        is_fresh: bool = False,
        before_record: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.records: list[SegmentRecord] = []
        """Finished segments whose files are intact, by index."""
        self.plan: dict[str, Any] | None = None
        """The plan that the earlier run followed."""
        self.result: dict[str, Any] | None = None
        """Fingerprint of the result, once it is complete."""
        self._about, self._before_record = about or {}, before_record
        self._identity = _with_format(identity)
        with _writing(folder):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.absolute().parent)
            self._lock = FileLock(folder / LOCK)
        try:
            if is_fresh:
                self._remove_files()
            self._read()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the journal. One without a finished segment has no use and is removed."""
        # The file decides: an interrupt may come between writing a record and noting it here.
        if self._lock.path.exists() and not (self.folder / RECORDS).exists():
            self.remove()
        self._lock.release()

    def segment_path(self, index: int) -> Path:
        """Where the file of a segment lies."""
        return self.folder / segment_name(index)

    def start(self, plan: dict[str, Any]) -> None:
        """Write the manifest, unless an earlier run has."""
        if self.plan is None:
            self.plan = plan
            self._write_manifest()

    def record(self, record: SegmentRecord) -> None:
        """Add a finished segment whose file is complete and synced."""
        sync_folder(self.folder)  # the segment's name must not be lost when its line is not
        self._append({"segment": asdict(record)})
        # In order, though a damaged one is done again later and a cluster ends them as it likes.
        place = bisect_left(self.records, record.index, key=lambda r: r.index)
        is_there = place < len(self.records) and self.records[place].index == record.index
        self.records[place : place + is_there] = [record]

    def record_result(self, path: Path) -> None:
        """Note the finished file before it gets its final name."""
        self.record_done(file_fingerprint(path))

    def record_done(self, result: dict[str, Any]) -> None:
        """Note that everything is complete and only has to get its final names."""
        self.result = result
        self._append({"result": result})

    def remove(self) -> None:
        """Remove the journal after success. Files that it did not make stay."""
        try:
            self._remove_files()
            if os.name == "nt":
                self._lock.release()  # Windows does not remove what is open
            self._lock.path.unlink(missing_ok=True)
            self.folder.rmdir()
        except OSError as error:  # the result is complete: no reason to call the run failed
            logger.warning("%s stays (%s)", self.folder, error.strerror)
        self.records = []

    # Reading

    def _read(self) -> None:
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            self._remove_files()  # a crash before the manifest leaves nothing of value
            return
        self.plan = _plan_of(self.folder, self._identity)
        self._read_records()

    @staticmethod
    def read_records(folder: Path) -> list[SegmentRecord]:
        """Finished segments of a journal that another process may hold, by index, unchecked."""
        return Journal._parse_records(folder / RECORDS)[0]

    @staticmethod
    def _parse_records(path: Path) -> tuple[list[SegmentRecord], dict[str, Any] | None, bool]:
        """Records, result if there is one, and whether the file ends in the middle of a line."""
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        records: dict[int, SegmentRecord] = {}
        result = None
        for line in lines[:-1]:
            entry = _parse(line)
            if entry is None:
                logger.warning("%s has a damaged line, which is ignored", path)
            elif isinstance(entry, SegmentRecord):
                records[entry.index] = entry
            else:
                result = entry
        return [records[index] for index in sorted(records)], result, bool(lines[-1])

    def _read_records(self) -> None:
        found, self.result, is_torn = self._parse_records(self.folder / RECORDS)
        # Segments may be gone because the run was killed while it cleaned up: the result stays.
        self.records = [record for record in found if self._is_intact(record)]
        if is_torn or len(self.records) < len(found):
            self._rewrite_records()

    def _is_intact(self, record: SegmentRecord) -> bool:
        path = self.segment_path(record.index)
        if path.is_file() and file_sha256(path) == record.sha256:
            return True
        logger.warning(
            "segment %d (frames %d to %d) is missing or damaged and is done again",
            record.index,
            record.first_frame,
            record.first_frame + record.num_frames - 1,
        )
        path.unlink(missing_ok=True)
        return False

    # Writing

    def _write_manifest(self) -> None:
        content = {"identity": self._identity, "about": self._about, "plan": self.plan}
        self._write_atomically(MANIFEST, json.dumps(_checked(content), indent=1) + "\n")

    def _rewrite_records(self) -> None:
        entries = [{"segment": asdict(record)} for record in self.records]
        entries += [{"result": self.result}] if self.result else []
        self._write_atomically(RECORDS, "".join(json.dumps(_checked(e)) + "\n" for e in entries))

    def _write_atomically(self, name: str, text: str) -> None:
        path, part = self.folder / name, self.folder / (name + ".part")
        with _writing(path):
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(self.folder)

    def _append(self, entry: dict[str, Any]) -> None:
        if self._before_record is not None:
            self._before_record()
        path = self.folder / RECORDS
        is_new = not path.exists()
        with _writing(path):
            with path.open("ab", buffering=0) as file:  # what is left in a buffer is written later
                start = file.seek(0, os.SEEK_END)
                line = json.dumps(_checked(entry)).encode() + b"\n"
                try:
                    while line:
                        line = line[file.write(line) :]
                    os.fsync(file.fileno())
                except OSError:
                    # A full disk must not leave half a line that the next one would join.
                    os.ftruncate(file.fileno(), start)
                    raise
            if is_new:
                sync_folder(self.folder)

    def _remove_files(self) -> None:
        shutil.rmtree(self.folder / IMAGES, ignore_errors=True)
        # The manifest and the records go last: until then the journal says that all is done.
        for ours in (("segment_", "result."), (MANIFEST,), (RECORDS,)):
            for path in self.folder.iterdir():
                if path.is_file() and path.name.startswith(ours):
                    path.unlink()
        self.records, self.plan, self.result = [], None, None


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot
        logger.debug("syncing %s: %s", folder, error)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a journal: objects "identity", "about" and "plan".

    Raises:
        JournalError: It is missing or damaged.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        # Another format has another checksum, if any; it is refused by its number.
        if found["identity"]["format"] == {"number": FORMAT} and not _is_sound(found):
            raise ValueError("its checksum is wrong")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise JournalError(
            f"the journal {str(folder)!r} cannot be read ({error}); start over with --fresh"
        ) from error
    return found


def unfinished_plan(folder: Path, identity: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The plan that an unfinished run would go on with; None where there is no such run.

    Args:
        folder: From `journal_path`.
        identity: As for `Journal`.

    Raises:
        JournalError: The run was made with something else.
    """
    if not (folder / MANIFEST).exists():
        return None
    return _plan_of(folder, _with_format(identity))


def _with_format(identity: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {"format": {"number": FORMAT}, **identity}


def _plan_of(folder: Path, identity: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = read_manifest(folder)
    if changes := _changes(found["identity"], identity):
        raise JournalError(
            f"the unfinished run in {str(folder)!r} cannot be continued because "
            f"{'; '.join(changes)}: use the same as before or start over with --fresh"
        )
    return found["plan"]


def _parse(line: bytes) -> SegmentRecord | dict[str, Any] | None:
    """A finished segment, the result, or None for a line that is neither."""
    try:
        entry = json.loads(line)
        if not _is_sound(entry):
            return None
        if "result" in entry:
            return entry["result"]
        values = entry["segment"]
        return SegmentRecord(**values | {"tile": tuple(values["tile"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """JSON values with a checksum, so that one flipped bit on the disk is noticed."""
    text = json.dumps(content, sort_keys=True)
    return content | {"check": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _is_sound(content: dict[str, Any]) -> bool:
    return content == _checked({name: content[name] for name in content if name != "check"})


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two identities, in words."""
    if before.get("format") != now["format"]:
        return [f"its format is {before.get('format')}, this version writes {now['format']}"]
    changes = []
    for group, values in now.items():
        earlier = before.get(group, {})
        if group == "source" and earlier != values:
            changes.append("the source file has changed")
            continue
        changes += [
            f"{group} {name} was {earlier.get(name)!r} and is {value!r}"
            for name, value in values.items()
            if earlier.get(name) != value
        ]
    return changes


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the system's errors into the file layer's sentence."""
    try:
        yield
    except VideoError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
