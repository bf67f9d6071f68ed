"""SIGKILL at random moments: the run goes on, and its result is the one of a run left alone."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import oasis_core
from oasis_core.upscale import journal_path
from oasis_core.upscale.journal import MANIFEST

from .child import Child, Outcome, run_in_child
from .clips import contents, write_clip
from .marks import STAGES, Marks, Trigger, install
from .tally import Campaign, Fault

OPTIONS = {"scale": 2.0, "segment_frames": 3, "overwrite": True}
MAX_KILLS = 3
"""In a row, before the run is let go on to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One upscaling to be killed."""

    source: Path
    name: str
    """Of the output."""
    options: dict[str, Any]

    def run(self, campaign: Campaign, folder: Path) -> dict[str, Any]:
        """Do it in this process."""
        report = oasis_core.upscale_file(
            self.source, folder / self.name, model=campaign.upscaler, **OPTIONS, **self.options
        )
        return {"segments": report.num_segments, "resumed": report.num_resumed_segments}


def tasks(folder: Path) -> list[Task]:
    """A film in MP4, one in Matroska with two shots and lossless, and numbered pictures."""
    clip = write_clip(folder / "in.mkv")
    return [
        Task(source=clip, name="out.mp4", options={"codec": "h264", "preset": "ultrafast"}),
        Task(source=clip, name="out.mkv", options={"codec": "ffv1"}),
        Task(source=clip, name="pictures/out_%03d.png", options={}),
    ]


def result_of(task: Task, folder: Path) -> Path:
    """What the task leaves: a file, or the folder of its pictures."""
    path = folder / task.name
    return path.parent if "%" in task.name else path


def run_marked(
    campaign: Campaign, task: Task, folder: Path, marks: Marks, trigger: Trigger | None
) -> Any:
    """Do a task in a child that is killed on the trigger."""

    def work() -> dict[str, Any]:
        install(marks, trigger)
        return task.run(campaign, folder)

    return run_in_child(work)


def kill(campaign: Campaign) -> None:
    """Try SIGKILL in each stage at random moments."""
    with campaign.fault("SIGKILL at a random moment, up to 3 in a row") as (fault, folder):
        random = campaign.random("kill")
        jobs = []
        for number, task in enumerate(tasks(folder)):
            whole = folder / f"whole{number}"
            prepare(task, whole)
            marks = Marks()
            outcome = run_marked(campaign, task, whole, marks, None)
            if outcome.kind != "done":
                fault.count(f"{task.name} left alone: {outcome.text}")
                return
            jobs.append((task, marks, contents(result_of(task, whole))))
        landed = dict.fromkeys(STAGES, 0)
        target = campaign.cases(24, 600)
        trial = redone = 0
        while sum(landed.values()) < target and trial < 4 * target:
            task, whole, expected = jobs[trial % len(jobs)]
            stage = STAGES[1 + trial % (len(STAGES) - 1)]
            place = folder / f"trial{trial}"
            prepare(task, place)
            trial += 1
            redone += _one(campaign, fault, task, place, (whole, expected), stage, random, landed)
            fault.note = f"{sum(landed.values())} kills in {trial} runs: " + ", ".join(
                f"{stage} {count}" for stage, count in landed.items() if count
            )
            fault.note += f"; {redone} segments redone"


def prepare(task: Task, place: Path) -> None:
    """Make the folders of a task."""
    (place / task.name).parent.mkdir(parents=True)


def _one(
    campaign: Campaign,
    fault: Fault,
    task: Task,
    place: Path,
    alone: tuple[Marks, dict[str, Any]],
    stage: str,
    random: Random,
    landed: dict[str, int],
) -> int:
    """One run with one or more kills; returns segments done again."""
    marks, num_kills, story = Marks(), 0, []
    outcome = Outcome(kind="killed")
    for attempt in range(random.randint(1, MAX_KILLS)):
        trigger = _trigger(alone[0], stage if attempt == 0 else random.choice(STAGES[1:]), random)
        marks.forget_stages()
        outcome = run_marked(campaign, task, place, marks, trigger)
        if outcome.kind == "killed" and outcome.signal == signal.SIGKILL:
            landed[marks.stage] += 1
            num_kills += 1
            story.append(f"{marks.stage} ({trigger.stage} {trigger.entry})")
        elif outcome.kind == "done":
            break
        else:
            fault.count(f"{task.name} after kills in {story}: {outcome.kind} {outcome.text}")
            return 0
        if problem := half_written(task, place, alone[1]):
            fault.count(f"{task.name} killed in {story}: {problem}")
            return 0
        if is_over(task, place):
            break
    if outcome.kind != "done" and not is_over(task, place):
        marks.forget_stages()
        outcome = run_marked(campaign, task, place, marks, None)
        if outcome.kind != "done":
            fault.count(f"{task.name} after kills in {story}: {outcome.kind} {outcome.text}")
            return 0
    redone = marks.segments_begun() - alone[0].segments_begun()
    problem = None
    if contents(result_of(task, place)) != alone[1]:
        problem = "another result"
    elif redone > num_kills:
        problem = f"{redone} segments done again after {num_kills} kill(s)"
    fault.count(None if problem is None else f"{task.name} killed in {story}: {problem}")
    return max(0, redone)


def is_over(task: Task, place: Path) -> bool:
    """Whether nothing but remains of the journal is left: the same call would start over."""
    folder = journal_path(place / task.name)
    results = [p for p in (place / task.name).parent.glob("out*") if p.is_file()]
    return bool(results) and not (folder / MANIFEST).exists()


def half_written(task: Task, place: Path, expected: dict[str, Any]) -> str | None:
    """What is wrong with what has its final name already."""
    result = result_of(task, place)
    if result.is_dir():
        there = contents(result)
        wrong = [name for name in there if name in expected and there[name] != expected[name]]
        odd = [name for name in there if name not in expected]
        return f"half-written or unknown {wrong + odd}" if wrong + odd else None
    try:
        is_whole = not result.exists() or contents(result) == expected
    except (OSError, ValueError) as error:
        return f"half-written under its final name ({error})"
    return None if is_whole else "half-written under its final name"


def _trigger(alone: Marks, stage: str, random: Random) -> Trigger:
    count, seconds = alone.entries(stage)
    mean_s = seconds / max(1, count)
    delay_s = 0.0 if random.random() < 0.2 else random.uniform(0, 1.2 * mean_s)
    return Trigger(stage=stage, entry=random.randint(1, max(1, count)), delay_s=delay_s)


def held_twice(campaign: Campaign) -> None:
    """Start a second run on an output that another process writes."""
    with campaign.fault("two processes on one output") as (fault, folder):
        task = tasks(folder)[0]
        for number in range(campaign.cases(2, 20)):
            place = folder / f"case{number}"
            prepare(task, place)
            first, marks = _paused(campaign, task, place)
            second = run_in_child(lambda task=task, place=place: task.run(campaign, place))
            problem = None
            if second.kind != "refused" or f"pid {first.pid} on " not in second.text:
                problem = f"the second run: {second.kind} {second.text}"
            marks.go()
            outcome = first.wait()
            if problem is None and outcome.kind != "done":
                problem = f"the first run: {outcome.kind} {outcome.text}"
            fault.count(problem)


class Gate:
    """Holds a child at its first encoded frame until told to go on."""

    def __init__(self) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        self._reached, self._open = context.Event(), context.Event()

    def wait_here(self) -> None:
        """Called by the child."""
        self._reached.set()
        self._open.wait(30)

    def wait_reached(self) -> bool:
        """Called by the parent."""
        return self._reached.wait(30)

    def go(self) -> None:
        """Let the child go on."""
        self._open.set()


def _paused(campaign: Campaign, task: Task, place: Path) -> tuple[Child, Gate]:
    gate = Gate()

    def work() -> dict[str, Any]:
        from oasis_core.video import SegmentWriter

        write = SegmentWriter.write

        def held(*args: Any) -> None:
            gate.wait_here()
            write(*args)

        SegmentWriter.write = held
        return task.run(campaign, place)

    child = Child(work)
    gate.wait_reached()
    return child, gate
