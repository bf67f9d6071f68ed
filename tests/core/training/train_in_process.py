"""Runs one training in a process of its own: `train_in_process.py CONFIG.toml`.

With OASIS_TEST_KILL=RANK:STEP:FILE that rank is killed before that step, unless FILE exists.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import torch

from oasis_core import config as config_module
from oasis_core.config import OASIS_TINY
from oasis_core.training.config import load_training_config
from oasis_core.training.loop import train

SMALL = dataclasses.replace(
    OASIS_TINY,
    name="small",
    stem_channels=16,
    out_channels=16,
    width=24,
    num_layers=2,
    num_heads=3,
    ffn_width=24,
    num_stem_blocks=1,
    num_decoder_blocks=1,
)


def kill_once(trainer, _):
    rank, step, flag = os.environ["OASIS_TEST_KILL"].split(":", 2)
    is_now = trainer.processes.index == int(rank) and trainer.step == int(step)
    if is_now and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    config_module.PRESETS["small"] = SMALL
    on_step = kill_once if "OASIS_TEST_KILL" in os.environ else None
    train(load_training_config(Path(sys.argv[1])), on_step)
