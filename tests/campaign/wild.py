"""Files from the wild go through the engine: right, refused by name, or said."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import oasis_core
from oasis_core.video import VideoError

from .child import run_in_child
from .compare import differences, facts
from .inputs import MEMORY_BYTES
from .tally import Campaign
from .wild_kinds import KINDS, Kind


def wild(campaign: Campaign) -> None:
    """Upscale a file of every kind by 1 at strength 0 and hold it to what it should become."""
    with campaign.fault("wild: kinds of files that were reported elsewhere") as (fault, folder):
        num_refused = 0
        for kind in KINDS:
            outcome = run_in_child(
                lambda kind=kind: _through(campaign, kind, folder), memory_bytes=MEMORY_BYTES
            )
            problem = None if outcome.kind == "done" else f"{outcome.kind} {outcome.text}"
            if outcome.kind == "done":
                problem = "; ".join(outcome.value)
            num_refused += bool(kind.refused)
            fault.count(f"{kind.name}: {problem}" if problem else None)
            shutil.rmtree(folder)
            folder.mkdir()
        fault.note = f"{num_refused} to be refused by name"


class _Said(logging.Handler):
    """What the engine says while it works."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def _through(campaign: Campaign, kind: Kind, folder: Path) -> list[str]:
    logging.disable(logging.NOTSET)
    said, logger = _Said(), logging.getLogger("oasis_core")
    logger.addHandler(said)
    path, out = kind.build(folder), folder / f"out{kind.out}"
    options = {} if out.suffix in (".png", ".exr") else {"preset": "ultrafast", "crf": 4}
    try:
        report: dict[str, Any] = oasis_core.upscale_file(
            path, out, model=campaign.upscaler, scale=1, strength=0.0, segment_frames=5, **options
        ).to_json()
    except VideoError as error:
        if kind.refused and re.search(kind.refused, str(error)):
            return []
        return [f"refused: {error}"]
    if kind.refused:
        return [f"not refused, as it should be ({kind.refused})"]
    found = []
    if report["frames"] != kind.frames:
        found.append(f"{report['frames']} frames, not {kind.frames}")
    words = " ".join([*report["dropped"], *report["kept"], *said.lines])
    if not re.search(kind.said, words):
        found.append(f"nothing says {kind.said!r} in {words!r}")
    if kind.is_compared:
        found += differences(facts(path), facts(out), report, turn=None)
    return found
