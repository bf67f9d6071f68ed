"""`oasis status`: how far unfinished runs are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._many import RESULTS, read_results
from ._shared import print_json


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("status", help="how far unfinished runs and batches are")
    parser.add_argument("destination", metavar="DST", type=Path, help="an output, or a folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..upscale.status import run_statuses

    target: Path = arguments.destination
    statuses = run_statuses(target)
    rows = read_results(target / RESULTS) if target.is_dir() else {}
    failed = [row for row in rows.values() if row.get("status") == "failed"]
    if not statuses and not rows and not target.exists():
        raise ValueError(f"{str(target)!r} does not exist and no run writes it; check the name")
    if arguments.json:
        print_json(
            {
                "runs": [status.to_json() for status in statuses],
                "done": sum(row.get("status") == "done" for row in rows.values()),
                "failed": failed,
            }
        )
        return 0
    for status in statuses:
        print(_line(status))
    if rows:
        print(f"{len(rows) - len(failed)} done, {len(failed)} failed ({RESULTS})")
    for row in failed:
        print(f"failed: {row.get('source')}: {row.get('error')}")
    if not statuses and not rows:
        print(f"{target}: no unfinished run")
    return 0


def _line(status: Any) -> str:
    of = "" if status.total_frames is None else f" of {status.total_frames}"
    share = ""
    if status.total_frames:
        share = f" ({min(1.0, status.num_frames / status.total_frames):.0%})"
    parts = [
        f"{status.destination}: {status.state}",
        f"{status.num_frames}{of} frames{share} in {status.num_segments} segments",
    ]
    if status.num_gaps:
        parts.append(f"{status.num_gaps} before the last still missing")
    if status.left_s is not None:
        parts.append(f"about {_time(status.left_s)} left")
    parts.append(f"last segment {_time(status.silent_s)} ago")
    parts.append(f"{'held by' if status.state != 'stopped' else 'last held by'} {status.holder}")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
