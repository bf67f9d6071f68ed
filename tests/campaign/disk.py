"""Full disks, folders that may not be written, odd names, links, damaged journals, clocks."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from oasis_core.upscale import journal_path

from .child import Outcome, run_in_child
from .clips import contents
from .kill import Task, prepare, result_of, tasks
from .marks import Marks, Trigger
from .marks import install as install_marks
from .tally import Campaign, Fault

NOBODY = 65534
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18
_MS_REMOUNT = 32
_DAY_S = 86400


def left_alone(campaign: Campaign, task: Task, folder: Path) -> dict[str, Any]:
    """What a task leaves when nothing goes wrong."""
    prepare(task, folder)
    outcome = run_in_child(lambda: task.run(campaign, folder))
    if outcome.kind != "done":
        raise RuntimeError(outcome.text)
    return contents(result_of(task, folder))


def problem_after(
    task: Task, place: Path, outcome: Outcome, expected: dict[str, Any]
) -> str | None:
    """What is wrong after a run that may have been refused."""
    result = result_of(task, place)
    there = contents(result) if result.exists() else None
    if not outcome.is_clean:
        return f"{outcome.kind}: {outcome.text}"
    if outcome.kind == "done":
        return None if there == expected else "done, but another result"
    if there and (result.is_file() or any(there[n] != expected.get(n) for n in there)):
        return "refused, but something has the final name"
    return None


def goes_on(campaign: Campaign, task: Task, place: Path, expected: dict[str, Any]) -> str | None:
    """Whether the same call, the fault gone, gives the same result."""
    outcome = run_in_child(lambda: task.run(campaign, place))
    if outcome.kind != "done":
        return f"and then {outcome.kind}: {outcome.text}"
    return None if contents(result_of(task, place)) == expected else "and then another result"


def full_disk(campaign: Campaign) -> None:
    """Let every file end at a limit, and a small disk fill up, at sizes all along the way."""
    with campaign.fault("a write fails: a file may not grow beyond a limit") as (fault, folder):
        for task in tasks(folder)[: 3 if campaign.is_long else 2]:
            expected = left_alone(campaign, task, folder / f"whole-{Path(task.name).name}")
            random = campaign.random("limit")
            for number in range(campaign.cases(6, 150)):
                place = folder / f"{Path(task.name).name}-{number}"
                prepare(task, place)
                limit = int(2 ** random.uniform(0, 15))
                outcome = run_in_child(
                    lambda task=task, place=place: task.run(campaign, place), file_bytes=limit
                )
                problem = problem_after(task, place, outcome, expected)
                problem = problem or goes_on(campaign, task, place, expected)
                fault.count(problem and f"{task.name}, {limit} bytes: {problem}")
    with campaign.fault("the disk is full (tmpfs of 4 to 160 KiB)") as (fault, folder):
        task = tasks(folder)[0]
        expected = left_alone(campaign, task, folder / "whole")
        for number in range(campaign.cases(6, 60)):
            pages = 1 + 39 * number // max(1, campaign.cases(6, 60) - 1)
            outcome = in_mount_namespace(
                folder / f"disk{number}",
                f"size={4096 * pages}",
                lambda place: _on_small_disk(campaign, task, place, expected),
            )
            if outcome.value == "no tmpfs":
                fault.note = "not tried: this machine does not let us mount a tmpfs"
                break
            problem = outcome.value if outcome.kind == "done" else f"{outcome.kind} {outcome.text}"
            fault.count(problem and f"{4 * pages} KiB: {problem}")


def in_mount_namespace(place: Path, options: str, work: Callable[[Path], Any]) -> Outcome:
    """Do something in a child for which a folder is a small disk of its own.

    The outcome's value is what the work returns, or "no tmpfs" where none can be mounted.
    """

    def mounted() -> Any:
        place.mkdir(exist_ok=True)
        return work(place) if _mount_tmpfs(place, options) else "no tmpfs"

    return run_in_child(mounted)


def _remount(place: Path, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", _MS_REMOUNT, options.encode()):
        raise RuntimeError(f"remounting: {os.strerror(ctypes.get_errno())}")


def _on_small_disk(
    campaign: Campaign, task: Task, place: Path, expected: dict[str, Any]
) -> str | None:
    """Fill a disk, then make room and go on."""
    outcome = run_in_child(lambda: task.run(campaign, place))
    if problem := problem_after(task, place, outcome, expected):
        return problem
    _remount(place, "size=64m")
    return goes_on(campaign, task, place, expected)


def _mount_tmpfs(place: Path, options: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    new_user = 0 if os.geteuid() == 0 else 0x10000000
    if libc.unshare(_CLONE_NEWNS | new_user):
        return False
    if libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
        return False
    return libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options.encode()) == 0


def places(campaign: Campaign) -> None:
    """Try names and places that are unusual or forbidden."""
    with campaign.fault("file names: spaces, unicode, emoji, dashes, 255 bytes, links") as (
        fault,
        folder,
    ):
        task = tasks(folder)[0]
        expected = left_alone(campaign, task, folder / "whole")
        for number, stem in enumerate(_STEMS):
            place = folder / f"case{number}"
            place.mkdir()
            _try_name(campaign, fault, task, place, stem, expected)
        _try_links(campaign, fault, task, folder / "links", expected)
    with campaign.fault("output that may not be written") as (fault, folder):
        task = tasks(folder)[0]
        if os.geteuid():
            user = None
        else:
            user = NOBODY
            folder.chmod(0o755)
            campaign.scratch.chmod(0o755)
        for name in ("no-write", "no-search", "journal-no-write"):
            place = folder / name
            place.mkdir()
            if name == "journal-no-write":
                place.chmod(0o777)
                journal_path(place / task.name).mkdir(mode=0o555)
            else:
                place.chmod(0o555 if name == "no-write" else 0o666)
            outcome = run_in_child(lambda place=place: task.run(campaign, place), user=user)
            is_good = outcome.kind == "refused" and outcome.is_clean
            fault.count(None if is_good else f"{name}: {outcome.kind} {outcome.text}")
            place.chmod(0o755)


_STEMS = (
    "two words",
    "-rf",
    "--overwrite",
    "snow ☃ and 🎬",
    "עברית",
    "quote ' \" ` $HOME %s %05d.x",
    "new\nline",
    "concat:a|b",
    "http:--x",
    ".hidden",
    "a" * 251,
    "ä" * 125,
    "🎬" * 62,
)


def _try_name(
    campaign: Campaign, fault: Fault, task: Task, place: Path, stem: str, expected: dict[str, Any]
) -> None:
    source = place / f"{stem}.mkv"
    shutil.copy(task.source, source)
    odd = Task(source=source, name=f"{stem}.mp4", options=task.options)
    outcome = run_in_child(lambda: odd.run(campaign, place))
    if outcome.kind != "done":
        fault.count(f"{stem!r}: {outcome.kind} {outcome.text}")
    elif {p.name for p in place.iterdir()} != {source.name, odd.name}:
        fault.count(f"{stem!r}: other files are left")
    else:
        fault.count(None if contents(place / odd.name) == expected else f"{stem!r}: other frames")


def _try_links(
    campaign: Campaign, fault: Fault, task: Task, folder: Path, expected: dict[str, Any]
) -> None:
    folder.mkdir()
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    (folder / "source.mkv").symlink_to(task.source)
    linked = Task(source=folder / "source.mkv", name="link/out.mp4", options=task.options)
    outcome = run_in_child(lambda: linked.run(campaign, folder))
    is_good = outcome.kind == "done" and contents(folder / "real/out.mp4") == expected
    fault.count(None if is_good else f"links: {outcome.kind} {outcome.text}")
    before = task.source.read_bytes()
    (folder / "self.mkv").symlink_to(task.source)
    onto = Task(source=task.source, name="self.mkv", options={"codec": "ffv1"})
    outcome = run_in_child(lambda: onto.run(campaign, folder))
    is_good = outcome.kind == "refused" and task.source.read_bytes() == before
    fault.count(None if is_good else f"the input through a link: {outcome.kind} {outcome.text}")
    (folder / "dangling.mp4").symlink_to(folder / "nowhere" / "x.mp4")
    dangling = Task(source=task.source, name="dangling.mp4", options=task.options)
    outcome = run_in_child(lambda: dangling.run(campaign, folder))
    fault.count(None if outcome.is_clean else f"a dangling link: {outcome.kind} {outcome.text}")


def journals(campaign: Campaign) -> None:
    """Damage what a stopped run left, and move the clock, before it is continued."""
    with campaign.fault("the journal's or a segment's bytes torn, flipped or lost") as (
        fault,
        folder,
    ):
        _damaged_journals(campaign, fault, folder, _tear, campaign.cases(14, 400))
    with campaign.fault("the clock moved, and all of the journal's times") as (fault, folder):
        _damaged_journals(campaign, fault, folder, _move_times, campaign.cases(3, 20))


def _damaged_journals(
    campaign: Campaign,
    fault: Fault,
    folder: Path,
    damage: Callable[[Path, Random], str],
    num_cases: int,
) -> None:
    task = tasks(folder)[0]
    expected = left_alone(campaign, task, folder / "whole")
    stopped, random = folder / "stopped", campaign.random(fault.name)
    prepare(task, stopped)

    def stop() -> None:
        install_marks(Marks(), Trigger(stage="journal write", entry=5, delay_s=0))
        task.run(campaign, stopped)

    run_in_child(stop)
    for number in range(num_cases):
        place = folder / f"case{number}"
        shutil.copytree(stopped, place)
        what = damage(journal_path(place / task.name), random)
        shift_s = 0 if damage is _tear else random.choice((-3650, -1, 1, 3650)) * _DAY_S
        outcome = run_in_child(
            lambda place=place, shift_s=shift_s: _with_clock(campaign, task, place, shift_s)
        )
        problem = None
        if outcome.kind == "refused" and "--fresh" in outcome.text:
            outcome = run_in_child(lambda place=place: _fresh(campaign, task, place))
        if outcome.kind != "done":
            problem = f"{outcome.kind} {outcome.text}"
        elif contents(place / task.name) != expected:
            problem = "another result"
        elif damage is _move_times and outcome.value["resumed"] == 0:
            problem = "nothing was continued"
        fault.count(problem and f"{what}: {problem}")
        shutil.rmtree(place)


def _with_clock(campaign: Campaign, task: Task, place: Path, shift_s: float) -> Any:
    clock, clock_ns = time.time, time.time_ns
    time.time = lambda: clock() + shift_s
    time.time_ns = lambda: clock_ns() + int(shift_s * 1e9)
    return task.run(campaign, place)


def _fresh(campaign: Campaign, task: Task, place: Path) -> Any:
    options = task.options | {"fresh": True}
    return Task(source=task.source, name=task.name, options=options).run(campaign, place)


def _tear(folder: Path, random: Random) -> str:
    files = sorted(path for path in folder.iterdir() if path.stat().st_size)
    path = random.choice([*files, *(p for p in files if p.suffix != ".mkv")])
    data = bytearray(path.read_bytes())
    way = random.choice(("cut", "flip", "zeros", "gone", "garbage"))
    place = random.randrange(len(data))
    if way == "cut":
        del data[place:]
    elif way == "flip":
        data[place] ^= 1 << random.randrange(8)
    elif way == "zeros":  # what a journaling file system may leave after a power cut
        data[place:] = bytes(len(data) - place)
    elif way == "garbage":
        data[place:] += random.randbytes(random.randrange(1, 80))
    path.write_bytes(data)
    if way == "gone":
        path.unlink()
    return f"{way} {path.name} at {place}"


def _move_times(folder: Path, random: Random) -> str:
    moment = random.choice((0, 1_000_000, 4_000_000_000))
    for path in folder.iterdir():
        os.utime(path, (moment, moment))
    return f"times {moment}"
