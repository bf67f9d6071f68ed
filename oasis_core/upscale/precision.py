"""Choosing the device and the arithmetic: bfloat16 only where it is faster and close enough."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
import weakref

import torch
from torch import Tensor, nn

from ..families.restorer import Place, Restorer, Traits, probe_clip
from ..model.agreement import psnr_db
from ..model.timing import synchronize

logger = logging.getLogger(__name__)

LEAST_PSNR_DB = 45.0
"""A lower precision must come at least this close to float32."""
PROBE_RUNS = 4
HOPELESS_RATIO = 4.0
"""Not measured any further: a processor that imitates bfloat16 takes ten times as long."""

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# One probe per model and device in a process; entries vanish with their model.
_chosen: weakref.WeakKeyDictionary[nn.Module, dict[torch.device, torch.dtype]] = (
    weakref.WeakKeyDictionary()
)


def choose_device(device: str | torch.device) -> torch.device:
    """The device to run on; "auto" is CUDA, then MPS, then the CPU.

    Raises:
        ValueError: The device is unknown or not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # also what holds no values, like meta, is refused
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise ValueError(
            f"device must be auto or one this torch can use, got {str(device)!r}; try cpu"
        ) from error
    return chosen


def choose_dtype(restorer: Restorer, device: torch.device, dtype: str | torch.dtype) -> torch.dtype:
    """The arithmetic to use; "auto" measures one tile in float32 and in a lower precision.

    Args:
        restorer: The model; prepared for the device already, unless its arithmetic is its own.
        device: Where it runs.
        dtype: "auto", a name of `DTYPES` or one of its values.

    Raises:
        ValueError: The dtype is not one of these.
    """
    if dtype == "auto" and restorer.traits.arithmetic == "own":
        return preferred_dtype(device)
    if dtype == "auto":
        known = _chosen.setdefault(restorer.network, {})
        if device not in known:
            known[device] = _probe(restorer, device)
        return known[device]
    return named_dtype(dtype)


def named_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A dtype from its name or itself.

    Raises:
        ValueError: It is none that the engine computes in.
    """
    dtype = DTYPES.get(dtype, dtype)
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {dtype!r}")
    return dtype


def preferred_dtype(device: torch.device) -> torch.dtype:
    """The arithmetic of a large model, which no probe is spent on.

    bfloat16 where the device computes in it; float16 on other accelerators, where the engine
    repeats in float32 what overflows; float32 on a CPU, where the rest is seldom faster.
    """
    if device.type == "cuda":
        has_bfloat16 = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def arithmetic(
    traits: Traits, device: torch.device, dtype: torch.dtype
) -> contextlib.AbstractContextManager:
    """Context in which a restorer computes in `dtype`; one of its own arithmetic needs none."""
    if dtype == torch.float32 or traits.arithmetic == "own":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


@torch.inference_mode()
def _probe(restorer: Restorer, device: torch.device) -> torch.dtype:
    is_old_cuda = device.type == "cuda" and not torch.cuda.is_bf16_supported()
    candidate = torch.float16 if is_old_cuda else torch.bfloat16
    clip = probe_clip(restorer.traits, device)
    clips = {torch.float32: clip, candidate: clip.to(candidate)}
    best_s = dict.fromkeys(clips, math.inf)
    residuals: dict[torch.dtype, Tensor] = {}
    try:
        # In turn, so that other programs on the machine disturb both alike; the first warms up.
        for run, dtype in itertools.product(range(PROBE_RUNS + 1), clips):
            seconds, residuals[dtype] = _time_model(restorer, clips[dtype], dtype)
            if run:
                best_s[dtype] = min(best_s[dtype], seconds)
            elif dtype == torch.float32:
                hopeless_s = HOPELESS_RATIO * seconds
            elif device.type == "cpu" and seconds > hopeless_s:
                logger.info("dtype auto: float32, %s took %.1f s in the probe", candidate, seconds)
                return torch.float32
    except RuntimeError as error:  # an operator without this dtype, or no memory for the probe
        logger.info("keeping float32, the probe in %s failed: %s", candidate, error)
        return torch.float32
    slow, fast = best_s.values()
    reference, result = residuals.values()
    if restorer.traits.reads == "source":
        agreement_db = psnr_db(reference, result)
    else:
        agreement_db = psnr_db(clip + reference, clip + result)
    chosen = candidate if fast < slow and agreement_db >= LEAST_PSNR_DB else torch.float32
    logger.info(
        "dtype auto: float32 %.1f ms, %s %.1f ms at %.1f dB from it: %s",
        slow * 1e3,
        str(candidate).removeprefix("torch."),
        fast * 1e3,
        agreement_db,
        str(chosen).removeprefix("torch."),
    )
    return chosen


def _time_model(restorer: Restorer, clip: Tensor, dtype: torch.dtype) -> tuple[float, Tensor]:
    """Seconds of one run, and the residual."""
    start = time.perf_counter()
    with arithmetic(restorer.traits, clip.device, dtype):
        residual = restorer.restore(clip, Place(first_frame=0, top=0, left=0))
    synchronize(clip.device)
    return time.perf_counter() - start, residual.float()
