"""`oasis compare`: a source and what was made of it in one video."""

from __future__ import annotations

import argparse
from typing import Any

from ..choices import COMPARISONS
from ..codecs import CODECS
from ..remote import as_source
from ._shared import parse_on_disk, parse_output, parse_time


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser(
        "compare", help="a source, plainly resized, and its result side by side or split"
    )
    parser.add_argument("source", metavar="SRC", type=as_source)
    parser.add_argument("result", metavar="RESULT", type=parse_on_disk)
    parser.add_argument("destination", metavar="DST", type=parse_output)
    parser.add_argument("--mode", choices=COMPARISONS, default="side")
    parser.add_argument(
        "--start", type=parse_time, metavar="TIME", help="where the result begins in the source"
    )
    parser.add_argument("--codec", choices=tuple(CODECS), default="h264", metavar="CODEC")
    parser.add_argument("--crf", type=float, help="quality of the encoder; lower is better")
    parser.add_argument("--deinterlace", action="store_true", help="as it was for the result")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..upscale import compare_files
    from ..video import TimeWindow, probe

    window = None
    if arguments.start is not None:
        length_s = probe(arguments.result).duration_s
        window = TimeWindow(start_s=arguments.start, duration_s=length_s)
    compare_files(
        arguments.source,
        arguments.result,
        arguments.destination,
        mode=arguments.mode,
        codec=arguments.codec,
        crf=arguments.crf,
        window=window,
        deinterlace=arguments.deinterlace,
        overwrite=arguments.overwrite,
    )
    print(arguments.destination)
    return 0
