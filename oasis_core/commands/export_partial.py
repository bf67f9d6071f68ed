"""`oasis export-partial`: a playable file from an unfinished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._shared import parse_output


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser(
        "export-partial", help="a playable file of what an unfinished run has done so far"
    )
    parser.add_argument("unfinished", metavar="OUT", type=Path, help="the output, or OUT.oasis")
    parser.add_argument("destination", metavar="DST", type=parse_output)
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..upscale import export_partial

    report = export_partial(
        arguments.unfinished, arguments.destination, overwrite=arguments.overwrite
    )
    print(
        f"{arguments.destination}: {report.frames} frames from {report.num_segments} segments; the "
        "run can still be continued"
    )
    if report.num_waiting:
        print(f"left out: {report.num_waiting} segments behind one that must be done again")
    for item in report.muxed.dropped:
        print(f"not kept: {item}")
    return 0
