"""`oasis ablate`: a training recipe with one thing changed at a time, over several seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._shared import find_clips, needing_checkout

# Spelled out for `--help`, which must not load torch; the tests hold it against the definition.
GROUPS = ("routing", "curriculum", "yardstick")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    ablate = commands.add_parser(
        "ablate", help="train variants of a recipe over several seeds and compare them in a table"
    )
    ablate.add_argument("config", metavar="CONFIG.toml", type=Path)
    ablate.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    ablate.add_argument(
        "--only",
        action="append",
        choices=GROUPS,
        help="routing: global, window or routed heads, or no transformer; curriculum: consistent, "
        "inconsistent or both in turn; yardstick: a conv net of equal cost and time. Default: all",
    )
    ablate.add_argument("--seeds", default="1,2,3", metavar="A,B")
    ablate.add_argument("--clips", nargs="+", type=Path, required=True, help="sharp clips")
    ablate.add_argument("--frames", type=int, default=7, help="of each clip")
    ablate.add_argument(
        "--middle",
        type=int,
        default=0,
        metavar="PX",
        help="measure the middle square of each clip only",
    )
    ablate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    with needing_checkout("oasis ablate"):
        from ..lab.ablation import GROUPS as VARIANTS
        from ..lab.ablation import run_ablation
    from ..training.config import TrainingError, load_training_config

    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError as error:
        raise TrainingError(
            f"seeds must be whole numbers with commas between, got {arguments.seeds!r}"
        ) from error
    chosen = arguments.only or GROUPS
    table = run_ablation(
        load_training_config(arguments.config),
        arguments.out,
        variants=list(dict.fromkeys(name for group in chosen for name in VARIANTS[group])),
        seeds=seeds,
        clips=find_clips(arguments.clips),
        num_frames=arguments.frames,
        middle_px=arguments.middle,
        report=print,
    )
    print(table.read_text(encoding="utf-8"))
    return 0
