"""Three small discriminators for a picture that pleases: of frames, of changes, of features.

All are relativistic and look at places, not at whole pictures. The first two see the resized input
beside what they judge, so that they ask for detail that belongs there, and halve their pictures by
averaging, since strided kernels teach a network patterns of their own period. The third judges what
a perceptual network sees, which a loss computes in any case: it tells the regular weave that such a
loss alone leads to from texture.

Source: relativistic average GAN, arXiv 1807.00734 (pairs as in `adversary`); discriminators on
features of a trained network, Projected GAN, arXiv 2111.01007; spectral norm, arXiv 1802.05957.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

PICTURE_WIDTHS = (16, 48, 64, 96)
FEATURE_WIDTH = 48
SLOPE = 0.2
REGULARISER_WEIGHT = 100.0
REGULARISER_SIGMA = 0.01
REGULARISE_EVERY = 2
CHANGE_GAIN = 2.0
"""Changes from frame to frame are smaller than pictures."""
FEATURE_SIZE = 4.0
"""Length of a feature vector, on the mean over the first batch, that the judge of features sees."""

_PREFIX = "judges."
_OPTIMIZER_PREFIX = "judges_optimizer."

Scores = list[Tensor]
Features = tuple[Sequence[Tensor], Sequence[Tensor]]
"""Of a restored and of the true frame."""


class PictureJudge(nn.Module):
    """Pictures beside their inputs, `n 6 h w`, to scores at a half, a quarter and an eighth."""

    def __init__(self) -> None:
        super().__init__()
        widths = PICTURE_WIDTHS
        self.first = nn.Conv2d(6, widths[0], 3, padding=1)
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(narrow, wide, 3, padding=1))
            for narrow, wide in itertools.pairwise(widths)
        )
        # No bias: only differences of scores count, so it would follow rounding errors.
        self.heads = nn.ModuleList(
            nn.Conv2d(width, 1, 3, padding=1, bias=False) for width in widths[1:]
        )

    def forward(self, pictures: Tensor) -> Scores:
        """Scores `n 1 h' w'`, higher means more real."""
        x = F.leaky_relu(self.first(pictures), SLOPE)
        scores = []
        for conv, head in zip(self.convs, self.heads, strict=True):
            x = F.leaky_relu(conv(F.avg_pool2d(x, 2)), SLOPE)
            scores.append(head(x))
        return scores


class FeatureJudge(nn.Module):
    """Features of a perceptual network to scores, one map for each of its taps.

    Args:
        widths: Channels of the taps.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("scales", torch.zeros(len(widths)))
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(width, FEATURE_WIDTH, 1)),
                nn.LeakyReLU(SLOPE),
                spectral_norm(nn.Conv2d(FEATURE_WIDTH, FEATURE_WIDTH, 3, padding=1)),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(FEATURE_WIDTH, 1, 1, bias=False),
            )
            for width in widths
        )

    def forward(self, features: Sequence[Tensor]) -> Scores:
        """Scores `n 1 h' w'` of features `n c h' w'`, higher means more real."""
        if not self.scales.any():
            lengths = [x.detach().square().sum(1).mean().sqrt() for x in features]
            self.scales.copy_(FEATURE_SIZE / torch.stack(lengths).clamp(min=1e-6))
        return [head(x * s) for head, x, s in zip(self.heads, features, self.scales, strict=True)]


def relativistic(better: Scores, worse: Scores) -> Tensor:
    """Small when `better` scores above `worse` at every place, on the mean over the maps."""
    pairs = zip(better, worse, strict=True)
    return torch.stack([F.softplus(low - high).mean() for high, low in pairs]).mean()


def picture_pairs(clip: Tensor, resized: Tensor) -> Tensor:
    """Frames `b 3 t h w` beside the resized input, `(b t) 6 h w`."""
    return rearrange(torch.cat([clip, resized], 1) - 0.5, "b c t h w -> (b t) c h w")


