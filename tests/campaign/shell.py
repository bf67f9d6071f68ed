"""What shells, terminals and people do to a running command and to its files."""

from __future__ import annotations

import os
import random as randomness
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import oasis_core
from oasis_core.cli import EXIT_INTERRUPTED, main
from oasis_core.upscale import journal_path

from .child import Child, Outcome, run_in_child
from .clips import contents, write_clip
from .disk import goes_on, in_mount_namespace, left_alone, problem_after
from .kill import OPTIONS, Task, half_written, prepare, tasks
from .tally import Campaign, Fault

_SIGNALS = (
    (signal.SIGINT,),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM,),
    (signal.SIGHUP,),
    (signal.SIGTERM, signal.SIGINT),
    (signal.SIGINT, signal.SIGTERM),
)


def shell(campaign: Campaign) -> None:
    """Try signals, closed streams, changing files and poor surroundings."""
    with campaign.fault("Ctrl-C, twice; SIGTERM, SIGHUP: at a random moment") as (fault, folder):
        _signals(campaign, fault, folder)
    with campaign.fault("SIGSTOP, as of a sleeping machine, at a random moment") as (fault, folder):
        _sleeps(campaign, fault, folder)
    with campaign.fault("stdout or stderr closed, broken or full") as (fault, folder):
        _streams(fault, folder)
    with campaign.fault("source changed, cut, replaced or removed while it is read") as (
        fault,
        folder,
    ):
        _changing_source(campaign, fault, folder)
    with campaign.fault("output folder or journal removed during the run") as (fault, folder):
        _changing_place(campaign, fault, folder)
    with campaign.fault("no HOME, no TMPDIR, LANG=C, no /dev/shm, as commands") as (fault, folder):
        _surroundings(campaign, fault, folder)


def _command(source: Path, out: Path) -> list[str]:
    options = ["--scale", "2", "--segment", "3", "--preset", "ultrafast", "--overwrite"]
    return ["upscale", str(source), str(out), *options, "--dtype", "float32"]


