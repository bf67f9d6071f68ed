"""`oasis degrade`: a realistic low-quality copy of a video file."""

from __future__ import annotations

import argparse
from typing import Any

from ..choices import DEGRADATIONS
from ..remote import as_source
from ._shared import Progress, parse_output, print_json

# Spelled out for `--help`, which must not load torch; the tests hold it against the definition.
CODECS = ("libx264", "libx264", "mpeg4")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("degrade", help="make a realistic low-quality copy of a video")
    parser.add_argument("source", metavar="SRC", type=as_source, help="a video, or its URL")
    parser.add_argument("destination", metavar="DST", type=parse_output)
    parser.add_argument("--scale", type=float, default=4.0, help="factor by which it gets smaller")
    parser.add_argument("--preset", choices=DEGRADATIONS, default="consistent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--codecs",
        default=",".join(CODECS),
        metavar="A,B",
        help="video encoders to draw from: libx264, mpeg4, libx265, libvpx-vp9 (default: "
        "%(default)s; one named twice is twice as likely)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.add_argument("--json", action="store_true", help="print the drawn parameters as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..degradation.degrading_files import degrade_file

    progress = Progress("frame", is_quiet=arguments.json)
    try:
        steps = degrade_file(
            arguments.source,
            arguments.destination,
            preset=arguments.preset,
            scale=arguments.scale,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            codecs=[name.strip() for name in arguments.codecs.split(",")],
            on_progress=progress,
        )
    finally:
        progress.close()
    if arguments.json:
        print_json({"preset": arguments.preset, "seed": arguments.seed, "steps": steps})
    else:
        names = ", ".join(step["operator"] for step in steps)
        print(f"{arguments.destination}: {arguments.preset}, seed {arguments.seed}: {names}")
    return 0
