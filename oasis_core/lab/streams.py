"""The head groups of routed attention side by side, each on a CUDA stream of its own.

A group of few heads, or of window heads, may be too small to fill a GPU; beside another it costs
less. Off by default: `oasis bench --gpu-report` measures whether it pays on a GPU.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from ..model.attention import head_groups, routed_attention
from ..model.transformer import RoutedSelfAttention


def overlap_groups(model: nn.Module, *, is_on: bool = True) -> None:
    """Let a model's head groups run side by side, or one after the other again."""
    for part in model.modules():
        if isinstance(part, RoutedSelfAttention):
            part.attend = overlapped_attention if is_on else routed_attention


def overlapped_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any
) -> torch.Tensor:
    """`routed_attention`, its groups on streams of their own where the device has streams.

    Args:
        q: Queries `b k n d`.
        k: Keys, like `q`.
        v: Values, like `q`.
        options: See `routed_attention`.

    Returns:
        `b k n d`.
    """
    if q.device.type != "cuda" or torch.is_grad_enabled():
        return routed_attention(q, k, v, **options)
    groups = head_groups(q, k, v, **options)
    current = torch.cuda.current_stream(q.device)
    outputs: list[torch.Tensor | None] = [None] * len(groups)
    # The first group, usually the largest, stays where it is, and is begun last.
    for index, group in reversed(list(enumerate(groups))):
        if index == 0:
            outputs[0] = group()
            continue
        stream = _stream(q.device, index)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            outputs[index] = group()
    for index, output in enumerate(outputs[1:], start=1):
        current.wait_stream(_stream(q.device, index))
        # Its memory belongs to the other stream, which must not reuse it before this one has read.
        output.record_stream(current)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


@functools.lru_cache(maxsize=16)
def _stream(device: torch.device, index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
