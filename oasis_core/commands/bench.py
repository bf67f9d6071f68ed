"""`oasis bench`: time the model on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._shared import add_model_options, parse_size, print_json


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    bench = commands.add_parser("bench", help="time the model on this machine")
    add_model_options(bench)
    bench.add_argument("--size", type=parse_size, default=(1280, 720), metavar="WxH")
    bench.add_argument("--frames", type=int, default=16)
    bench.add_argument("--runs", type=int, default=3)
    bench.add_argument("--threads", type=int, help="CPU threads")
    bench.add_argument("--only", choices=("speed", "routing", "attention", "boundaries", "stages"))
    bench.add_argument(
        "--plan", action="store_true", help="count operations and bytes instead of measuring"
    )
    bench.add_argument(
        "--routing",
        metavar="HEADS",
        help="for --plan and --random-weights: global, thirds, or G,I,W heads in each layer",
    )
    bench.add_argument(
        "--random-weights", action="store_true", help="time a preset without its weights"
    )
    bench.add_argument("--clip", type=Path, help="video for the boundary bench")
    bench.add_argument("--short", action="store_true", help="a small, quick form of every bench")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..bench import run_benches

    results = run_benches(arguments, report=None if arguments.json else print)
    if arguments.json:
        print_json(results)
    return 0
