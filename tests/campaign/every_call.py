"""The fault at every single system call that changes a file: failed, killed, power cut."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from .child import Outcome
from .disk import goes_on, left_alone, problem_after
from .kill import Task, half_written, is_over, prepare, run_marked, tasks
from .marks import Marks, install
from .power import Disk
from .syscalls import Call, Decide, is_possible, run_watched
from .tally import Campaign, Fault

_CODES = {
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "ftruncate": (errno.EIO,),
    "fsync": (errno.EIO, errno.ENOSPC),
    "open": (errno.ENOSPC, errno.EACCES, errno.EMFILE),
    "mkdir": (errno.ENOSPC, errno.EROFS),
    "rename": (errno.ENOSPC, errno.EACCES, errno.EIO, errno.EXDEV),
    "unlink": (errno.EROFS, errno.EBUSY),
    "rmdir": (errno.EBUSY,),
}


def every_call(campaign: Campaign) -> None:
    """Try each fault at each call (short form: at some)."""
    if not is_possible():
        with campaign.fault("faults at every call that changes a file") as (fault, _):
            fault.note = "not tried: needs Linux 5.5 or later on x86-64 or ARM64"
        return
    for name, act in (
        ("a call that changes a file fails, once", partial(_failed, is_for_good=False)),
        (
            "no space, a read-only or an unplugged disk from one call on",
            partial(_failed, is_for_good=True),
        ),
        ("SIGKILL at a call that changes a file", _killed),
        ("power cut at a call: bytes not synced are lost", partial(_cut, keeps_names=True)),
        ("power cut at a call: names not synced, too", partial(_cut, keeps_names=False)),
    ):
        with campaign.fault(name) as (fault, folder):
            _try_all(campaign, fault, folder, act)
    with campaign.fault("a file system that renames over nothing") as (fault, folder):
        _no_rename_over(campaign, fault, folder)


def _try_all(campaign: Campaign, fault: Fault, folder: Path, act: Callable[..., Any]) -> None:
    random, kinds = campaign.random(fault.name), Counter()
    for task in tasks(folder)[: 3 if campaign.is_long else 1]:
        name = Path(task.name).name
        expected = left_alone(campaign, task, folder / f"whole-{name}")
        calls = _calls(campaign, task, folder / f"calls-{name}")
        places = range(len(calls))
        if not campaign.is_long or campaign.share < 1:
            places = sorted(random.sample(places, min(len(places), campaign.cases(8, len(places)))))
        for number in places:
            place = folder / f"{name}-{number}"
            prepare(task, place)
            kinds[calls[number].kind] += 1
            problem = act(campaign, task, place, expected, number, random)
            call = f"{calls[number].kind} {calls[number].path.name}"
            fault.count(problem and f"{task.name}, call {number} ({call}): {problem}")
            shutil.rmtree(place)
    fault.note = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())


def _calls(campaign: Campaign, task: Task, place: Path) -> list[Call]:
    """Those of a run left alone."""
    prepare(task, place)
    calls: list[Call] = []
    outcome = run_watched(lambda: task.run(campaign, place), place, calls.append)
    if outcome.kind != "done":
        raise RuntimeError(outcome.text)
    return calls


def _at(number: int, answer: Callable[[Call], int], *, is_for_good: bool = False) -> Decide:
    """Answer at the call of this number, and with `is_for_good` at all later ones."""
    seen = [-1]

    def decide(call: Call) -> int | None:
        seen[0] += 1
        return answer(call) if seen[0] == number or (is_for_good and seen[0] > number) else None

    return decide


def _failed(
    campaign: Campaign,
    task: Task,
    place: Path,
    expected: dict[str, Any],
    number: int,
    random: Random,
    *,
    is_for_good: bool,
) -> str | None:
    """The run is done all the same or ends with a sentence; the next one is done."""
    lasting = random.choice((errno.ENOSPC, errno.EROFS, errno.EIO))

    def code(call: Call) -> int | None:
        if not is_for_good:
            return random.choice(_CODES.get(call.kind, (errno.EIO,)))
        goes_well = call.kind in ("unlink", "rmdir", "fsync", "ftruncate")
        return None if lasting == errno.ENOSPC and goes_well else lasting

    decide = _at(number, code, is_for_good=is_for_good)
    outcome = run_watched(lambda: task.run(campaign, place), place, decide)
    return problem_after(task, place, outcome, expected) or goes_on(campaign, task, place, expected)


def _killed(
    campaign: Campaign,
    task: Task,
    place: Path,
    expected: dict[str, Any],
    number: int,
    _: Random,
) -> str | None:
    marks = Marks()
    decide = _at(number, lambda _: 0)
    if problem := _ended(_watched(campaign, task, place, marks, decide)):
        return problem
    return _continued(campaign, task, place, expected, marks)


def _cut(
    campaign: Campaign,
    task: Task,
    place: Path,
    expected: dict[str, Any],
    number: int,
    random: Random,
    *,
    keeps_names: bool,
) -> str | None:
    marks, disk = Marks(), Disk(place)
    kill = _at(number, lambda _: 0)

    def decide(call: Call) -> int | None:
        answer = kill(call)
        if answer is None:
            disk.before(call)
        return answer

    if problem := _ended(_watched(campaign, task, place, marks, decide)):
        return problem
    if keeps_names:
        disk.lose_bytes(random)
    else:
        disk.lose_names()
        (place / task.name).parent.mkdir(exist_ok=True)
    return _continued(campaign, task, place, expected, marks)


def _watched(campaign: Campaign, task: Task, place: Path, marks: Marks, decide: Decide) -> Outcome:
    def work() -> dict[str, Any]:
        install(marks, None)
        return task.run(campaign, place)

    return run_watched(work, place, decide)


def _ended(outcome: Outcome) -> str | None:
    """What is wrong if it was not killed; with another number of calls it may end before."""
    return None if outcome.kind in ("killed", "done") else f"{outcome.kind} {outcome.text}"


def _continued(
    campaign: Campaign,
    task: Task,
    place: Path,
    expected: dict[str, Any],
    marks: Marks,
) -> str | None:
    if problem := half_written(task, place, expected):
        return problem
    if not is_over(task, place):
        outcome = run_marked(campaign, task, place, marks, None)
        if outcome.kind != "done":
            return f"and then {outcome.kind} {outcome.text}"
        redone = marks.segments_begun() - outcome.value["segments"]
        if redone > 1:  # the one at which it stopped
            return f"{redone} segments done again"
    return problem_after(task, place, Outcome(kind="done"), expected)


def _no_rename_over(campaign: Campaign, fault: Fault, folder: Path) -> None:
    """As some network drives: a rename fails where the new name is taken."""

    def decide(call: Call) -> int | None:
        return errno.EEXIST if call.kind == "rename" and call.path.exists() else None

    for task in tasks(folder)[: 3 if campaign.is_long else 1]:
        name = Path(task.name).name
        expected = left_alone(campaign, task, folder / f"whole-{name}")
        for is_there in (False, True):
            place = folder / f"{name}-{is_there}"
            prepare(task, place)
            if is_there:
                shutil.copytree(folder / f"whole-{name}", place, dirs_exist_ok=True)
            outcome = run_watched(lambda task=task, place=place: task.run(campaign, place), place,
                                  decide)  # fmt: skip
            problem = problem_after(task, place, outcome, expected)
            if outcome.kind != "done":
                problem = f"{outcome.kind} {outcome.text}"
            fault.count(problem and f"{task.name}, result there before: {is_there}: {problem}")
