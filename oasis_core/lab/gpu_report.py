"""Everything there is to measure on a GPU, in one run: `oasis bench --gpu-report OUT.json`.

Each part stands alone: one that fails is noted with its reason and the others go on, and the file
is written again after every part, so that whatever stops a run keeps what it measured.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from ..version import __version__
from . import gpu_parts
from .gpu_scale import FULL, ReportScale
from .gpu_targets import check_targets, target_lines

logger = logging.getLogger(__name__)


def gpu_report(
    out: Path,
    scale: ReportScale,
    *,
    device: str,
    dtype: str,
    num_runs: int,
    seedvr2: Path | None,
    report: Callable[[str], None],
    only: Collection[str] = (),
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
        only: Names of the parts to measure; none named: all.

    Returns:
        JSON values, those of the file.
    """
    bench = gpu_parts.PartContext.make(scale, device, dtype, num_runs)
    parts = {
        "stages": lambda: gpu_parts.stage_rows(bench),
        "public": lambda: gpu_parts.public_rows(bench),
        "attention": lambda: gpu_parts.attention_rows(bench),
        "quality": lambda: gpu_parts.quality(bench),
        "memory": lambda: gpu_parts.memory_rows(bench),
        "variants": lambda: gpu_parts.variants(bench),
        "seedvr2": lambda: gpu_parts.seedvr2(bench, seedvr2),
    }
    results: dict[str, Any] = {"machine": _machine(bench), "scale": _facts(scale), "errors": {}}
    for name, measure in parts.items():
        if only and name not in only:
            continue
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
