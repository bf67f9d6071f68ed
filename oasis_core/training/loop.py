"""The training loop: one process, resumable to the same weights, EMA, bfloat16 autocast."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from ..checkpoint import (
    Checkpoint,
    load_checkpoint,
    resolve_model,
    save_checkpoint,
    write_safetensors,
)
from ..config import PRESETS
from ..model.denoiser import OasisModel, build_model
from ..model.routing import HeadRouting, calibrate
from .config import StageConfig, TrainingConfig, TrainingError
from .data import MARGIN_PX, Shard, ShardStream, Sources, batches, load_sources, steps_per_shard
from .losses import charbonnier, frame_difference
from .optimizer import MatrixOptimizer

logger = logging.getLogger(__name__)

STATE_NAME = "state.safetensors"
WEIGHTS_NAME = "oasis.safetensors"
NUM_CALIBRATION_CLIPS = 24


class Trainer:
    """Holds everything that a run needs to continue: weights, average, optimiser, position."""

    def __init__(self, config: TrainingConfig) -> None:
        # Squares of tiny gradients are denormal numbers, which made a CPU step four times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.output_dir = Path(config.output_dir)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.routing = self._all_global()
        self.model = self._new_model()
        self.ema = self._new_model()
        self.stage_index = 0
        self.step = 0
        self.is_calibrated = False
        self.footage: list[str] = []
        if config.initial_model:
            self._start_from(load_checkpoint(resolve_model(config.initial_model)))
        self.optimizer = self._new_optimizer()

    def _start_from(self, checkpoint: Checkpoint) -> None:
        """Take over weights and routing; heads stand in routed order from here on.

        Raises:
            TrainingError: The checkpoint is of another architecture.
        """
        if checkpoint.model.config != PRESETS[self.config.model]:
            raise TrainingError(
                f"initial_model must be an {self.config.model}, got another architecture named "
                f"{checkpoint.model.config.name!r}"
            )
        self.routing = _in_routed_order(checkpoint.routing)
        for model in (self.model, self.ema):
            # The loaded model's heads are sorted already, so only the counts change here.
            model.load_state_dict(checkpoint.model.state_dict(), strict=True)
            model.transformer.apply_routing(self.routing)

    def _all_global(self) -> HeadRouting:
        preset = PRESETS[self.config.model]
        return HeadRouting.all_global(preset.num_layers, preset.num_heads, preset.window_size)

    def _new_model(self) -> OasisModel:
        model = build_model(PRESETS[self.config.model], seed=self.config.seed)
        return model.to(self.device, memory_format=torch.channels_last)

    def _new_optimizer(self) -> MatrixOptimizer:
        config = self.config
        return MatrixOptimizer(
            self.model, matrix_rate=config.matrix_rate, weight_decay=config.weight_decay
        )

    @property
    def stage(self) -> StageConfig:
        """The stage that is being trained."""
        return self.config.stages[self.stage_index]

    def learning_rate(self) -> float:
        """The rate of the next step: linear warm-up, then a cosine to the stage's last rate."""
        stage = self.stage
        progress = min(1.0, self.step / stage.num_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        rate = stage.final_learning_rate + cosine * (
            stage.learning_rate - stage.final_learning_rate
        )
        return rate * min(1.0, (self.step + 1) / max(1, stage.warmup_steps))

    def train_step(self, resized: Tensor, truth: Tensor) -> float:
        """One optimiser step on a batch `b 3 t h w`; returns the loss.

        Raises:
            TrainingError: The loss is NaN or infinite; the batch is saved for a look.
        """
        resized, truth = resized.to(self.device), truth.to(self.device)
        self.model.skips_transformer = self.stage.skip_transformer
        use_bf16 = self.config.autocast_bf16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use_bf16):
            residual = self.model(resized)
        restored = resized + residual.float()
        loss = charbonnier(restored, truth)
        if self.stage.temporal_weight:
            loss = loss + self.stage.temporal_weight * frame_difference(restored, truth)
        if not torch.isfinite(loss):
            path = self.output_dir / "bad_batch.safetensors"
            save_file({"resized": resized.contiguous(), "truth": truth.contiguous()}, path)
            raise TrainingError(
                f"loss is {loss.item()} at step {self.step} of stage {self.stage.name}; the batch "
                f"is in {path}, the last good state in {self.output_dir / STATE_NAME}"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step(self.learning_rate(), self.stage.transformer_rate)
        self.step += 1
        self._update_ema()
        return loss.item()

    @torch.no_grad()
    def _update_ema(self) -> None:
        # A young average follows faster, so that early checkpoints are usable.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        if self.stage_index:
            decay = self.config.ema_decay
        averages, values = list(self.ema.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(averages, values, 1 - decay)

    def calibrate_if_asked(self, sources: Sources) -> None:
        """Assign the heads at the start of a stage that asks for it, then sort them.

        From here on the heads stand in routed order in the weights, and the optimiser starts
        afresh because its moments belong to the old order.
        """
        stage = self.stage
        if stage.calibrate_window_heads < 0 or self.is_calibrated:
            return
        stream = ShardStream(self.config, self.stage_index, sources)
        generator = torch.Generator().manual_seed(self.config.seed)
        drawn = (
            clip for batch, _ in batches(stream[0], self.config, stage, generator) for clip in batch
        )
        clips = [clip[None].to(self.device) for clip in islice(drawn, NUM_CALIBRATION_CLIPS)]
        # Distances are meant to be measured on unrestricted heads; their order stays.
        self.ema.transformer.apply_routing(self._all_global())
        routing = calibrate(
            self.ema,
            clips,
            seed=self.config.seed,
            quotas={"window": stage.calibrate_window_heads, "intra": stage.calibrate_intra_heads},
        )
        self.model.transformer.apply_routing(routing)
        self.ema.transformer.apply_routing(routing)
        self.routing = _in_routed_order(routing)
        self.is_calibrated = True
        self.optimizer = self._new_optimizer()
        logger.info("calibrated: %s", [self.routing.counts(i) for i in range(routing.num_layers)])

    def shards(self, sources: Sources) -> Iterator[tuple[int, Shard]]:
        """The remaining shards of the stage; a worker process makes the next one meanwhile."""
        stream = ShardStream(self.config, self.stage_index, sources)
        first = self.step // steps_per_shard(self.config, self.stage)
        indices = list(range(first, len(stream)))
        loader = DataLoader(
            stream, batch_size=None, sampler=indices, num_workers=1, prefetch_factor=1
        )
        yield from zip(indices, loader, strict=True)

    def run(self, on_step: Callable[[Trainer, float], None] | None = None) -> Path:
        """Train all remaining stages; returns the path of the finished weights.

        Args:
            on_step: Called after every step with the trainer and the loss.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if (self.output_dir / STATE_NAME).exists():
            self.load_state()
        while self.stage_index < len(self.config.stages):
            stage = self.stage
            sources = load_sources(
                self.config.data_dirs, stage.crop_px + MARGIN_PX, stage.num_frames
            )
            self.footage = sources.names
            self.calibrate_if_asked(sources)
            self._run_stage(sources, on_step)
            self.stage_index, self.step, self.is_calibrated = self.stage_index + 1, 0, False
            self.save_state()
        return self.save_weights()

    def _run_stage(
        self, sources: Sources, on_step: Callable[[Trainer, float], None] | None
    ) -> None:
        per_shard = steps_per_shard(self.config, self.stage)
        for index, shard in self.shards(sources):
            generator = torch.Generator().manual_seed(
                (self.config.seed * 7919 + self.stage_index) * 1_000_003 + index
            )
            skip = self.step - index * per_shard
            for number, (resized, truth) in enumerate(
                batches(shard, self.config, self.stage, generator)
            ):
                if number < skip:
                    continue
                if self.step >= self.stage.num_steps:
                    return
                loss = self.train_step(resized, truth)
                if on_step:
                    on_step(self, loss)
                if self.step % self.config.save_every == 0:
                    self.save_state()

    def _fingerprint(self) -> str:
        # What may change between runs is the future: later stages and how often state is saved.
        fixed = {**self.config.to_json(), "stages": None, "save_every": None, "output_dir": None}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def save_state(self) -> None:
        """Write everything needed to continue; complete or not at all."""
        tensors: dict[str, Tensor] = {}
        for prefix, model in (("model.", self.model), ("ema.", self.ema)):
            tensors |= {prefix + name: x.contiguous() for name, x in model.state_dict().items()}
        moments = self.optimizer.state_tensors()
        tensors |= {"optimizer." + name: value for name, value in moments.items()}
        position = {
            "stage_index": self.stage_index,
            "step": self.step,
            "is_calibrated": self.is_calibrated,
            "fingerprint": self._fingerprint(),
            "routing": self.routing.to_json(),
            "saved_at": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        path = self.output_dir / STATE_NAME
        write_safetensors(path, tensors, {"position": json.dumps(position)})
        self.save_weights()

    def load_state(self) -> None:
        """Continue from the saved state.

        Raises:
            TrainingError: The state belongs to another configuration.
        """
        path = self.output_dir / STATE_NAME
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            if position["fingerprint"] != self._fingerprint():
                raise TrainingError(
                    f"{path} was made with another model, data or seed; use another output_dir"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.stage_index, self.step = position["stage_index"], position["step"]
        self.is_calibrated = position["is_calibrated"]
        self.routing = HeadRouting.from_json(position["routing"])
        for prefix, model in (("model.", self.model), ("ema.", self.ema)):
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            model.load_state_dict(state, strict=True)
            # The weights are stored in routed order: counts change, rows do not move.
            model.transformer.apply_routing(self.routing)
        self.optimizer = self._new_optimizer()
        prefix = "optimizer."
        self.optimizer.load_state_tensors(
            {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        )
        logger.info("continuing at step %d of stage %d", self.step, self.stage_index + 1)

    def save_weights(self) -> Path:
        """Write the averaged weights as an oasis checkpoint."""
        path = self.output_dir / WEIGHTS_NAME
        start = self.config.initial_model or "scratch"
        info = {
            "licence": self.config.licence,
            "source": f"trained from {start} by `oasis train`, configuration under `training`",
            "data": self.config.data_note,
            "footage": self.footage,
            "training": self.config.to_json(),
            "position": {"stage": self.stage_index + 1, "step": self.step},
        }
        save_checkpoint(path, self.ema, self.routing, info, dtype=torch.float16)
        return path


def _in_routed_order(routing: HeadRouting) -> HeadRouting:
    """The same routing for weights whose heads were sorted by it."""
    return routing.permuted([routing.permutation(i) for i in range(routing.num_layers)])


def train(config: TrainingConfig, on_step: Callable[[Trainer, float], None] | None = None) -> Path:
    """Train a model from a configuration, continuing where an earlier run stopped.

    Returns:
        The finished checkpoint; it was loaded once to prove that it is whole.

    Raises:
        TrainingError: Bad data, a changed configuration, or a loss that is no number.
    """
    path = Trainer(config).run(on_step)
    load_checkpoint(path)
    return path
