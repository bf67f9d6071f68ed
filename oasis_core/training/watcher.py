"""Looks after a run from the side: log, validation, pictures; changes nothing about it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..geometry import next_valid_num_frames
from .config import StageConfig, TrainingConfig
from .log import RunLog
from .validation import gains, load_validation, write_sample

SAMPLES_NAME = "samples"
LOG_EVERY_STEPS = 25


class Watched(Protocol):
    """What is read of a training run."""

    config: TrainingConfig
    """Configuration of the run."""
    output_dir: Path
    """Folder of the log, the samples and the plot."""
    step: int
    """Steps done in the stage."""
    ema: nn.Module
    """The averaged model, which is measured."""
    is_routed: bool
    """Whether the model has a transformer that a stage may leave out."""
    device: torch.device
    """Where the averaged model lies."""

    @property
    def stage(self) -> StageConfig:
        """The stage that is being trained."""

    @property
    def total_step(self) -> int:
        """Steps done in all stages."""

    def learning_rate(self) -> float:
        """The rate of the step that was done."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The arithmetic of the run."""


class Watcher:
    """Called after every step by the main process.

    Args:
        trainer: The run that is watched.

    Raises:
        ValueError: Validation clips or TensorBoard are missing.
    """

    def __init__(self, trainer: Watched) -> None:
        config = trainer.config
        self.trainer = trainer
        self.losses: list[float] = []
        self.start = time.monotonic()
        needs_clips = config.validate_every or config.sample_every
        self.clips = load_validation(config) if needs_clips else []
        self.log = RunLog(
            trainer.output_dir, trainer.total_step, with_tensorboard=config.tensorboard
        )

    def after_step(self, loss: float) -> None:
        """Log, measure and picture what is due."""
        self.losses.append(loss)
        trainer, config = self.trainer, self.trainer.config
        step, is_last = trainer.step, trainer.step == trainer.stage.num_steps
        is_validated = config.validate_every and (step % config.validate_every == 0 or is_last)
        if step % LOG_EVERY_STEPS == 0 or is_validated or is_last:
            self._write(bool(is_validated))
        if config.sample_every and (step % config.sample_every == 0 or is_last):
            name = f"step_{trainer.total_step:07}"
            folder = trainer.output_dir / SAMPLES_NAME
            write_sample(folder, name, self._restoring, self.clips, trainer.device)

    def _write(self, is_validated: bool) -> None:
        trainer = self.trainer
        row: dict[str, Any] = {
            "stage": trainer.stage.name,
            "stage_step": trainer.step,
            "step": trainer.total_step,
            "loss": sum(self.losses) / len(self.losses),
            "learning_rate": trainer.learning_rate(),
            "steps_per_s": len(self.losses) / max(time.monotonic() - self.start, 1e-9),
        }
        if is_validated:
            row |= gains(self._restoring, self.clips, trainer.device)
        self.log.write(row)
        self.losses.clear()
        self.start = time.monotonic()

    def _restoring(self, video: Tensor) -> Tensor:
        """The averaged model on a clip of any length, as it is used after training."""
        trainer = self.trainer
        num_frames = video.shape[2]
        valid = next_valid_num_frames(num_frames, trainer.ema.config.token_stride[0])
        last = video[:, :, -1:].expand(-1, -1, valid - num_frames, -1, -1)
        trainer.ema.eval()
        if trainer.is_routed:
            trainer.ema.skips_transformer = trainer.stage.skip_transformer
        with torch.no_grad(), trainer.autocast():
            return trainer.ema(torch.cat([video, last], dim=2))[:, :, :num_frames]

    def close(self) -> None:
        """Draw the plot of the finished run."""
        self.log.close()
