"""Watching a forked run at every system call by which it changes files.

The kernel hands each such call to this process before it happens (seccomp user notification,
Linux 5.5), whoever makes it: Python, PyAV or FFmpeg. It may be let through, failed, or the last.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .child import Child, Outcome

_CALLS = {
    # name: number on x86-64 and on ARM64, position of a descriptor and of a path
    "write": (1, 64, 0, None),
    "pwrite64": (18, 68, 0, None),
    "writev": (20, 66, 0, None),
    "ftruncate": (77, 46, 0, None),
    "fsync": (74, 82, 0, None),
    "fdatasync": (75, 83, 0, None),
    "open": (2, None, None, 0),
    "openat": (257, 56, 0, 1),
    "mkdir": (83, None, None, 0),
    "mkdirat": (258, 34, 0, 1),
    "rename": (82, None, None, 1),
    "renameat": (264, 38, 2, 3),
    "renameat2": (316, 276, 2, 3),
    "unlink": (87, None, None, 0),
    "unlinkat": (263, 35, 0, 1),
    "rmdir": (84, None, None, 0),
}
_MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_FLAGS_AT = {"open": 24, "openat": 32}  # where a call's open flags lie
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_NEW_LISTENER, _GO_ON = 8, 1
_NO_NEW_PRIVS, _AT_FDCWD = 38, -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that would change a file."""

    name: str
    """The system's, as in `renameat2`."""
    path: Path
    """What it changes; the new name where there are two."""
    source: Path | None = None
    """Of a rename: the old name, as far as the call spells it out."""

    @property
    def kind(self) -> str:
        """The name without its variants."""
        name = self.name.removesuffix("64").removesuffix("2").removesuffix("at")
        return {"writev": "write", "pwrite": "write", "fdatasync": "fsync"}.get(name, name)


Decide = Callable[[Call], int | None]
"""Given a call before it happens: an error number to fail it with, 0 to kill the run, None."""


def is_possible() -> bool:
    """Whether this machine can; needs Linux 5.5 or later on x86-64 or ARM64."""
    if platform.machine() not in _MACHINES or not hasattr(fcntl, "ioctl"):
        return False
    return run_watched(lambda: None, Path("/"), lambda _: None).kind == "done"


def run_watched(work: Callable[[], Any], folder: Path, decide: Decide) -> Outcome:
    """Do something in a child and decide on each of its calls that would change a folder.

    Args:
        work: What to do; returns JSON values.
        folder: Calls on it and on what lies in it, at any depth, are asked about.
        decide: Called in order of the calls, in a thread of this process.
    """
    ours, theirs = socket.socketpair()

    def watched() -> Any:
        ours.close()
        socket.send_fds(theirs, [b"x"], [_listen()])
        return work()

    child = Child(watched)
    theirs.close()
    watcher = threading.Thread(target=_watch, args=(ours, child.pid, folder, decide))
    watcher.start()
    outcome = child.wait()
    watcher.join()
    ours.close()
    return outcome


def _listen() -> int:
    """Have the kernel ask about this process from now on; returns where it asks."""
    architecture, seccomp = _MACHINES[platform.machine()]
    column = list(_MACHINES).index(platform.machine())
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW)]
    for name, numbers in _CALLS.items():
        if numbers[column] is None:
            continue
        asks = [(_RETURN, 0, 0, _NOTIFY)]
        if name in _FLAGS_AT:  # opening for reading changes nothing
            flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            asks = [(_LOAD, 0, 0, _FLAGS_AT[name]), (_ANY_BIT, 0, 1, flags), *asks]
            asks.append((_RETURN, 0, 0, _ALLOW))
        program += [(_LOAD, 0, 0, 0), (_EQUAL, 0, len(asks), numbers[column]), *asks]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    descriptor = libc.syscall(seccomp, 1, _NEW_LISTENER, ctypes.byref(header))
    if descriptor < 0:
        raise RuntimeError(f"seccomp user notification: {os.strerror(ctypes.get_errno())}")
    return descriptor


def _watch(ours: socket.socket, pid: int, folder: Path, decide: Decide) -> None:
    found = socket.recv_fds(ours, 1, 1)[1]
    if not found:
        return  # the child ended before it could be watched
    (listener,) = found
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    while all(event & select.POLLIN for _, event in waiting.poll()):
        try:
            request = bytearray(80)
            fcntl.ioctl(listener, _RECEIVE, request)
            identity, answer = struct.unpack_from("=Q", request)[0], None
            call = _call(request)
            if call is not None and folder in (call.path, *call.path.parents):
                answer = decide(call)
            if answer == 0:
                os.kill(pid, signal.SIGKILL)
                continue
            reply = struct.pack("=Qqi", identity, 0, -(answer or 0)) + struct.pack(
                "=I", 0 if answer else _GO_ON
            )
            fcntl.ioctl(listener, _ANSWER, reply)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the asking thread is gone
                raise
    os.close(listener)


def _call(request: bytearray) -> Call | None:
    _, thread, _, number, _, _, *arguments = struct.unpack_from("=QIIiIQ6Q", request)
    column = list(_MACHINES).index(platform.machine())
    name = next(name for name, numbers in _CALLS.items() if numbers[column] == number)
    descriptor_at, path_at = _CALLS[name][2:]
    try:
        folder = None if descriptor_at is None else arguments[descriptor_at] & 0xFFFFFFFF
        if path_at is None:
            return Call(name=name, path=Path(f"/proc/{thread}/fd/{folder}").readlink())
        path = _resolved(thread, folder, arguments[path_at])
        source = None
        if name.startswith("rename"):
            start = None if folder is None else arguments[0] & 0xFFFFFFFF
            source = _resolved(thread, start, arguments[path_at - 2 + (folder is None)])
        return Call(name=name, path=path, source=source)
    except OSError:
        return None  # it is gone, or names what is not there


def _resolved(thread: int, folder: int | None, address: int) -> Path:
    """The path at an address of another process."""
    is_here = folder is None or folder == _AT_FDCWD & 0xFFFFFFFF
    start = Path(f"/proc/{thread}", "cwd" if is_here else f"fd/{folder}").readlink()
    memory, data = os.open(f"/proc/{thread}/mem", os.O_RDONLY), b""
    try:
        while b"\0" not in data and len(data) < 1 << 14:
            place = address + len(data)
            data += os.pread(memory, 4096 - place % 4096, place)
    finally:
        os.close(memory)
    return start / os.fsdecode(data.split(b"\0")[0])
