"""The zoo goes through the engine: nothing may be lost without a word, nothing may crash."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import av

import oasis_core

from .child import run_in_child
from .compare import differences, facts
from .tally import Campaign
from .zoo import COMMON, Film, containers, draw, encoders, make, pixel_formats, plain

MEMORY_BYTES = 2 << 30


def zoo(campaign: Campaign) -> None:
    """Upscale films of every kind by 1 at strength 0 and compare."""
    with campaign.fault("zoo: containers x codecs x formats x sizes x times x sound x tags") as (
        fault,
        folder,
    ):
        made, refused, muxers = Counter(), Counter(), set()
        target = campaign.cases(30, 2500)
        # Fewer than are drawn can be made: a container takes few codecs.
        for number, film in enumerate(islice(_films(campaign), 12 * target)):
            if fault.tried == target:
                break
            path = folder / f"film{number}{film.suffix}"
            if not make(film, path):
                film = plain(film) if film.muxer else film
                if not film.muxer or not make(film, path):
                    continue
            made[film.codec] += 1
            muxers.add(film.muxer or film.suffix)
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
            shutil.rmtree(folder)  # with journals of refused films
            folder.mkdir()
            fault.note = f"{len(made)} encoders, {len(muxers)} containers, "
            fault.note += f"{sum(refused.values())} refused with a sentence"
            if refused:
                fault.note += ": " + "; ".join(
                    f"{n} x {text}" for text, n in refused.most_common(12)
                )


def _films(campaign: Campaign) -> Iterator[Film]:
    """Long form: each codec in each container, each codec with each pixel format; then any."""
    random, codecs = campaign.random("zoo"), encoders()
    if campaign.is_long:
        for muxer, codec in containers(codecs):
            yield replace(draw(random, codec, 0), suffix=f".{muxer}", muxer=muxer)
        for codec in codecs:
            for pixel_format in pixel_formats(codec):
                suffix = random.choice((".mkv", ".nut", ".mov"))
                yield replace(draw(random, codec, 0), pixel_format=pixel_format, suffix=suffix)
    for number in count():
        codec = codecs[number % len(codecs)]
        if random.random() < 0.35:
            codec = random.choice(COMMON)
        yield draw(random, codec, number)


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
    turn = film.turn if film.suffix in (".mp4", ".mov", ".m4v") else None
    after = facts(out)
    found = differences(before, after, report, turn=turn)
    if film.suffix == ".avi":
        # It stores no times: FFmpeg's guess of them and those it was made with are both right.
        before["times"] = _avi_times(film, before, after)
        others = differences(before, after, report, turn=turn)
        found = [text for text in found if text in others or "times moved" not in text]
    return found


def _avi_times(film: Film, before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    """When the pictures of an AVI are shown, as it was made, if it can hold such times."""
    if len(film.times) == len(before["times"]) == 1:
        is_near = abs(after["times"][0] - before["times"][0]) <= 1 / film.rate
        return after["times"] if is_near else [None]
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
