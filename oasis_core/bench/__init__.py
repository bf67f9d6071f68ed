"""Measurements of speed: what `oasis bench` prints."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

Report = Callable[[str], None]

SHORT_SIZE, SHORT_FRAMES = (640, 352), 4
SHORT_GRID = (3, 22, 40)


def run_benches(arguments: argparse.Namespace, report: Report | None = None) -> dict[str, Any]:
    """Run the benches that the shell's arguments ask for.

    Args:
        arguments: Of `oasis bench`.
        report: Receives one line per result as it is measured.

    Returns:
        Results by bench, as JSON values.

    Raises:
        ValueError: A bench lacks its input.
    """
    import torch

    from .. import load

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.short:
        arguments.size, arguments.frames, arguments.runs = SHORT_SIZE, SHORT_FRAMES, 1
    upscaler = load(arguments.model, arguments.device, arguments.dtype)
    benches = {"speed": _speed, "routing": _routing, "attention": _attention}
    if arguments.clip:
        benches["boundaries"] = _boundaries
    if arguments.only == "boundaries" and not arguments.clip:
        raise ValueError("the boundary bench needs a video; give one with --clip")
    chosen = [arguments.only] if arguments.only else list(benches)
    return {name: benches[name](upscaler, arguments, report or _ignore) for name in chosen}


def _ignore(line: str) -> None:
    del line


def _speed(upscaler: Any, arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    from .speed import bench_speed

    result = bench_speed(
        upscaler, size=arguments.size, num_frames=arguments.frames, num_runs=arguments.runs
    )
    report(
        f"speed, {result['dtype']}, {result['threads']} threads: {result['model']} "
        f"{result['model_s_per_frame']:.3f} s/frame, SRVGGNetCompact "
        f"{result['yardstick_s_per_frame']:.3f} s/frame, "
        f"{result['speedup_over_yardstick']:.2f} times as fast"
    )
    return result


def _routing(upscaler: Any, arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    from .speed import bench_routing

    result = bench_routing(
        upscaler, size=arguments.size, num_frames=arguments.frames, num_runs=arguments.runs
    )
    report(
        f"routing, {result['dtype']}: routed {result['routed_s_per_frame']:.3f} s/frame, "
        f"all-global {result['global_s_per_frame']:.3f} s/frame, "
        f"{result['speedup_over_global']:.1f} times"
    )
    return result


def _attention(upscaler: Any, arguments: argparse.Namespace, report: Report) -> list[Any]:
    from .attention import bench_attention

    grid = SHORT_GRID if arguments.short else (9, 45, 80)
    results = bench_attention(
        grid=grid, device=upscaler.device, dtype=upscaler.dtype, num_repeats=arguments.runs
    )
    for row in results:
        report(
            f"attention, one head of 128 over {'x'.join(map(str, grid))}: {row['pattern']} "
            f"({row['backend']}) {1000 * row['seconds']:.0f} ms"
        )
    return results


def _boundaries(upscaler: Any, arguments: argparse.Namespace, report: Report) -> list[Any]:
    from ..evaluation.benchmark import read_clip
    from .boundaries import measure_boundaries

    clip = read_clip(arguments.clip, num_frames=10_000, multiple=1)
    results = measure_boundaries(upscaler, clip.transpose(0, 1)[None].contiguous())
    for row in results:
        report(
            f"boundaries, halo {row.halo_frames}, {row.variant}: ratio {row.boundary_ratio:.3f}, "
            f"short against long segments {row.agreement_db:.1f} dB, {row.extra_work:.0%} extra"
        )
    return [dataclasses.asdict(row) for row in results]
