"""`oasis bench`: time the model on this machine."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ._shared import (
    Report,
    add_model_options,
    load_model,
    needing_checkout,
    parse_size,
    print_json,
)

SHORT_SIZE, SHORT_FRAMES = (640, 352), 4
SHORT_GRID = (3, 22, 40)
BOUNDARY_FRAMES, BOUNDARY_CROP_PX = 50, 80
"""Enough for borders of two kinds of segments; all of a clip would take many minutes."""
LEAST_SIDE_PX = 32


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    bench = commands.add_parser("bench", help="time the model on this machine")
    add_model_options(bench)
    bench.add_argument("--size", type=parse_size, default=(1280, 720), metavar="WxH")
    bench.add_argument("--frames", type=int, default=16)
    bench.add_argument("--runs", type=int, default=3)
    bench.add_argument("--threads", type=int, help="CPU threads")
    bench.add_argument("--only", choices=("speed", "routing", "attention", "boundaries", "stages"))
    bench.add_argument(
        "--plan", action="store_true", help="count operations and bytes instead of measuring"
    )
    bench.add_argument(
        "--routing",
        metavar="HEADS",
        help="for --plan and --random-weights: global, thirds, or G,I,W heads in each layer",
    )
    bench.add_argument(
        "--random-weights", action="store_true", help="time a preset without its weights"
    )
    bench.add_argument(
        "--streams", action="store_true", help="with --random-weights: head groups side by side"
    )
    bench.add_argument("--clip", type=Path, help="video for the boundary bench")
    bench.add_argument(
        "--gpu-report",
        type=Path,
        metavar="JSON",
        help="measure everything the large model is to reach on a GPU; a table beside it",
    )
    bench.add_argument(
        "--compare",
        type=Path,
        metavar="CHECKOUT",
        help="with --gpu-report or --random-weights: of ByteDance-Seed/SeedVR, to time SeedVR2-3B",
    )
    bench.add_argument("--short", action="store_true", help="a small, quick form of every bench")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    results = run_benches(arguments, report=None if arguments.json else print)
    if arguments.json:
        print_json(results)
    return 0


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

    _check(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.short:
        arguments.size, arguments.frames, arguments.runs = SHORT_SIZE, SHORT_FRAMES, 1
    report = report or _ignore
    if arguments.plan:
        return {"plan": _plan(arguments, report)}
    if arguments.gpu_report:
        return {"gpu_report": _gpu_report(arguments, report)}
    if arguments.random_weights or arguments.only == "stages":
        return {"stages": _stages(arguments, report)}
    upscaler = load_model(arguments)
    benches = {"speed": _speed, "routing": _routing, "attention": _attention}
    if arguments.clip:
        benches["boundaries"] = _boundaries
    if arguments.only == "boundaries" and not arguments.clip:
        raise ValueError("the boundary bench needs a video; give one with --clip")
    chosen = [arguments.only] if arguments.only else list(benches)
    return {name: benches[name](upscaler, arguments, report) for name in chosen}


def _check(arguments: argparse.Namespace) -> None:
    least = {"frames": 1, "runs": 1, "threads": 1}
    for name, bound in least.items():
        value = getattr(arguments, name)
        if value is not None and value < bound:
            raise ValueError(f"--{name} must be at least {bound}, got {value}")
    if min(arguments.size) < LEAST_SIDE_PX:
        width, height = arguments.size
        raise ValueError(
            f"--size must be at least {LEAST_SIDE_PX}x{LEAST_SIDE_PX}, got {width}x{height}"
        )
    if arguments.routing and not (arguments.plan or arguments.random_weights):
        raise ValueError("--routing is for --plan and --random-weights; a file has its own")
    if arguments.compare and not (arguments.gpu_report or arguments.random_weights):
        raise ValueError("--compare needs --gpu-report or --random-weights")
    if arguments.compare and arguments.short and not arguments.gpu_report:
        raise ValueError(
            "--compare with --random-weights times whole networks; leave --short out, or try it "
            "with --gpu-report, which shrinks both"
        )
    if arguments.streams and not arguments.random_weights:
        raise ValueError("--streams needs --random-weights; --gpu-report times both ways by itself")
    if arguments.transformer == "off" and arguments.only not in ("speed", "boundaries"):
        raise ValueError("--transformer off is for --only speed and --only boundaries")
    if arguments.decoder_tile is not None and (arguments.plan or arguments.gpu_report):
        raise ValueError("--decoder-tile is for measuring a model; leave it out of this")
    if arguments.gpu_report and not arguments.gpu_report.absolute().parent.is_dir():
        raise ValueError(
            f"the folder of --gpu-report must exist, got {arguments.gpu_report.parent}"
        )


def _gpu_report(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    with needing_checkout("--gpu-report"):
        from ..lab.gpu_report import gpu_report
        from ..lab.gpu_scale import FULL, SHORT

    return gpu_report(
        arguments.gpu_report,
        SHORT if arguments.short else FULL,
        device=arguments.device,
        dtype=arguments.dtype,
        num_runs=arguments.runs,
        seedvr2=arguments.compare,
        report=report,
    )


def _compare(arguments: argparse.Namespace, ours: dict[str, Any], report: Report) -> dict[str, Any]:
    """SeedVR2-3B at the same size, next to a stages bench."""
    with needing_checkout("--compare"):
        from ..lab.seedvr2 import bench_beside

    theirs = bench_beside(arguments.compare, ours, num_runs=arguments.runs)
    parts = ", ".join(f"{name} {value:.3f} s" for name, value in theirs["stages"].items())
    report(
        f"SeedVR2-3B, random weights, attention by {theirs['attention']}: "
        f"{theirs['seconds']:.3f} s ({parts}), {theirs['times_ours']:.2f} times ours"
    )
    return theirs


def _plan(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    from ..bench.plan_table import plan_table, routing_counts, table_lines
    from ..bench.stages import read_model_facts

    config, routing = read_model_facts(arguments.model)
    if arguments.decoder:
        config = config.with_decoder(arguments.decoder)
    counts, words = routing_counts(config, routing, arguments.routing)
    window = routing.window if routing is not None and arguments.routing is None else None
    table = plan_table(
        config, counts, size=arguments.size, num_frames=arguments.frames, window=window
    )
    for line in table_lines(table, words):
        report(line)
    return table | {"routing": words}


def _stages(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    from ..bench.plan_table import routing_counts
    from ..bench.stages import apply_counts, bench_stages, random_model, stage_lines

    if arguments.random_weights:
        model, _, dtype = random_model(
            arguments.model, arguments.device, arguments.dtype, arguments.decoder
        )
        counts, words = routing_counts(model.config, None, arguments.routing)
        apply_counts(model, counts)
        if arguments.decoder_tile is not None:
            model.tile_decoder(arguments.decoder_tile)
        if arguments.compile:
            from ..model.compiled import compile_model

            compile_model(model)
        if arguments.streams:
            with needing_checkout("--streams"):
                from ..lab.streams import overlap_groups

            overlap_groups(model)
    else:
        upscaler = load_model(arguments)
        model, dtype = upscaler.model, upscaler.dtype
        counts = [block.attention.counts for block in model.transformer.blocks]
        words = "the file's routing"
    result = bench_stages(
        model,
        counts,
        size=arguments.size,
        num_frames=arguments.frames,
        num_runs=arguments.runs,
        dtype=dtype,
    )
    for line in stage_lines(result):
        report(line)
    if arguments.compare:
        result["seedvr2"] = _compare(arguments, result, report)
    return result | {"routing": words}


def _ignore(line: str) -> None:
    del line


def _speed(upscaler: Any, arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    from ..bench.speed import bench_speed

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
    from ..bench.speed import bench_routing

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
    from ..bench.attention import bench_attention

    grid = SHORT_GRID if arguments.short else (9, 45, 80)
    results = bench_attention(
        grid=grid, device=upscaler.device, dtype=upscaler.dtype, num_repeats=arguments.runs
    )
    for row in results:
        report(
            f"attention, one head of 128 over {'x'.join(map(str, grid))}: {row['pattern']} "
            f"({row['backend']}) {1000 * row['seconds']:.0f} ms, "
            f"{row['share_of_dense_rate']:.0%} of global attention's operations per second"
        )
    return results


def _boundaries(upscaler: Any, arguments: argparse.Namespace, report: Report) -> list[Any]:
    from ..bench.boundaries import measure_boundaries
    from ..evaluation.benchmark import read_clip
    from ..geometry import middle

    clip = read_clip(arguments.clip, num_frames=BOUNDARY_FRAMES, multiple=1)
    rows, columns = (middle(side, min(side, BOUNDARY_CROP_PX)) for side in clip.shape[2:])
    clip = clip[..., rows, columns]
    report(f"boundaries, the middle {clip.shape[3]}x{clip.shape[2]} px of {len(clip)} frames:")
    results = measure_boundaries(upscaler, clip.transpose(0, 1)[None].contiguous())
    for row in results:
        report(
            f"boundaries, halo {row.halo_frames}, {row.variant}: ratio {row.boundary_ratio:.3f}, "
            f"short against long segments {row.agreement_db:.1f} dB, {row.extra_work:.0%} extra"
        )
    return [dataclasses.asdict(row) for row in results]
