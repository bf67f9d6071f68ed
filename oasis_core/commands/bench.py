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
    bench.add_argument(
        "--streams", action="store_true", help="with --random-weights: head groups side by side"
    )
    bench.add_argument("--clip", type=Path, help="video for the boundary bench")
    bench.add_argument(
        "--gpu-report",
        type=Path,
        metavar="JSON",
        help="measure everything the large model is to reach on a GPU; a table beside it",
    )
    bench.add_argument(
        "--compare",
        type=Path,
        metavar="CHECKOUT",
        help="with --gpu-report or --random-weights: of ByteDance-Seed/SeedVR, to time SeedVR2-3B",
    )
    _add_fleet(bench)
    bench.add_argument("--short", action="store_true", help="a small, quick form of every bench")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=run)


def _add_fleet(bench: argparse.ArgumentParser) -> None:
    fleet = bench.add_argument_group(
        "an archive", "with --plan: worker-hours and dollars, from the measured times of --report"
    )
    fleet.add_argument("--hours-of-video", type=float, metavar="N")
    fleet.add_argument("--workers", type=int, default=1, metavar="M")
    fleet.add_argument(
        "--report", type=Path, help="what 'oasis upscale SRC DST --json' printed on such a worker"
    )
    fleet.add_argument("--frame-rate", type=float, default=25.0, help="of the archive (25)")
    fleet.add_argument("--price", type=float, metavar="DOLLARS", help="of one worker for an hour")
    fleet.add_argument(
        "--efficiency", type=float, default=1.0, help="share of the time that is work (1)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..bench import run_benches

    results = run_benches(arguments, report=None if arguments.json else print)
    if arguments.json:
        print_json(results)
    return 0
