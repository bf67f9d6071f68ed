"""`oasis train`: train a model from a TOML file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import Report

if TYPE_CHECKING:
    from ..training.loop import Trainer

REPORT_EVERY_STEPS = 25


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    train = commands.add_parser(
        "train",
        help="train a model; the same command continues a run",
        epilog="several processes: accelerate launch -m oasis_core train CONFIG.toml "
        "(or torchrun --nproc-per-node N -m oasis_core train CONFIG.toml)",
    )
    train.add_argument("config", metavar="CONFIG.toml", type=Path)
    train.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    print(train_model(arguments.config, report=print))
    return 0


def train_model(config_path: Path, report: Report) -> Path:
    """Train from a TOML file, reporting loss and speed now and then; returns the weights."""
    from ..training.config import load_training_config
    from ..training.loop import train

    start, losses = time.monotonic(), []

    def on_step(trainer: Trainer, loss: float) -> None:
        nonlocal start
        losses.append(loss)
        if len(losses) < REPORT_EVERY_STEPS or not trainer.processes.is_main:
            return
        rate = len(losses) / (time.monotonic() - start)
        left = trainer.stage.num_steps - trainer.step
        report(
            f"stage {trainer.stage.name} step {trainer.step}/{trainer.stage.num_steps} "
            f"loss {sum(losses) / len(losses):.5f} {rate:.2f} it/s {left / rate / 60:.0f} min left"
        )
        losses.clear()
        start = time.monotonic()

    return train(load_training_config(config_path), on_step)