def _run_command(source: Path, out: Path, streams: dict[int, int] | None = None) -> dict[str, Any]:
    """The command in this (forked) process, as its `main` runs it."""
    said = os.open(out.with_suffix(".said"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2((streams or {}).get(number, said), number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    code = EXIT_INTERRUPTED
    try:
        code = main(_command(source, out))
        _block_signals()
    except KeyboardInterrupt:  # of a second signal, which comes when the command is over
        _block_signals()
    sys.stdout.flush()  # as the interpreter does in the end
    return {"code": code, "said": out.with_suffix(".said").read_text(encoding="utf-8")}


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {which for both in _SIGNALS for which in both})


def _expected(folder: Path) -> tuple[Path, dict[str, Any], float]:
    """A source, what becomes of it, and how long that takes."""
    source, place = write_clip(folder / "in.mkv"), folder / "whole"
    place.mkdir()
    begun = time.perf_counter()
    outcome = run_in_child(lambda: _run_command(source, place / "out.mp4"))
    if outcome.kind != "done" or outcome.value["code"]:
        raise RuntimeError(f"{outcome}")
    return source, contents(place / "out.mp4"), time.perf_counter() - begun


def _after(
    outcome: Outcome, codes: tuple[int, ...], source: Path, out: Path, expected: dict[str, Any]
) -> str | None:
    """What is wrong with how a command ended, or with the result of the same one after it."""
    if outcome.kind != "done":
        return f"{outcome.kind} {outcome.text}"
    if outcome.value["code"] not in codes or "Traceback" in outcome.value["said"]:
        return f"{outcome.value}"
    task = Task(source=source, name=out.name, options={})
    if problem := half_written(task, out.parent, expected):
        return problem
    if outcome.value["code"]:
        outcome = run_in_child(lambda: _run_command(source, out))
        if outcome.kind != "done" or outcome.value["code"]:
            return f"and then {outcome}"
    return None if contents(out) == expected else "another result"


def _signals(campaign: Campaign, fault: Fault, folder: Path) -> None:
    random = campaign.random("signals")
    source, expected, seconds = _expected(folder)
    interrupted = 0
    for number in range(campaign.cases(6, 240)):
        place = folder / f"case{number}"
        place.mkdir()
        child = Child(partial(_run_command, source, place / "out.mp4"))
        numbers = _SIGNALS[number % len(_SIGNALS)]
        time.sleep(random.uniform(0.02, seconds))
        for which in numbers:
            os.kill(child.pid, which)
            time.sleep(random.choice((0, 0.001, 0.02)))
        outcome = child.wait()
        if outcome.kind == "killed" and outcome.signal in numbers:
            # Before the command listened to it: nothing was begun then.
            outcome = Outcome(kind="done", value={"code": EXIT_INTERRUPTED, "said": ""})
        interrupted += outcome.kind == "done" and outcome.value["code"] == EXIT_INTERRUPTED
        problem = _after(outcome, (0, EXIT_INTERRUPTED), source, place / "out.mp4", expected)
        names = " ".join(which.name for which in numbers)
        fault.count(problem and f"#{number} {names}: {problem}")
        shutil.rmtree(place)
    fault.note = f"{interrupted} were interrupted before their end"


def _sleeps(campaign: Campaign, fault: Fault, folder: Path) -> None:
    random = campaign.random("sleeps")
    source, expected, seconds = _expected(folder)
    for number in range(campaign.cases(2, 40)):
        place = folder / f"case{number}"
        place.mkdir()
        child = Child(partial(_run_command, source, place / "out.mp4"))
        time.sleep(random.uniform(0, seconds))
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(child.pid, signal.SIGCONT)
        fault.count(_after(child.wait(), (0,), source, place / "out.mp4", expected))


def _streams(fault: Fault, folder: Path) -> None:
    """A broken pipe, as of `oasis ... | head -1`; a full disk behind `> log`; a closed one."""
    source, expected, _ = _expected(folder)
    for name in ("pipe", "full", "closed"):
        for numbers in ((1,), (2,), (1, 2)):
            place = folder / f"{name}{numbers}"
            place.mkdir()

            def work(name: str = name, numbers: tuple = numbers, place: Path = place) -> Any:
                if name == "pipe":
                    reading, end = os.pipe()
                    os.close(reading)
                else:
                    end = os.open("/dev/full" if name == "full" else "/dev/null", os.O_RDWR)
                streams = dict.fromkeys(numbers, end)
                return _run_command(source, place / "out.mp4", streams)

            problem = _after(run_in_child(work), (0, 1), source, place / "out.mp4", expected)
            if problem is None and journal_path(place / "out.mp4").exists():
                problem = "the run did not come to its end"
            fault.count(problem and f"{name} {numbers}: {problem}")


def _changing_source(campaign: Campaign, fault: Fault, folder: Path) -> None:
    changes: dict[str, Callable[[Path], Any]] = {
        "removed": Path.unlink,
        "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
        "emptied": lambda path: os.truncate(path, 0),
        "grows": lambda path: path.open("ab").write(randomness.Random(0).randbytes(9000)),
        "replaced by another": lambda path: other.replace(path),
        "overwritten by another": lambda path: path.write_bytes(other.read_bytes()),
        "touched": lambda path: os.utime(path),
        "forbidden": lambda path: path.chmod(0),
    }
    for task in tasks(folder)[:: 1 if campaign.is_long else 2]:
        expected = left_alone(campaign, task, folder / f"whole-{Path(task.name).name}")
        for name, change in changes.items():
            for segment in (0, 2, 4) if campaign.is_long else (2,):
                place = folder / f"{Path(task.name).name}-{name}-{segment}"
                source = place / "in.mkv"
                moved = Task(source=source, name=task.name, options=task.options)
                prepare(moved, place)
                shutil.copy2(task.source, source)
                other = write_clip(place / "other.mkv", num_frames=20)
                outcome = run_in_child(
                    partial(_run_and, campaign, moved, place, segment, partial(change, source))
                )
                problem = problem_after(moved, place, outcome, expected)
                source.unlink(missing_ok=True)
                shutil.copy2(task.source, source)
                problem = problem or goes_on(campaign, moved, place, expected)
                fault.count(problem and f"{task.name}, {name} at segment {segment}: {problem}")


def _run_and(
    campaign: Campaign, task: Task, place: Path, segment: int, act: Callable[[], Any]
) -> Any:
    """Do a task and something else when a segment is begun."""

    def on_segment(_: int, index: int) -> None:
        if index == segment:
            act()

    options = {**OPTIONS, **task.options, "on_segment": on_segment}
    oasis_core.upscale_file(task.source, place / task.name, model=campaign.upscaler, **options)


def _changing_place(campaign: Campaign, fault: Fault, folder: Path) -> None:
    task = tasks(folder)[0]
    expected = left_alone(campaign, task, folder / "whole")
    removed: dict[str, Callable[[Path], Any]] = {
        "the output's folder": shutil.rmtree,
        "the journal": lambda place: shutil.rmtree(journal_path(place / task.name)),
        "the journal's files": lambda place: [
            path.unlink() for path in journal_path(place / task.name).iterdir()
        ],
    }
    for number, (name, remove) in enumerate(removed.items()):
        place = folder / f"removed{number}"
        prepare(task, place)
        act = partial(remove, place)
        outcome = run_in_child(partial(_run_and, campaign, task, place, 2, act))
        problem = problem_after(task, place, outcome, expected)
        place.mkdir(exist_ok=True)
        problem = problem or goes_on(campaign, task, place, expected)
        fault.count(problem and f"{name} removed: {problem}")


def _surroundings(campaign: Campaign, fault: Fault, folder: Path) -> None:
    clip = write_clip(folder / "in.mkv", num_frames=4)
    nowhere = str(folder / "nowhere")
    poor = {
        "HOME and TMPDIR missing": {"HOME": nowhere, "TMPDIR": nowhere, "XDG_CACHE_HOME": nowhere},
        "no HOME at all": {},
        "LANG=C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    }
    for name, values in list(poor.items())[: None if campaign.is_long else 1]:
        place = folder / name.replace(" ", "_")
        place.mkdir()
        source = place / "Schnee ☃ 🎬.mkv"
        shutil.copy(clip, source)
        words = [sys.executable, "-m", "oasis_core", *_command(source, place / "größer.mp4")]
        kept = {key: os.environ[key] for key in ("PATH", "OMP_NUM_THREADS") if key in os.environ}
        root = Path(oasis_core.__file__).parents[1]
        done = subprocess.run(
            words, env=kept | values, cwd=root, capture_output=True, timeout=300, check=False
        )
        is_good = done.returncode == 0 and (place / "größer.mp4").exists()
        is_good = is_good and b"Traceback" not in done.stdout + done.stderr
        fault.count(None if is_good else f"{name}: {done.returncode} {done.stderr[-600:]}")
    task = tasks(folder)[0]
    outcome = in_mount_namespace(
        Path("/dev/shm"), "size=4k,nr_inodes=1", lambda _: task.run(campaign, folder)["segments"]
    )
    if outcome.value != "no tmpfs":
        fault.count(None if outcome.kind == "done" else f"no /dev/shm: {outcome.text}")
