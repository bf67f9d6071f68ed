"""A small discriminator trained alongside, for an adversarial loss.

Relativistic: it judges whether a true patch looks more real than the restored patch at the same
place, which is stable without a gradient penalty of second order.

Source: RpGAN with approximate R1, as in SeedVR2, arXiv 2506.05301; GAN for video by APT,
arXiv 2501.08316.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

WIDTHS = (32, 64, 128)
REGULARISER_WEIGHT = 100.0
REGULARISER_SIGMA = 0.01
_PREFIX = "discriminator."
_OPTIMIZER_PREFIX = "discriminator_optimizer."


class Discriminator(nn.Module):
    """Patches of frames to a score each: three strided convolutions and a last one."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, *WIDTHS)
        self.layers = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], 4, stride=2, padding=1) for i in range(len(WIDTHS))
        )
        # No bias: only differences of scores count, so it would follow rounding errors.
        self.last = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1, bias=False)

    def forward(self, video: Tensor) -> Tensor:
        """Score `b 3 t h w` in [0, 1]; `(b t) 1 h/8 w/8`, higher means more real."""
        x = rearrange(video - 0.5, "b c t h w -> (b t) c h w")
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.last(x)


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Small when `better` scores above `worse`; both `n 1 h w`."""
    return F.softplus(worse - better).mean()


class Adversary:
    """The discriminator, its optimiser and both losses.

    Args:
        seed: Of its initial weights.
        device: Where it runs.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Discriminator().to(device)
        # The module that gradients are taken through; several processes wrap it.
        self.parallel: nn.Module = self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=0.0, betas=(0.5, 0.9), weight_decay=0.0
        )

    def generator_loss(self, restored: Tensor, truth: Tensor) -> Tensor:
        """How much less real the restored clip looks; no gradient reaches the discriminator."""
        self.network.requires_grad_(False)
        loss = relativistic_loss(self.network(restored), self.network(truth).detach())
        self.network.requires_grad_(True)
        return loss

    def train_step(
        self, restored: Tensor, truth: Tensor, learning_rate: float, noise_seeds: Sequence[int]
    ) -> float:
        """One step of the discriminator; returns its loss.

        Args:
            restored: `b 3 t h w`, without gradient.
            truth: The same shape.
            learning_rate: Of this step.
            noise_seeds: One per clip, of the disturbance that keeps it smooth (approximate R1).
        """
        noise = torch.stack(
            [
                torch.randn(truth.shape[1:], generator=torch.Generator().manual_seed(seed))
                for seed in noise_seeds
            ]
        )
        noise = noise.to(truth) * REGULARISER_SIGMA
        scores = self.parallel(torch.cat([truth, restored, truth + noise]))
        real, fake, disturbed = scores.chunk(3)
        smoothness = (real - disturbed).square().mean()
        loss = relativistic_loss(real, fake) + REGULARISER_WEIGHT * smoothness
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss.item()

    def state_tensors(self) -> dict[str, Tensor]:
        """Weights and moments, for a saved state."""
        tensors = {_PREFIX + name: x for name, x in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{_OPTIMIZER_PREFIX}{name}.{kind}"] = value
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` returned; nothing, if the state has no discriminator."""
        weights = {k[len(_PREFIX) :]: v for k, v in tensors.items() if k.startswith(_PREFIX)}
        if not weights:
            return
        self.network.load_state_dict(weights, strict=True)
        for name, parameter in self.network.named_parameters():
            prefix = f"{_OPTIMIZER_PREFIX}{name}."
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                self.optimizer.state[parameter] = state
