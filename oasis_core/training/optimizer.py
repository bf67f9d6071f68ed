"""Muon for the weight matrices inside the network, AdamW for everything else.

On this model and a CPU, Muon reached in 900 steps what AdamW alone needed several times as many for
(docs/training-log.md), so a run is worth far more.

Muon is written out here: that of torch takes the matrices one by one, in bfloat16, which on a CPU
without bfloat16 arithmetic took longer than the forward and backward pass together.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from .config import TrainingError

# First and last layers, and what is no matrix, are AdamW's, as Muon's author advises.
_ADAMW_LAYERS = (
    *("transformer.stem.conv.", "transformer.stem.conv_neighbors.", "decoder.conv."),
    *("transformer.head.", "first.", "last."),
)
_ADAMW_VECTORS = ("modulation", "context_key", "context_value")

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def is_inner_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a weight matrix between the first and the last layer."""
    return (
        parameter.ndim in (2, 4)
        and not name.startswith(_ADAMW_LAYERS)
        and not name.endswith(_ADAMW_VECTORS)
    )


def as_matrix(tensor: Tensor) -> Tensor:
    """A convolution weight as `out (h w in)`, a view of its channels-last memory; 2-D as it is."""
    return tensor.permute(0, 2, 3, 1).flatten(1) if tensor.ndim == 4 else tensor


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is replaced by the orthogonal one nearest to it, about.

    Matrices of the same shape are worked on together, in float32.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon (Nesterov momentum, coefficients,
    and the factor sqrt(max(1, rows / columns)) of the rate).
    """

    MOMENTUM = 0.95

    def __init__(self, groups: list[dict[str, object]]) -> None:
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in by_shape.items():
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                updates = orthogonalized(torch.stack([self._direction(x) for x in matrices]))
                torch._foreach_add_(matrices, list(updates.unbind()), alpha=-rate)

    def _direction(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - self.MOMENTUM)
        return matrix.grad.lerp(momentum, self.MOMENTUM)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices `n rows columns` with their singular values brought near 1, in [0.7, 1.2] or so.

    Source: Newton-Schulz iteration with the quintic of Jordan et al. 2024.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class MatrixOptimizer:
    """One optimiser step for all parameters, with a rate per kind.

    Args:
        model: Its convolution weights must lie channels-last in memory.
        matrix_rate: Muon's learning rate relative to AdamW's.
        weight_decay: AdamW's.

    Raises:
        TrainingError: A weight does not lie as it must.
    """

    def __init__(self, model: nn.Module, *, matrix_rate: float, weight_decay: float) -> None:
        self.parameters = {name: x for name, x in model.named_parameters() if x.requires_grad}
        self.matrices = {
            name: nn.Parameter(as_matrix(parameter.detach()))
            for name, parameter in self.parameters.items()
            if is_inner_matrix(name, parameter)
        }
        for name, matrix in self.matrices.items():
            if matrix.data_ptr() != self.parameters[name].data_ptr():
                raise TrainingError(f"{name} must lie channels-last in memory")
        rest = {name: x for name, x in self.parameters.items() if name not in self.matrices}
        self.muon = Muon(_groups(self.matrices, matrix_rate))
        self.adamw = torch.optim.AdamW(
            _groups(rest, 1.0), lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )

    def step(self, learning_rate: float, transformer_rate: float) -> None:
        """Update all parameters from their gradients and drop these.

        Args:
            learning_rate: AdamW's rate for the convolutions.
            transformer_rate: Factor of both rates for the transformer's parameters.
        """
        for name, matrix in self.matrices.items():
            gradient = self.parameters[name].grad
            matrix.grad = None if gradient is None else as_matrix(gradient)
        for optimizer in (self.muon, self.adamw):
            for group in optimizer.param_groups:
                factor = transformer_rate if group["is_transformer"] else 1.0
                group["lr"] = learning_rate * group["rate"] * factor
            optimizer.step()
        for parameter in (*self.parameters.values(), *self.matrices.values()):
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The moments, by parameter name and kind."""
        tensors = {}
        for name, parameter in self.parameters.items():
            optimizer, key = self._owner(name, parameter)
            for kind, value in optimizer.state.get(key, {}).items():
                tensors[f"{name}.{kind}"] = value.contiguous()
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` returned."""
        for name, parameter in self.parameters.items():
            optimizer, key = self._owner(name, parameter)
            prefix = name + "."
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            for kind, value in state.items():
                if value.shape == key.shape:
                    # The fused optimiser walks raw memory: moments must lie as their parameter.
                    state[kind] = torch.empty_like(key, requires_grad=False).copy_(value)
            if state:
                optimizer.state[key] = state

    def _owner(self, name: str, parameter: nn.Parameter) -> tuple[torch.optim.Optimizer, Tensor]:
        if name in self.matrices:
            return self.muon, self.matrices[name]
        return self.adamw, parameter


def _groups(parameters: dict[str, nn.Parameter], rate: float) -> list[dict[str, object]]:
    inside = {
        name: name.startswith("transformer.") and not name.startswith("transformer.stem.")
        for name in parameters
    }
    return [
        {
            "params": [parameters[name] for name in parameters if inside[name] is is_transformer],
            "rate": rate,
            "is_transformer": is_transformer,
        }
        for is_transformer in (True, False)
    ]
