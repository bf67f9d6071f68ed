"""A run touches no network, loads no pickle, starts no program."""

from __future__ import annotations

import ctypes
import platform
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import oasis_core

from .child import run_in_child
from .clips import write_clip
from .tally import Campaign

_FORBIDDEN_EVENTS = (
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request",
    "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
)  # fmt: skip
_SOCKET_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_KILL, _ALLOW = 0x80000000, 0x7FFF0000


def isolated(campaign: Campaign) -> None:
    """Run everything a user runs while the kernel kills whoever opens a socket."""
    with campaign.fault("any network socket is deadly (seccomp)") as (fault, folder):
        if platform.machine() not in _SOCKET_CALLS or sys.platform != "linux":
            fault.note = "not tried: needs Linux on x86-64 or ARM64"
            return
        control = run_in_child(_open_socket)
        fault.count(None if control.kind == "killed" else f"the trap does not work: {control}")
        clip = write_clip(folder / "in.mkv")
        fault.count(_problem(run_in_child(lambda: _use(campaign, clip, _deny_sockets))))
        for name, text in _LURES.items():
            lure = folder / name
            lure.write_text(text, encoding="utf-8")
            outcome = run_in_child(lambda lure=lure: _use(campaign, lure, _deny_sockets))
            is_good = outcome.kind == "refused" and outcome.is_clean
            fault.count(None if is_good else f"{name}: {outcome.kind} {outcome.text}")
    with campaign.fault("pickle, programs and sockets from Python (audit hook)") as (
        fault,
        folder,
    ):
        control = run_in_child(_pickle)
        fault.count(None if "forbidden" in control.text else f"the trap does not work: {control}")
        clip = write_clip(folder / "in.mkv")
        fault.count(_problem(run_in_child(lambda: _use(campaign, clip, _deny_events))))
    with campaign.fault("words in the source: eval, exec, shell, pickle without limits") as (
        fault,
        _,
    ):
        for path in sorted(Path(oasis_core.__file__).parents[1].rglob("*.py")):
            parts = path.relative_to(Path(oasis_core.__file__).parents[1]).parts
            if parts[0] in ("oasis_core", "nodes"):
                fault.count(_bad_words(path))


_LURES = {
    "playlist.m3u8": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "playlist.mp4": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "list.mkv": "ffconcat version 1.0\nfile 'http://127.0.0.1:9/a.mp4'\n",
    "stream.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "manifest.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>'
    "http://127.0.0.1:9/</BaseURL></MPD>",
}
_WORDS = re.compile(
    r"(?<![\w.])(eval|exec)\(|shell=True|os\.system|os\.popen|pickle\.load|yaml\.load|"
    r"torch\.load\((?!.*weights_only=True)|weights_only=False|marshal\.|shelve\.|__import__\("
)


def _bad_words(path: Path) -> str | None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if found := _WORDS.search(line):
            return f"{path.name}:{number}: {found.group(0)}"
    return None


def _problem(outcome: Any) -> str | None:
    return None if outcome.kind == "done" else f"{outcome.kind} {outcome.text}"


def _use(campaign: Campaign, source: Path, deny: Any) -> str:
    deny()
    oasis_core.load("oasis-tiny", device="cpu", dtype="float32")
    out = source.with_name(source.name + ".out.mp4")
    report = oasis_core.upscale_file(source, out, model=campaign.upscaler, scale=2, compare="side")
    return report.destination


def _deny_sockets() -> None:
    """Have the kernel end this process at its first IPv4 or IPv6 socket."""
    architecture, number = _SOCKET_CALLS[platform.machine()]
    program = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 0, 6, architecture),  # another one: allow, it is not ours to judge
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 4, number),
        (0x20, 0, 0, 16),  # load its first argument, the address family
        (0x15, 1, 0, socket.AF_INET),
        (0x15, 0, 1, socket.AF_INET6),
        (0x06, 0, 0, _KILL),
        (0x06, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise RuntimeError("no_new_privs is refused")
    if libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(header), 0, 0):
        raise RuntimeError("seccomp is refused")


def _deny_events() -> None:
    def hook(event: str, arguments: tuple) -> None:
        if event in _FORBIDDEN_EVENTS:
            raise RuntimeError(f"forbidden: {event} {arguments!r:.200}")

    sys.addaudithook(hook)


def _open_socket() -> None:
    _deny_sockets()
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


def _pickle() -> None:
    import pickle

    data = pickle.dumps(Path)
    _deny_events()
    pickle.loads(data)
