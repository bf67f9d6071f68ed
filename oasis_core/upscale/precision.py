"""Choosing device and arithmetic: lower precision only where the device has it and it is close."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import choices
from ..families.restorer import Place, Restorer, Traits, probe_clip
from ..model.agreement import psnr_db

logger = logging.getLogger(__name__)

LEAST_PSNR_DB = 45.0
"""A lower precision must come at least this close to float32."""
PROCESSOR_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}
"""Flags of processors that multiply in bfloat16, and what to call them; others imitate it."""
FLAG_QUESTIONS = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
"""What `torch.cpu` is asked where the system lists no flags."""

DTYPES = {name: getattr(torch, name) for name in choices.DTYPES}
"""Arithmetic by the name that users give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The arithmetic that was chosen."""

    dtype: torch.dtype
    """What the model computes in."""
    reason: str = ""
    """Why, in words that follow "auto: "; empty if the user chose."""


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


def choose_dtype(restorer: Restorer, device: torch.device, dtype: str | torch.dtype) -> Arithmetic:
    """The arithmetic to use; "auto" is decided by what the device is, never by a clock.

    The same model on the same machine so gets the same pixels every time.

    Args:
        restorer: The model; prepared for the device already, unless its arithmetic is its own.
        device: Where it runs.
        dtype: "auto", a name of `DTYPES` or one of its values.

    Raises:
        ValueError: The dtype is not one of these, or not one that the model can compute in.
    """
    traits = restorer.traits
    if dtype != "auto":
        chosen = named_dtype(dtype)
        if dtype_name(chosen) not in traits.dtypes:
            raise ValueError(
                f"dtype must be one that {traits.name} can compute in "
                f"({', '.join(traits.dtypes)}), got {dtype_name(chosen)}; use auto"
            )
        return Arithmetic(dtype=chosen)
    if traits.arithmetic == "own":
        wanted = Arithmetic(dtype=preferred_dtype(device), reason="large model")
    else:
        wanted = arithmetic_of(device)
    if dtype_name(wanted.dtype) not in traits.dtypes:
        return Arithmetic(dtype=torch.float32, reason=f"{traits.name} is made for it")
    if traits.arithmetic == "own" or wanted.dtype == torch.float32:
        return wanted
    return _checked(restorer, device, wanted)


def arithmetic_of(device: torch.device) -> Arithmetic:
    """The arithmetic in which a device is fast, from what it is."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return arithmetic_of_cuda(capability, is_hip=torch.version.hip is not None)
    if device.type == "mps":
        return Arithmetic(dtype=torch.float16, reason="Apple GPU")
    if device.type == "cpu":
        return arithmetic_of_processor(processor_flags())
    return Arithmetic(dtype=torch.float32, reason=f"nothing known of {device.type}")


def arithmetic_of_cuda(capability: tuple[int, int], *, is_hip: bool) -> Arithmetic:
    """The arithmetic of a GPU by its compute capability.

    8.0 and above multiplies in bfloat16, which has float32's range; 7.0 and above in float16 only;
    older ones in neither, or many times slower. AMD's, through HIP, that torch supports have both.
    """
    name = "AMD GPU" if is_hip else f"compute capability {capability[0]}.{capability[1]}"
    if is_hip or capability >= (8, 0):
        return Arithmetic(dtype=torch.bfloat16, reason=name)
    if capability >= (7, 0):
        return Arithmetic(dtype=torch.float16, reason=name)
    return Arithmetic(dtype=torch.float32, reason=name)


def arithmetic_of_processor(flags: frozenset[str]) -> Arithmetic:
    """The arithmetic of a processor: bfloat16 where it has instructions for it."""
    for flag, name in PROCESSOR_FLAGS.items():
        if flag in flags:
            return Arithmetic(dtype=torch.bfloat16, reason=f"processor with bfloat16 in {name}")
    return Arithmetic(dtype=torch.float32, reason="processor without bfloat16")


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor can, of `PROCESSOR_FLAGS`; from the system, or else from torch."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        asked = {flag: getattr(torch.cpu, name, None) for flag, name in FLAG_QUESTIONS.items()}
        return frozenset(flag for flag, has in asked.items() if has is not None and has())
    listed = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(listed.split()) & frozenset(PROCESSOR_FLAGS)


def dtype_name(dtype: torch.dtype) -> str:
    """Such as "float32"."""
    return str(dtype).removeprefix("torch.")


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
    """The arithmetic of a large model, whose weights are held in it.

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
def _checked(restorer: Restorer, device: torch.device, wanted: Arithmetic) -> Arithmetic:
    """The wanted arithmetic, if a small clip comes out close to float32 in it; else float32."""
    clip, place = probe_clip(restorer.traits, device), Place(first_frame=0, top=0, left=0)
    name = dtype_name(wanted.dtype)
    try:
        exact = restorer.restore(clip, place)
        with arithmetic(restorer.traits, device, wanted.dtype):
            close = restorer.restore(clip.to(wanted.dtype), place).float()
    except RuntimeError as error:  # an operator without this dtype
        logger.info("dtype auto: float32, the model fails in %s: %s", name, error)
        return Arithmetic(dtype=torch.float32, reason=f"the model fails in {name}")
    before = clip if restorer.traits.reads == "resized" else torch.zeros((), device=device)
    agreement_db = psnr_db(before + exact, before + close)
    logger.info("dtype auto: %s is %.1f dB from float32", name, agreement_db)
    if agreement_db >= LEAST_PSNR_DB:
        return wanted
    reason = f"{name} agrees to {agreement_db:.0f} dB, {LEAST_PSNR_DB:.0f} needed"
    return Arithmetic(dtype=torch.float32, reason=reason)
