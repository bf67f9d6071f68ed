"""The training loop: resumable to the same weights, one process or many, EMA, bfloat16 autocast."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoint import Checkpoint, has_vivid, load_checkpoint, resolve_model, save_checkpoint
from ..model.routing import HeadRouting, calibrate
from .archives import ArchivedFootage
from .config import VIVID, YARDSTICK, StageConfig, TrainingConfig, TrainingError
from .data import ShardStream, batches, cut_context, load_footage, sample_seed, steps_per_shard
from .footage import Sources
from .network import (
    Trainee,
    architecture,
    build_network,
    checkpoint_blocks,
    save_network,
    to_channels_last,
)
from .objective import Objective
from .optimizer import MatrixOptimizer
from .processes import Processes
from .state import STATE_NAME, keep_older, newest_state, read_state, save_state
from .watcher import Watcher
from .yardstick import load_yardstick

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "oasis.safetensors"
NUM_CALIBRATION_CLIPS = 24

OnStep = Callable[["Trainer", float], None]


class Trainer:
    """Holds everything that a run needs to continue: weights, average, optimiser, position."""

    def __init__(self, config: TrainingConfig) -> None:
        # Squares of tiny gradients are denormal numbers, which made a CPU step four times slower.
        torch.set_flush_denormal(True)
        self.config = config
        self.output_dir = Path(config.output_dir).expanduser()
        self.processes = Processes()
        self.device = self.processes.device
        self.is_routed = config.model != YARDSTICK
        initial = None
        if config.initial_model and self.is_routed:
            initial = _load_start(config)
        self.architecture = architecture(config, initial)
        self.routing = self._all_global() if self.is_routed else None
        self.model = self._new_model()
        self.ema = self._new_model()
        if config.gradient_checkpointing:
            checkpoint_blocks(self.model)
        self.stage_index = 0
        self.step = 0
        self.is_calibrated = False
        self.footage: list[str] = []
        # What the start was made from goes on with the weights: licence, data, earlier training.
        before = initial.info if initial else {}
        self.provenance = {key: value for key, value in before.items() if key != "metrics"}
        if initial is not None:
            self._start_from(initial)
        elif config.initial_model:
            self._start_from_yardstick(config.initial_model)
        self.optimizer = self._new_optimizer()
        is_latent = self.is_routed and self.model.config.is_latent
        self.objective = Objective(config, self.processes, is_latent=is_latent)
        self._parallel: nn.Module = Trainee(self.model)

    def _start_from_yardstick(self, name: str) -> None:
        network = load_yardstick(resolve_model(name))
        if network.config != self.model.config:
            raise TrainingError("initial_model must be a yardstick of the configured size")
        for model in (self.model, self.ema):
            model.load_state_dict(network.state_dict(), strict=True)

    def _start_from(self, checkpoint: Checkpoint) -> None:
        """Take over weights and routing; heads stand in routed order from here on."""
        self.routing = _in_routed_order(checkpoint.routing)
        for model in (self.model, self.ema):
            # The loaded model's heads are sorted already, so only the counts change here.
            model.load_state_dict(checkpoint.model.state_dict(), strict=True)
            model.transformer.apply_routing(self.routing)

    def _all_global(self) -> HeadRouting:
        shape = self.architecture
        return HeadRouting.all_global(shape.num_layers, shape.num_heads, shape.window_size)

    def _new_model(self) -> nn.Module:
        return to_channels_last(build_network(self.config, self.architecture), self.device)

    def _new_optimizer(self) -> MatrixOptimizer:
        config = self.config
        return MatrixOptimizer(
            self.model, matrix_rate=config.matrix_rate, weight_decay=config.weight_decay
        )

    @property
    def stage(self) -> StageConfig:
        """The stage that is being trained."""
        return self.config.stages[self.stage_index]

    @property
    def total_step(self) -> int:
        """Steps done in all stages."""
        return self.step + sum(stage.num_steps for stage in self.config.stages[: self.stage_index])

    def learning_rate(self) -> float:
        """The rate of the next step: linear warm-up, then a cosine to the stage's last rate."""
        stage = self.stage
        progress = min(1.0, self.step / stage.num_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        rate = stage.final_learning_rate + cosine * (
            stage.learning_rate - stage.final_learning_rate
        )
        return rate * min(1.0, (self.step + 1) / max(1, stage.warmup_steps))

    def autocast(self) -> torch.autocast:
        """The arithmetic of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast_bf16)

    def _loss(self, resized: Tensor, truth: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The weighted loss of a batch; restored, true and resized frames that it is about."""
        stage = self.stage
        seed = sample_seed(self.config.seed, 3, self.stage_index, self.step)
        resized, kept = cut_context(resized, stage, seed)
        truth = truth[:, :, stage.context_frames :][:, :, : stage.num_frames]
        with self.autocast():
            residual, latent = self._parallel(resized, kept)
        restored = resized[:, :, kept] + residual.float()
        frames = restored, truth, resized[:, :, kept]
        return self.objective.loss(stage, self._parallel, frames, latent, seed), frames

    def train_step(self, resized: Tensor, truth: Tensor) -> float:
        """One optimiser step on a batch `b 3 t h w`; returns the loss.

        Raises:
            TrainingError: The loss is NaN or infinite; the batch is saved for a look.
        """
        resized, truth = resized.to(self.device), truth.to(self.device)
        if self.is_routed:
            self.model.skips_transformer = self.stage.skip_transformer
        loss, frames = self._loss(resized, truth)
        value = self.processes.mean(loss)
        if not math.isfinite(value):
            self._stop_at_bad_loss(loss, resized, truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        rate = self.learning_rate()
        self.optimizer.step(rate, self.stage.transformer_rate)
        if self.stage.adversarial_weight or self.stage.has_judges:
            places = self.processes.share_of(self.stage.batch_size)
            seeds = [sample_seed(self.config.seed, self.total_step, place) for place in places]
            self.objective.train_opponents(self.stage, frames, rate, seeds)
        self.step += 1
        self._update_ema()
        return value

    def _stop_at_bad_loss(self, loss: Tensor, resized: Tensor, truth: Tensor) -> None:
        path = self.output_dir / f"bad_batch{self.processes.index or ''}.safetensors"
        with keep_older(path):
            save_file({"resized": resized.contiguous(), "truth": truth.contiguous()}, path)
        raise TrainingError(
            f"loss is {loss.item()} at step {self.step} of stage {self.stage.name}; the batch "
            f"is in {path}, the last good state in {self.output_dir / STATE_NAME}"
        )

    @torch.no_grad()
    def _update_ema(self) -> None:
        # A young average follows faster, so that early checkpoints are usable.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        if self.stage_index:
            decay = self.config.ema_decay
        averages, values = list(self.ema.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(averages, values, 1 - decay)

    def calibrate_if_asked(self, sources: Sources | ArchivedFootage) -> None:
        """Assign the heads at the start of a stage that asks for it, then sort them.

        From here on the heads stand in routed order in the weights, and the optimiser starts
        afresh because its moments belong to the old order.
        """
        stage = self.stage
        if stage.calibrate_window_heads < 0 or self.is_calibrated or not self.is_routed:
            return
        num_threads = torch.get_num_threads()
        shard = ShardStream(self.config, self.stage_index, sources)[0]
        # A stream takes one thread for its process, which here is the trainer's own.
        torch.set_num_threads(num_threads)
        drawn = batches(shard, self.config, self.stage_index, 0)
        singles = (clip for batch, _ in drawn for clip in batch)
        clips = [clip[None].to(self.device) for clip in islice(singles, NUM_CALIBRATION_CLIPS)]
        # Distances are meant to be measured on unrestricted heads; their order stays, settled.
        self.ema.transformer.apply_routing(self._all_global())
        routing = calibrate(
            self.ema,
            clips,
            seed=self.config.seed,
            quotas={"window": stage.calibrate_window_heads, "intra": stage.calibrate_intra_heads},
        )
        for model in (self.model, self.ema):
            model.transformer.apply_routing(routing)
            model.transformer.settle_heads()
        self.routing = self.model.transformer.routing
        self.is_calibrated = True
        self.optimizer = self._new_optimizer()
        logger.info("calibrated: %s", [self.routing.counts(i) for i in range(routing.num_layers)])

    def run(self, on_step: OnStep | None = None) -> Path:
        """Train all remaining stages; returns the path of the finished weights.

        Args:
            on_step: Called after every step with the trainer and the loss.
        """
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if newest_state(self.output_dir) is not None:
            self.load_state()
        self.processes.check_same(f"stage {self.stage_index + 1}, step {self.step}", "state")
        for stage in self.config.stages:
            self.processes.share_of(stage.batch_size)
        watcher = Watcher(self) if self.processes.is_main else None
        self.objective.start()
        while self.stage_index < len(self.config.stages):
            stage = self.stage
            sources = load_footage(self.config, stage)
            self.footage = sources.names
            self.processes.check_same(f"{len(sources.names)} files", "footage")
            self.calibrate_if_asked(sources)
            self._parallel = self.processes.wrap(
                Trainee(self.model), has_unused=stage.skip_transformer
            )
            self._run_stage(sources, watcher, on_step)
            self.stage_index, self.step, self.is_calibrated = self.stage_index + 1, 0, False
            self.save_state()
        if watcher:
            watcher.close()
        self.processes.wait()
        return self.output_dir / WEIGHTS_NAME

    def _run_stage(
        self,
        sources: Sources | ArchivedFootage,
        watcher: Watcher | None,
        on_step: OnStep | None,
    ) -> None:
        config, places = self.config, self.processes.share_of(self.stage.batch_size)
        per_shard = steps_per_shard(config, self.stage)
        stream = ShardStream(config, self.stage_index, sources, places)
        device = self.device if config.degrade_on_device else None
        for index, shard in stream.load(self.step // per_shard, config.data_workers, device):
            skip = self.step - index * per_shard
            for batch in batches(shard, config, self.stage_index, index, places, skip):
                if self.step >= self.stage.num_steps:
                    return
                loss = self.train_step(*batch)
                if watcher:
                    watcher.after_step(loss)
                if on_step:
                    on_step(self, loss)
                if self.step % config.save_every == 0:
                    self.save_state()

    def save_state(self) -> None:
        """Write everything needed to continue; complete or not at all."""
        is_sharded = self.config.sharded_state
        if not (self.processes.is_main or is_sharded):
            return
        tensors: dict[str, Tensor] = {}
        for prefix, model in (("model.", self.model), ("ema.", self.ema)):
            tensors |= {prefix + name: x.contiguous() for name, x in model.state_dict().items()}
        moments = self.optimizer.state_tensors()
        tensors |= {"optimizer." + name: value for name, value in moments.items()}
        tensors |= self.objective.state_tensors()
        position = {
            "stage_index": self.stage_index,
            "step": self.step,
            "is_calibrated": self.is_calibrated,
            "fingerprint": self.config.fingerprint(),
            "routing": self.routing.to_json() if self.routing else None,
        }
        save_state(self.output_dir, tensors, position, self.processes, is_sharded=is_sharded)
        if self.processes.is_main:
            self.save_weights()

    def load_state(self) -> None:
        """Continue from the saved state.

        Raises:
            TrainingError: The state belongs to another configuration.
        """
        path = newest_state(self.output_dir)
        position, tensors = read_state(path, self.config.fingerprint())
        self.stage_index, self.step = position["stage_index"], position["step"]
        self.is_calibrated = position["is_calibrated"]
        if position["routing"]:
            self.routing = HeadRouting.from_json(position["routing"])
        for prefix, model in (("model.", self.model), ("ema.", self.ema)):
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            model.load_state_dict(state, strict=True)
            if self.is_routed:
                # The weights are stored in routed order: counts change, rows do not move.
                model.transformer.apply_routing(self.routing)
        self.optimizer = self._new_optimizer()
        prefix = "optimizer."
        self.optimizer.load_state_tensors(
            {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        )
        self.objective.load_state_tensors(tensors)
        logger.info("continuing at step %d of stage %d", self.step, self.stage_index + 1)

    def _save_ends(self, path: Path, info: dict[str, Any]) -> None:
        """Write the faithful end as it was, and what was trained as the vivid one."""
        start = load_checkpoint(resolve_model(self.config.initial_model))
        model = build_network(self.config, self.architecture)
        model.load_state_dict(start.model.state_dict(), strict=True)
        facts = {**start.info, "vivid": info}
        routing = _in_routed_order(start.routing)
        save_checkpoint(path, model, routing, facts, torch.float16, vivid=self.ema.state_dict())

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
        if self.provenance:
            info["initial"] = self.provenance
        with keep_older(path):
            if self.config.trained_end == VIVID:
                self._save_ends(path, info)
            else:
                save_network(path, self.ema, self.routing, info)
        return path


def _load_start(config: TrainingConfig) -> Checkpoint:
    """What a run starts from: a vivid end goes on from a vivid end, if there is one."""
    path = resolve_model(config.initial_model)
    detail = float(config.trained_end == VIVID and has_vivid(path))
    return load_checkpoint(path, detail=detail)


def _in_routed_order(routing: HeadRouting) -> HeadRouting:
    """The same routing for weights whose heads were sorted by it."""
    return routing.permuted([routing.permutation(i) for i in range(routing.num_layers)])


def train(config: TrainingConfig, on_step: OnStep | None = None) -> Path:
    """Train a model from a configuration, continuing where an earlier run stopped.

    Returns:
        The finished checkpoint; it was loaded once to prove that it is whole.

    Raises:
        TrainingError: Bad data, a changed configuration, or a loss that is no number.
    """
    path = Trainer(config).run(on_step)
    if config.model == YARDSTICK:
        load_yardstick(path)
    else:
        load_checkpoint(path)
    return path
