"""Any module of the plain contract as a restorer: a name, a stride, a clip to its residual."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from .restorer import Place, Traits


class ModuleRestorer:
    """A module that is called on the resized clip and returns what is to be added to it.

    Args:
        network: Module with `config.name`, `config.token_stride` and `network(video) -> residual`,
            both `b 3 t h w`; its weights stay float32.
        traits: What it is like; None reads the configuration.
        identity: What tells its results apart, best the hash of its file; None computes one from
            configuration and weights when it is first asked for.
        facts: What its file says of it.
    """

    def __init__(
        self,
        network: nn.Module,
        traits: Traits | None = None,
        identity: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.facts = facts or {}
        config = network.config if traits is None else None
        self.traits = traits or Traits(
            name=config.name, family="module", stride=tuple(config.token_stride)
        )
        self._identity = identity

    @property
    def identity(self) -> str:
        """As given, or SHA-256 of configuration, weights and buffers."""
        if self._identity is None:
            self._identity = weights_sha256(self.network, repr(self.network.config))
        return self._identity

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the network to a device; its weights keep their precision."""
        del dtype
        self.network.to(device).eval().requires_grad_(False)

    def restore(self, clip: Tensor, place: Place) -> Tensor:
        """The residual of a clip, `1 3 t h w`."""
        del place
        return self.network(clip)

    def memory_bytes(
        self, num_frames: int, height: int, width: int, sample_bytes: int
    ) -> int | None:
        """Unknown."""
        del num_frames, height, width, sample_bytes


def weights_sha256(network: nn.Module, facts: str) -> str:
    """Hexadecimal SHA-256 over a module's weights and buffers.

    Args:
        network: The module.
        facts: What else its results depend on, such as its configuration; hashed before them.
    """
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")
    return digest.hexdigest()
