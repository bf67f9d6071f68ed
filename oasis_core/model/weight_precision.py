"""Weights held in a lower precision than some arithmetic: cast once, raised again where needed.

Matrices and convolutions are cast; norms, modulation and stored contexts are small and stay as
they are, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

CAST = (nn.Linear, nn.Conv2d, nn.Conv3d)


def hold_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the matrices and convolutions of a module, in place.

    Parts with a true `stays_float32` are left as they are.
    """
    for part in _cast_parts(module):
        part.to(dtype)


def held_names(module: nn.Module) -> list[str]:
    """Names of the tensors that `hold_weights` casts."""
    parts = {id(part) for part in _cast_parts(module)}
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if id(part) in parts
        for name, _ in part.named_parameters(recurse=False)
    ]


def weight_dtype(module: nn.Module) -> torch.dtype | None:
    """The precision in which a module's matrices are held; None if it has none."""
    return next((part.weight.dtype for part in _cast_parts(module)), None)


def _cast_parts(module: nn.Module) -> Iterator[nn.Module]:
    if getattr(module, "stays_float32", False):
        return
    if isinstance(module, CAST):
        yield module
    for child in module.children():
        yield from _cast_parts(child)


@contextmanager
def raised(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Hold a module's matrices in `dtype` inside the block, and as before after it.

    Raising bfloat16 or float16 to float32 and lowering it again is exact, so a network can repeat
    in float32 what overflowed, at the memory of one raised block.
    """
    held = weight_dtype(module)
    if held in (None, dtype):
        yield
        return
    hold_weights(module, dtype)
    try:
        yield
    finally:
        hold_weights(module, held)


def run_in_dtype(module: nn.Module, x: Tensor, *args: object) -> Tensor:
    """`module(x, *args)` in the precision of `x`, whatever the weights are held in.

    Under autocast, and while training, the weights stay as they are.
    """
    is_autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
    if torch.is_grad_enabled() or is_autocast:
        return module(x, *args)
    with raised(module, x.dtype):
        return module(x, *args)


def to_channels_last(module: nn.Module) -> None:
    """Lay out convolution weights with the channels last, in place, as GPU kernels want them.

    What they compute is then laid out so as well, without further copies.
    """
    formats = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    for part in module.modules():
        for kind, memory_format in formats.items():
            if isinstance(part, kind):
                part.to(memory_format=memory_format)