def change_pairs(clip: Tensor, resized: Tensor) -> Tensor:
    """Changes from frame to frame beside the input's; none of a single frame."""
    pair = torch.cat([clip.diff(dim=2), resized.diff(dim=2)], 1) * CHANGE_GAIN
    return rearrange(pair, "b c t h w -> (b t) c h w")


class Judges(nn.Module):
    """The judges with their optimiser.

    Args:
        seed: Of their initial weights.
        feature_widths: Channels of the taps of the perceptual network.
        device: Where they run.
    """

    def __init__(self, seed: int, feature_widths: Sequence[int], device: torch.device) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pictures, self.changes = PictureJudge(), PictureJudge()
            self.features = FeatureJudge(feature_widths)
        self.to(device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.0, betas=(0.5, 0.99))

    def losses(
        self,
        restored: Tensor,
        truth: Tensor,
        resized: Tensor,
        features: Features | None,
    ) -> dict[str, Tensor]:
        """How much less real the restored clip looks to each judge; they get no gradient.

        Args:
            restored: `b 3 t h w`.
            truth: The same shape.
            resized: The input, the same shape.
            features: Of a restored and the true frame; None: that judge is not asked.
        """
        self.requires_grad_(False)
        found = {"picture": self._fooled(self.pictures, picture_pairs, restored, truth, resized)}
        if truth.shape[2] > 1:
            found["change"] = self._fooled(self.changes, change_pairs, restored, truth, resized)
        if features is not None:
            fake, real = features
            found["feature"] = relativistic(self.features(fake), self.features(real))
        self.requires_grad_(True)
        return found

    @staticmethod
    def _fooled(judge, pairs, restored: Tensor, truth: Tensor, resized: Tensor) -> Tensor:  # noqa: ANN001
        return relativistic(judge(pairs(restored, resized)), judge(pairs(truth, resized)))

    def state_tensors(self) -> dict[str, Tensor]:
        """Weights and moments, for a saved state."""
        tensors = {_PREFIX + name: x for name, x in self.state_dict().items()}
        for name, parameter in self.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{_OPTIMIZER_PREFIX}{name}.{kind}"] = value
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` returned; nothing, if the state has no judges."""
        weights = {k[len(_PREFIX) :]: v for k, v in tensors.items() if k.startswith(_PREFIX)}
        if not weights:
            return
        self.load_state_dict(weights, strict=True)
        for name, parameter in self.named_parameters():
            prefix = f"{_OPTIMIZER_PREFIX}{name}."
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                self.optimizer.state[parameter] = state

    def train_step(
        self,
        restored: Tensor,
        truth: Tensor,
        resized: Tensor,
        features: Features | None,
        learning_rate: float,
        seed: int,
    ) -> float:
        """One step of the judges; returns their loss. Arguments as for `losses`, without gradient.

        Every second step a slightly noisy truth must score as the truth (approximate R1).
        """
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(truth.shape, generator=generator).to(truth) * REGULARISER_SIGMA
        disturbed = truth + noise if seed % REGULARISE_EVERY == 0 else None
        loss = self._tell(self.pictures, picture_pairs, (truth, restored, disturbed), resized)
        if truth.shape[2] > 1:
            clips = (truth, restored, disturbed)
            loss = loss + self._tell(self.changes, change_pairs, clips, resized)
        if features is not None:
            fake, real = features
            loss = loss + relativistic(self.features(real), self.features(fake))
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return loss.item()

    @staticmethod
    def _tell(judge, pairs, clips: tuple[Tensor, Tensor, Tensor | None], resized: Tensor) -> Tensor:  # noqa: ANN001
        inputs = [pairs(clip, resized) for clip in clips if clip is not None]
        scores = judge(torch.cat(inputs))
        real, fake, *noisy = zip(*(score.chunk(len(inputs)) for score in scores), strict=True)
        loss = relativistic(list(real), list(fake))
        if noisy:
            moved = [(a - b).square().mean() for a, b in zip(real, noisy[0], strict=True)]
            loss = loss + REGULARISER_WEIGHT * torch.stack(moved).mean()
        return loss
