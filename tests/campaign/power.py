"""What a power cut leaves of a folder: at worst only what was synced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

from .syscalls import Call


class Disk:
    """Follows the calls on a folder and knows what had to be on the disk by then.

    A file's bytes are safe when it was synced, its name when its folder was.

    Args:
        folder: The folder, with whatever it holds safe.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bytes: dict[int, bytes] = {}
        self._times: dict[int, int] = {}
        self._names: dict[Path, int] = {}
        self._num_gone = 0
        for path in folder.rglob("*"):
            self._note(path)

    def before(self, call: Call) -> None:
        """Take note of a call that is about to be let through."""
        if call.kind == "fsync" and call.path.is_dir():
            kept = {p: key for p, key in self._names.items() if p.parent != call.path}
            here = {p: p.stat().st_ino for p in call.path.iterdir() if not p.is_dir()}
            self._names = kept | here
        elif call.kind == "fsync":
            self._note_bytes(call.path)
        elif call.kind in ("unlink", "rename") and call.path.is_file():
            # Its number may be given to another file, while its name may come back.
            inode, self._num_gone = call.path.stat().st_ino, self._num_gone - 1
            self._bytes[self._num_gone] = self._bytes.pop(inode, b"")
            self._times[self._num_gone] = self._times.pop(inode, 0)
            self._names = {
                p: self._num_gone if key == inode else key for p, key in self._names.items()
            }

    def lose_bytes(self, random: Random) -> None:
        """Leave all names, and of bytes what was synced, or more, or zeros, as systems do."""
        for path in self.folder.rglob("*"):
            if not path.is_file():
                continue
            inode = path.stat().st_ino
            now, safe = path.read_bytes(), self._bytes.get(inode, b"")
            way = random.choice(("safe", "some", "zeros"))
            if way == "some":
                safe += now[len(safe) : random.randint(len(safe), max(len(safe), len(now)))]
            elif way == "zeros":
                safe += bytes(max(0, len(now) - len(safe)))
            self._leave(path, safe, inode)

    def lose_names(self) -> None:
        """Leave only what was synced, under the names that were."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path, key in self._names.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._leave(path, self._bytes.get(key, b""), key)

    def _leave(self, path: Path, content: bytes, key: int) -> None:
        path.write_bytes(content)
        if content == self._bytes.get(key):  # its time was synced with it
            os.utime(path, ns=(self._times[key],) * 2)

    def _note(self, path: Path) -> None:
        if path.is_file():
            self._names[path] = path.stat().st_ino
            self._note_bytes(path)

    def _note_bytes(self, path: Path) -> None:
        status = path.stat()
        self._bytes[status.st_ino] = path.read_bytes()
        self._times[status.st_ino] = status.st_mtime_ns
