"""What a large model would do on a GPU of some size, counted without having one."""

from __future__ import annotations

import torch

from ..config import ModelConfig
from ..families.wan import traits_of
from ..families.wan_memory import MemoryModel, weight_bytes
from ..upscale.plan import Plan, make_plan
from ..upscale.workload import SAMPLE_BYTES, Workload

USUAL_HOST_BYTES = 12 << 30
"""Free main memory of a usual machine with a GPU."""
CUDA_CONTEXT_BYTES = 500 << 20
"""What the driver and its kernels take of a GPU before any tensor."""


def plan_for_gpu(
    config: ModelConfig,
    gpu_bytes: int,
    source_size: tuple[int, int],
    size: tuple[int, int],
    *,
    dtype: str = "bfloat16",
    free_host: int = USUAL_HOST_BYTES,
    decoder_tile: int | None = None,
) -> Plan:
    """What a latent model would do on a GPU of some size, counted without having one.

    Args:
        config: The model.
        gpu_bytes: All of the GPU's memory; the weights are taken off it.
        source_size: (width, height) of the source in pixels.
        size: (width, height) of the result in pixels.
        dtype: Of the arithmetic.
        free_host: Free main memory beside it.
        decoder_tile: Side in pixels of the tiles that Wan's decoder works in, if it does.

    Raises:
        ValueError: Not even the smallest plan fits.
    """
    workload = counted_workload(config, source_size, size, dtype=dtype, decoder_tile=decoder_tile)
    free = max(0, gpu_bytes - CUDA_CONTEXT_BYTES - weight_bytes(config, SAMPLE_BYTES[dtype]))
    return make_plan(workload, torch.device("cuda"), free=free, free_host=free_host)


def counted_workload(
    config: ModelConfig,
    source_size: tuple[int, int],
    size: tuple[int, int],
    *,
    dtype: str,
    decoder_tile: int | None = None,
) -> Workload:
    """What a plan has to fit for a model of which there is only a configuration."""
    return Workload(
        source_width=source_size[0],
        source_height=source_size[1],
        width=size[0],
        height=size[1],
        bytes_per_channel=1,
        traits=traits_of(config),
        model_bytes=0.0,
        dtype=dtype,
        memory_model=MemoryModel(config, SAMPLE_BYTES[dtype], decoder_tile),
    )
