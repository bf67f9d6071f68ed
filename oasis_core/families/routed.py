"""What families with a routed transformer share: routings, and doing without the transformer."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .module import ModuleRestorer

if TYPE_CHECKING:
    from ..model.denoiser import OasisModel
    from ..model.rerouting import Rerouter
    from ..model.routing import HeadRouting
    from .restorer import Traits


def describe(path: Path) -> dict[str, Any]:
    """Facts about an oasis checkpoint, as JSON values, without reading its weights.

    Raises:
        CheckpointError: Its head is damaged.
    """
    from ..checkpoint import DEFAULT_DETAIL, has_vivid, read_header
    from ..digests import file_sha256
    from ..model.denoiser import OasisModel

    config, routing, info = read_header(path)
    detail = f"0 to 1, {DEFAULT_DETAIL:g} unless told otherwise" if has_vivid(path) else "none"
    with torch.device("meta"):
        model = OasisModel(config)
    total = [sum(routing.counts(i)[kind] for i in range(config.num_layers)) for kind in range(3)]
    return {
        "model": config.name,
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "detail": detail,
        "heads": dict(zip(("global", "intra", "window"), total, strict=True)),
        "window": list(routing.window),
        "licence": info.get("licence", "not stated"),
        "source": info.get("source", "not stated"),
        "config": config.to_json(),
        "metrics": info.get("metrics", {}),
    }


class RoutedRestorer(ModuleRestorer):
    """An `OasisModel`: restorers made of one another share its network and route it as they run.

    Args:
        network: A loaded model.
        traits: What it is like.
        identity: Hash of its file and what options add to it; None computes one.
        facts: What its file says of it.
    """

    def __init__(
        self,
        network: OasisModel,
        traits: Traits,
        identity: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        from ..model.rerouting import Rerouter

        super().__init__(network, traits, identity, facts)
        self.rerouter: Rerouter = Rerouter(network)
        self.routing: HeadRouting = self.rerouter.own
        """The routing that this restorer runs with, in the file's head order."""
        self.skips_transformer: bool = network.skips_transformer
        """Whether the convolutions work alone."""

    @property
    def identity(self) -> str:
        """Differs for whatever gives other pixels."""
        identity = super().identity
        if self.skips_transformer or self.routing == self.rerouter.own:
            return identity
        routing = json.dumps(self.routing.to_json()["patterns"])
        return hashlib.sha256(f"{identity} {routing} {self.routing.window}".encode()).hexdigest()

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the network to a device, its heads routed as this restorer has them."""
        super().prepare(device, dtype)
        self.rerouter.apply(self.routing)
        self.network.skips_transformer = self.skips_transformer

    def routed(self, routing: HeadRouting | None) -> RoutedRestorer:
        """The same model with another routing, or with its own for None; shares the network.

        Raises:
            ValueError: The routing is of another network.
        """
        own = self.rerouter.own
        routing = own if routing is None else routing
        routing.check_fits(own.num_layers, own.num_heads)
        other = copy.copy(self)
        other.routing = routing
        return other

    def without_transformer(self) -> RoutedRestorer:
        """The same model, its convolutions alone; shares the network.

        Raises:
            ValueError: It has none that could do without.
        """
        self.network.check_works_without_transformer()
        other = copy.copy(self)
        other.skips_transformer = True
        if not self.skips_transformer:
            other._identity = f"{super().identity}-no-transformer"
        return other
