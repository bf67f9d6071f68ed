"""The zoo goes through the engine: nothing may be lost without a word, nothing may crash."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

import oasis_core

from .child import run_in_child
from .compare import differences, facts
from .tally import Campaign
from .zoo import Film, draw, encoders, make

MEMORY_BYTES = 2 << 30


def zoo(campaign: Campaign) -> None:
    """Upscale films of every kind by 1 at strength 0 and compare."""
    with campaign.fault("zoo: containers x codecs x formats x sizes x times x sound x tags") as (
        fault,
        folder,
    ):
        random, codecs = campaign.random("zoo"), encoders()
        # Fewer than are drawn can be made: a container takes few codecs.
        made, refused = Counter(), Counter()
        number, target = 0, campaign.cases(30, 2500)
        while sum(made.values()) < target and number < 12 * target:
            film = draw(random, codecs, number)
            number += 1
            path = folder / f"film{number}{film.suffix}"
            if not make(film, path):
                continue
            made[film.codec] += 1
            outcome = run_in_child(
                lambda path=path, film=film: _through(campaign, path, film),
                memory_bytes=MEMORY_BYTES,
            )
            problem = None
            if outcome.kind == "refused" and outcome.is_clean:
                text = outcome.text.replace(str(path), "FILE")
                refused[re.sub(r"[0-9]+", "N", text)] += 1
            elif outcome.kind != "done":
                problem = f"{outcome.kind} {outcome.text}"
            elif outcome.value:
                problem = "; ".join(outcome.value)
            fault.count(problem and f"#{number} {film}: {problem}")
            for file in folder.glob(f"film{number}.*"):
                file.unlink()
        fault.note = f"{len(made)} encoders, {sum(refused.values())} refused with a sentence"
        if refused:
            fault.note += ": " + "; ".join(f"{n} x {text}" for text, n in refused.most_common(12))


def _through(campaign: Campaign, path: Path, film: Film) -> list[str]:
    before = _before(path)
    out = path.with_name(path.stem + ".out.mkv")
    report: dict[str, Any] = oasis_core.upscale_file(
        path,
        out,
        model=campaign.upscaler,
        scale=1,
        strength=0.0,
        preset="ultrafast",
        crf=4,
        segment_frames=5,
    ).to_json()
    if before is None:
        return []
    is_turned = (
        film.turn is not None and film.suffix in (".mp4", ".mov", ".m4v") and film.turn[0] == 0
    )
    after = facts(out)
    found = differences(before, after, report, is_turned=is_turned)
    if film.suffix == ".avi":
        # It stores no times: FFmpeg's guess of them and those it was made with are both right.
        before["times"] = _avi_times(film, after)
        others = differences(before, after, report, is_turned=is_turned)
        found = [text for text in found if text in others or not text.startswith("times")]
    if film.turn is not None:
        found = [text for text in found if "picture differs" not in text]
    return found


def _avi_times(film: Film, after: dict[str, Any]) -> list[Any]:
    """When the pictures of an AVI are shown, as it was made, if it can hold such times."""
    steps = {second - first for first, second in pairwise(film.times)}
    if len(steps) != 1 or film.times[0]:
        return [None]
    first, tick = after["times"][0], 1 / (2 * film.rate)
    return [first + (time - film.times[0]) * tick for time in film.times]


def _before(path: Path) -> dict[str, Any] | None:
    """The film's facts; None where FFmpeg alone cannot read it either."""
    try:
        return facts(path)
    except (av.error.FFmpegError, OSError, ValueError, LookupError, AttributeError):
        return None
