"""Measuring the working memory of a restorer that does not know it."""

from __future__ import annotations

import torch

from ..families.restorer import Place, Restorer, probe_clip
from ..model.live_bytes import LiveTensorBytes
from .precision import arithmetic


@torch.inference_mode()
def measure_model_bytes(restorer: Restorer, device: torch.device, dtype: torch.dtype) -> float:
    """Working memory in bytes per pixel and frame that a restorer reads, from one real run.

    CUDA counts allocations itself. Elsewhere the live tensors are counted operator by operator:
    unlike the resident size of the process this is exact and the same every time, so the same
    machine makes the same plan.

    Args:
        restorer: Prepared for the device.
        device: Where it runs.
        dtype: Its arithmetic.
    """
    clip = probe_clip(restorer.traits, device).to(dtype)
    place, samples = Place(first_frame=0, top=0, left=0), clip.numel() / 3
    with arithmetic(restorer.traits, device, dtype):
        if device.type == "cuda":
            restorer.restore(clip, place)  # workspaces and kernels are allocated once
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            restorer.restore(clip, place)
            return (torch.cuda.max_memory_allocated(device) - before) / samples
        with LiveTensorBytes() as live:
            restorer.restore(clip, place)
    return live.peak / samples
