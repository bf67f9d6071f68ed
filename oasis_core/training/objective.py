"""What a run minimises: the losses of its stage, and the networks that they need."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .adversary import Adversary
from .config import StageConfig, TrainingConfig, TrainingError
from .judges import Features, Judges
from .losses import NUM_FLAT_CLIPS, draw_flat_clips, flat_error, latent_error, pixel_losses
from .network import load_latent_encoder
from .perceptual import PerceptualLoss
from .processes import Processes

Call = Callable[..., tuple[Tensor, Tensor | None]]
"""A network as `Trainee` calls it: a clip in, its residual and a latent out."""


class Objective:
    """The losses of all stages; their networks are loaded at the start, not hours later.

    Args:
        config: The run.
        processes: Who trains, and where.
        is_latent: Whether the model makes its frames by a latent.

    Raises:
        TrainingError: A network or its weights are missing, or a loss is not for this model.
    """

    def __init__(self, config: TrainingConfig, processes: Processes, *, is_latent: bool) -> None:
        stages, device = config.stages, processes.device
        self.config, self.processes = config, processes
        self.adversary: Adversary | None = None
        self.judges: Judges | None = None
        self.perceptual: PerceptualLoss | None = None
        self.latent_encoder: nn.Module | None = None
        self._features: Features | None = None
        if is_latent and any(stage.context_frames for stage in stages):
            raise TrainingError(
                f"context_frames must be 0 for {config.model}, which makes frames by the latent"
            )
        if any(stage.adversarial_weight for stage in stages):
            self.adversary = Adversary(config.seed, device)
        if any(stage.perceptual_weight for stage in stages):
            self.perceptual = PerceptualLoss(config.perceptual_network, device)
        if any(stage.has_judges for stage in stages):
            self.judges = self._new_judges()
        if any(stage.latent_weight for stage in stages):
            if not is_latent:
                raise TrainingError(f"latent_weight needs a latent model, {config.model} is none")
            self.latent_encoder = load_latent_encoder(config.latent_encoder, device)

    def _new_judges(self) -> Judges:
        if self.processes.count > 1:
            raise TrainingError(
                "picture_weight, change_weight and feature_weight are for one process, got "
                f"{self.processes.count}; leave them out or start one"
            )
        has_features = any(stage.feature_weight for stage in self.config.stages)
        widths = self.perceptual.feature_widths() if has_features else ()
        return Judges(self.config.seed, widths, self.processes.device)

    def start(self) -> None:
        """Let several processes share the discriminator."""
        if self.adversary:
            self.adversary.parallel = self.processes.wrap(self.adversary.network)

    def loss(
        self,
        stage: StageConfig,
        call: Call,
        frames: tuple[Tensor, Tensor, Tensor],
        latent: Tensor | None,
        seed: int,
    ) -> Tensor:
        """The weighted sum of a stage's losses.

        Args:
            stage: The stage.
            call: The model, for clips that a loss makes itself.
            frames: Restored, true and resized, all `b 3 t h w`.
            latent: Predicted by a model that has one.
            seed: Of all that is drawn.
        """
        restored, truth, _ = frames
        parts = pixel_losses(stage, restored, truth)
        if stage.latent_weight:
            with torch.no_grad():
                target = self.latent_encoder.encode(truth)
            parts["latent"] = stage.latent_weight * latent_error(latent, target)
        if stage.flat_weight:
            flat = draw_flat_clips(NUM_FLAT_CLIPS, seed).to(truth.device)
            parts["flat"] = stage.flat_weight * flat_error(call(flat)[0].float())
        if stage.perceptual_weight:
            parts["perceptual"] = stage.perceptual_weight * self._distance(stage, frames, seed)
        if stage.has_judges:
            for name, fooled in self.judges.losses(*frames, self._features).items():
                parts[name] = getattr(stage, f"{name}_weight") * fooled
        if stage.adversarial_weight:
            fooled = self.adversary.generator_loss(restored, truth)
            parts["adversarial"] = stage.adversarial_weight * fooled
        loss, *more = parts.values()
        for part in more:
            loss = loss + part
        return loss

    def _distance(self, stage: StageConfig, frames: tuple[Tensor, ...], seed: int) -> Tensor:
        """The perceptual distance; keeps the features for the judge of them."""
        restored, truth, _ = frames
        if not stage.feature_weight:
            return self.perceptual(restored, truth)
        distance, self._features = self.perceptual.with_features(restored, truth, seed)
        return distance

    def train_opponents(
        self,
        stage: StageConfig,
        frames: tuple[Tensor, Tensor, Tensor],
        learning_rate: float,
        seeds: list[int],
    ) -> None:
        """One step of the discriminators that the stage has.

        Args:
            stage: The stage.
            frames: What `loss` was given.
            learning_rate: Of the model's convolutions.
            seeds: One for each clip.
        """
        restored, truth, resized = frames
        rate = learning_rate * stage.discriminator_rate
        if stage.adversarial_weight:
            self.adversary.train_step(restored.detach(), truth, rate, seeds)
        if stage.has_judges:
            features, self._features = self._features, None
            if features is not None:
                features = tuple([x.detach() for x in side] for side in features)
            self.judges.train_step(restored.detach(), truth, resized, features, rate, seeds[0])

    def state_tensors(self) -> dict[str, Tensor]:
        """What the discriminators need to go on, for a saved state."""
        tensors: dict[str, Tensor] = {}
        for trained in (self.adversary, self.judges):
            if trained:
                tensors |= trained.state_tensors()
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` returned."""
        for trained in (self.adversary, self.judges):
            if trained:
                trained.load_state_tensors(tensors)
