"""Optional torch.compile: one graph per shape and precision, eager as soon as anything fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .transformer import RoutedSelfAttention, TransformerBlock
from .wan_vae_layers import ChannelNorm

logger = logging.getLogger(__name__)

OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)


class CompiledOrEager:
    """Calls a compiled function, or for ever after its first failure the plain one.

    Args:
        eager: The function.
        compiled: The same, compiled.
        state: Shared by all functions of a model: the first failure is logged and switches all off.
    """

    def __init__(
        self, eager: Callable[..., Any], compiled: Callable[..., Any], state: dict[str, bool]
    ) -> None:
        self._eager, self._compiled, self._state = eager, compiled, state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if not self._state["failed"]:
            try:
                return self._compiled(*args, **kwargs)
            except OutOfMemoryError:
                raise  # not the compiler's fault: the caller tries a smaller tile
            except Exception as error:
                self._state["failed"] = True
                reason = str(error).strip().splitlines()[:1]
                logger.warning(
                    "torch.compile failed, going on without it (%s: %s)",
                    type(error).__name__,
                    reason,
                )
        return self._eager(*args, **kwargs)


def compile_model(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile a model's transformer blocks and the norms of its VAE, in place.

    Nothing is compiled before the first call. Attention is left out: its kernels are fused already,
    and FlexAttention compiles itself.

    Args:
        model: An `OasisModel`.
        backend: As for `torch.compile`.
    """
    state = {"failed": False}
    # Compiled as functions of the module, so that all blocks share one graph.
    block = torch.compile(TransformerBlock.forward, backend=backend, dynamic=False)
    norm = torch.compile(ChannelNorm.forward, backend=backend, dynamic=False)
    for part in model.modules():
        if isinstance(part, RoutedSelfAttention):
            part.attend = torch.compiler.disable(part.attend)
        compiled = {TransformerBlock: block, ChannelNorm: norm}.get(type(part))
        if compiled is not None:
            part.forward = CompiledOrEager(part.forward, _bound(compiled, part), state)


def is_compiled(model: nn.Module) -> bool:
    """Whether parts of a model are compiled."""
    return any(isinstance(part.forward, CompiledOrEager) for part in model.modules())


def _bound(function: Callable[..., Any], part: nn.Module) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(part, *args, **kwargs)

    return call
