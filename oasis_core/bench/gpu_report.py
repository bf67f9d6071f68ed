"""Everything there is to measure on a GPU, in one run: `oasis bench --gpu-report OUT.json`.

Each part stands alone: one that fails is noted with its reason and the others go on, and the file
is written again after every part, so that whatever stops a run keeps what it measured.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import OASIS_1_3B, ModelConfig
from ..model.window import Grid
from ..version import __version__
from . import gpu_parts
from .gpu_targets import check_targets, target_lines

logger = logging.getLogger(__name__)

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportScale:
    """How large the measurements are."""

    config: ModelConfig
    """The model."""
    sizes: dict[str, tuple[int, int]]
    """Name -> (width, height) of what is restored; in the order of the names in `FULL`."""
    num_frames: int
    """Of each clip."""
    grids: tuple[Grid, ...]
    """Token grids of the attention bench."""
    budgets: tuple[int, ...]
    """Bytes of the GPUs whose memory is tried."""
    memory_sizes: tuple[tuple[int, int], tuple[int, int]]
    """(width, height) of source and result in these trials."""
    compiler: str
    """Backend of torch.compile."""


FULL = ReportScale(
    config=OASIS_1_3B,
    sizes={"720p": (1280, 720), "1080p": (1920, 1088), "4K": (3840, 2160)},
    num_frames=33,
    grids=((9, 45, 80), (9, 68, 120), (9, 135, 240)),
    budgets=tuple(n * GIB for n in (6, 8, 12, 16, 24)),
    memory_sizes=((1920, 1080), (3840, 2160)),
    compiler="inductor",
)
SHORT = ReportScale(
    config=dataclasses.replace(
        OASIS_1_3B,
        name="oasis-1.3b-shrunken",
        width=48,
        num_layers=2,
        num_heads=3,
        ffn_width=64,
        vae_width=4,
        tiny_width=4,
    ),
    sizes={"720p": (64, 48), "1080p": (96, 64), "4K": (128, 96)},
    num_frames=5,
    grids=((3, 8, 10),),
    budgets=(GIB,),
    memory_sizes=((24, 16), (48, 32)),
    compiler="eager",
)
"""To try the report itself; its figures mean nothing."""


def gpu_report(
    out: Path,
    scale: ReportScale,
    *,
    device: str,
    dtype: str,
    num_runs: int,
    seedvr2: Path | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Measure all parts, write `out` and a table beside it, and compare with the targets.

    Args:
        out: JSON file; the table gets its name with the ending `.md`.
        scale: How large.
        device: As for `oasis_core.load`.
        dtype: Likewise.
        num_runs: Measured runs of each; the fastest counts.
        seedvr2: Checkout of SeedVR to compare with; None leaves that target open.
        report: Receives one line as each part is done.

    Returns:
        JSON values, those of the file.
    """
    bench = gpu_parts.PartContext.make(scale, device, dtype, num_runs)
    parts = {
        "stages": lambda: gpu_parts.stage_rows(bench),
        "attention": lambda: gpu_parts.attention_rows(bench),
        "quality": lambda: gpu_parts.quality(bench),
        "memory": lambda: gpu_parts.memory_rows(bench),
        "variants": lambda: gpu_parts.variants(bench),
        "seedvr2": lambda: gpu_parts.seedvr2(bench, seedvr2),
    }
    results: dict[str, Any] = {"machine": _machine(bench), "scale": _facts(scale), "errors": {}}
    for name, measure in parts.items():
        try:
            results[name] = measure()
        except Exception as error:
            # A measurement may fail in any way, and the others must not be lost to it.
            results["errors"][name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
            logger.warning("part %s failed: %s", name, results["errors"][name])
        bench.tidy()
        results["targets"] = check_targets(results)
        _write(out, results)
        report(f"{name}: {'failed' if name in results['errors'] else 'measured'}")
    for line in target_lines(results["targets"]):
        report(line)
    return results


def _machine(bench: gpu_parts.PartContext) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "device": str(bench.device),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "oasis": __version__,
        "threads": torch.get_num_threads(),
    }
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        facts |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda or torch.version.hip,
        }
    return facts


def _facts(scale: ReportScale) -> dict[str, Any]:
    sizes = {name: list(size) for name, size in scale.sizes.items()}
    return {
        "model": scale.config.name,
        "sizes": sizes,
        "frames": scale.num_frames,
        "is_full": scale is FULL,
    }


def _write(out: Path, results: dict[str, Any]) -> None:
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    table = f"{results['scale']['model']}; {machine}\n\n"
    table += "| target | wanted | got | |\n| --- | --- | --- | --- |"
    for row in results["targets"]:
        got = row["reason"] if row["got"] is None else f"{row['got']:.4g} {row['unit']}"
        table += f"\n| {row['target']} | {row['wanted']} | {got} | {row['verdict']} |"
    out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
