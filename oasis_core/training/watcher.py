"""Looks after a run from the side: log, validation, pictures; changes nothing about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..geometry import next_valid_num_frames
from .log import RunLog
from .validation import gains, load_validation, write_sample

if TYPE_CHECKING:
    from .loop import Trainer

SAMPLES_NAME = "samples"
LOG_EVERY_STEPS = 25


class Watcher:
    """Called after every step by the main process.

    Args:
        trainer: Its averaged weights are measured.

    Raises:
        ValueError: Validation clips or TensorBoard are missing.
    """

    def __init__(self, trainer: Trainer) -> None:
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
