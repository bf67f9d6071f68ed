"""Ablations: the same recipe with one thing changed, over several seeds, into one table.

Routing: all heads global, all heads window, routed as the recipe says, or no transformer at all.
Curriculum: temporally consistent degradations only, inconsistent only, or first the one and then
the other. Yardstick: a plain single-frame conv net of equal cost. Every variant trains for the time
of the recipe.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..training.config import YARDSTICK, StageConfig, TrainingConfig, TrainingError

COST_FRAMES, COST_PX = 4, 256
COST_RUNS = 5
STEP_WARMUP, STEP_RUNS = 2, 5
RESULT_NAME = "result.json"
TABLE_NAME = "table.md"
REAL_WORLD = ("consistent", "inconsistent")
EVALUATED = ("light", "consistent", "inconsistent")


def _with_stages(
    config: TrainingConfig, change: Callable[[int, StageConfig], StageConfig]
) -> TrainingConfig:
    stages = tuple(change(index, stage) for index, stage in enumerate(config.stages))
    return dataclasses.replace(config, stages=stages)


def _all_global(config: TrainingConfig) -> TrainingConfig:
    return _with_stages(
        config, lambda _, stage: dataclasses.replace(stage, calibrate_window_heads=-1)
    )


def _all_window(config: TrainingConfig) -> TrainingConfig:
    network = routed_reference(config)
    num_heads = sum(block.attention.num_heads for block in network.transformer.blocks)

    def change(_: int, stage: StageConfig) -> StageConfig:
        if stage.calibrate_window_heads < 0:
            return stage
        return dataclasses.replace(stage, calibrate_window_heads=num_heads, calibrate_intra_heads=0)

    return _with_stages(config, change)


def _without_transformer(config: TrainingConfig) -> TrainingConfig:
    return _with_stages(
        config,
        lambda _, stage: dataclasses.replace(
            stage, skip_transformer=True, calibrate_window_heads=-1
        ),
    )


def _real_world_as(stage: StageConfig, preset: str) -> StageConfig:
    """The same shares, all real-world ones given to one preset."""
    shares = {key: share for key, share in stage.degradations.items() if key not in REAL_WORLD}
    moved = sum(stage.degradations.get(key, 0.0) for key in REAL_WORLD)
    return dataclasses.replace(stage, degradations={**shares, preset: moved} if moved else shares)


def _consistent_only(config: TrainingConfig) -> TrainingConfig:
    return _with_stages(config, lambda _, stage: _real_world_as(stage, "consistent"))


def _inconsistent_only(config: TrainingConfig) -> TrainingConfig:
    return _with_stages(config, lambda _, stage: _real_world_as(stage, "inconsistent"))


def _consistent_then_inconsistent(config: TrainingConfig) -> TrainingConfig:
    """The last stage is inconsistent, all before it are consistent.

    Raises:
        TrainingError: There is one stage only.
    """
    last = len(config.stages) - 1
    if not last:
        raise TrainingError("the curriculum ablation needs at least two stages, got one")
    return _with_stages(
        config,
        lambda index, stage: _real_world_as(
            stage, "inconsistent" if index == last else "consistent"
        ),
    )


def _yardstick(config: TrainingConfig) -> TrainingConfig:
    return dataclasses.replace(config, model=YARDSTICK, initial_model="")


VARIANTS: dict[str, Callable[[TrainingConfig], TrainingConfig]] = {
    "recipe": lambda config: config,
    "all global": _all_global,
    "all window": _all_window,
    "no transformer": _without_transformer,
    "consistent only": _consistent_only,
    "inconsistent only": _inconsistent_only,
    "consistent, then inconsistent": _consistent_then_inconsistent,
    "single-frame conv net": _yardstick,
}
FASTER = ("no transformer", "single-frame conv net")
"""Variants with cheaper steps, which get as many more as fit the recipe's time."""
GROUPS = {
    "routing": ("recipe", "all global", "all window", "no transformer"),
    "curriculum": (
        *("consistent only", "inconsistent only"),
        "consistent, then inconsistent",
    ),
    "yardstick": ("recipe", "single-frame conv net"),
}


def routed_reference(config: TrainingConfig) -> nn.Module:
    """The untrained network of a recipe with as many routed heads as its last stage has."""
    from ..checkpoint import load_checkpoint, resolve_model
    from ..training.network import architecture, build_network

    initial = load_checkpoint(resolve_model(config.initial_model)) if config.initial_model else None
    network = build_network(config, architecture(config, initial))
    asked = [stage for stage in config.stages if stage.calibrate_window_heads >= 0]
    if asked:
        left = {
            "window": asked[-1].calibrate_window_heads,
            "intra": asked[-1].calibrate_intra_heads,
        }
        for block in network.transformer.blocks:
            num_heads = block.attention.num_heads
            window = min(left["window"], num_heads)
            intra = min(left["intra"], num_heads - window)
            block.attention.counts = (num_heads - window - intra, intra, window)
            left = {"window": left["window"] - window, "intra": left["intra"] - intra}
    return network.eval()


@torch.inference_mode()
def seconds_per_frame(network: nn.Module, *, autocast_bf16: bool = True) -> float:
    """Fastest time of a network per 256x256 frame, on this process's threads.

    Args:
        network: Takes `b 3 t h w`.
        autocast_bf16: In bfloat16, as a run with this setting trains; else in float32.
    """
    video = torch.rand(1, 3, COST_FRAMES, COST_PX, COST_PX)
    times = []
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast_bf16):
        for _ in range(COST_RUNS):
            start = time.perf_counter()
            network(video)
            times.append(time.perf_counter() - start)
    return min(times) / COST_FRAMES


def equal_cost_convs(recipe: TrainingConfig) -> int:
    """How many convolutions give a yardstick the time per frame of a recipe's model."""
    from ..training.yardstick import YardstickConfig, build_yardstick

    def cost(network: nn.Module) -> float:
        return seconds_per_frame(network, autocast_bf16=recipe.autocast_bf16)

    target, features = cost(routed_reference(recipe)), recipe.yardstick_features
    few, many = 4, 16
    costs = [
        cost(build_yardstick(YardstickConfig(num_convs=n, features=features))) for n in (few, many)
    ]
    per_conv = (costs[1] - costs[0]) / (many - few)
    return max(1, round(few + (target - costs[0]) / max(per_conv, 1e-9)))


def seconds_per_step(config: TrainingConfig) -> list[float]:
    """Median time of an optimiser step of each stage, on random clips."""
    from ..training.loop import Trainer

    trainer, seconds = Trainer(config), []
    generator = torch.Generator().manual_seed(0)
    for index, stage in enumerate(config.stages):
        trainer.stage_index = index
        shape = (stage.batch_size, 3, stage.frames_seen, stage.crop_px, stage.crop_px)
        truth = torch.rand(shape, generator=generator)
        times = []
        for run in range(STEP_WARMUP + STEP_RUNS):
            start = time.perf_counter()
            trainer.train_step(truth * 0.9, truth)
            if run >= STEP_WARMUP:
                times.append(time.perf_counter() - start)
        seconds.append(statistics.median(times))
    return seconds


def same_time(config: TrainingConfig, reference: TrainingConfig) -> TrainingConfig:
    """The configuration with each stage's steps set to take as long as the reference's."""
    mine, others = seconds_per_step(config), seconds_per_step(reference)
    return _with_stages(
        config,
        lambda index, stage: dataclasses.replace(
            stage, num_steps=max(1, round(stage.num_steps * others[index] / mine[index]))
        ),
    )


def plan_variant(name: str, recipe: TrainingConfig, seed: int, folder: Path) -> TrainingConfig:
    """The configuration of one run; costs are measured once and kept, so a run can go on.

    Args:
        name: A key of `VARIANTS`.
        recipe: What is varied.
        seed: Of this run.
        folder: Of the whole ablation.

    Raises:
        TrainingError: The recipe cannot be varied in this way.
    """
    if name not in VARIANTS:
        raise TrainingError(f"variant must be one of {', '.join(VARIANTS)}, got {name!r}")
    if recipe.model == YARDSTICK:
        raise TrainingError("an ablation varies an oasis model, the configured one is a yardstick")
    config = VARIANTS[name](recipe)
    slug = name.replace(", ", "-").replace(" ", "-")
    if name in FASTER:
        kept = folder / f"{slug}.json"
        if not kept.exists():
            convs = config.yardstick_convs
            if config.model == YARDSTICK:
                convs = equal_cost_convs(recipe)
            sized = dataclasses.replace(config, yardstick_convs=convs)
            steps = [stage.num_steps for stage in same_time(sized, recipe).stages]
            kept.write_text(json.dumps({"convs": convs, "steps": steps}), encoding="utf-8")
        sizes = json.loads(kept.read_text(encoding="utf-8"))
        config = dataclasses.replace(config, yardstick_convs=sizes["convs"])
        config = _with_stages(
            config,
            lambda index, stage: dataclasses.replace(stage, num_steps=sizes["steps"][index]),
        )
    output = folder / slug / f"seed_{seed}"
    return dataclasses.replace(config, seed=seed, output_dir=str(output))


def run_variant(
    name: str,
    config: TrainingConfig,
    clips: Sequence[Path],
    *,
    num_frames: int,
    middle_px: int = 0,
) -> dict[str, Any]:
    """Train one run, or take its result if it is finished and measured so; returns the result.

    Args:
        name: The variant.
        config: From `plan_variant`.
        clips: Sharp clips to evaluate on.
        num_frames: Of each clip.
        middle_px: Side of the middle square of each clip to measure; 0: whole frames.
    """
    from ..training.loop import train

    kept = Path(config.output_dir) / RESULT_NAME
    names = [clip.name for clip in clips]
    measured_on = {"clips": names, "num_frames": num_frames, "middle_px": middle_px}
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if before.get("measured_on") == measured_on:
        return before
    start = time.monotonic()
    path = train(config)
    result = {
        "variant": name,
        "seed": config.seed,
        "steps": sum(stage.num_steps for stage in config.stages),
        # Of one call: a run that was killed and went on took longer in all.
        "train_s": before.get("train_s", time.monotonic() - start),
        "measured_on": measured_on,
        **measure(path, config, clips, num_frames=num_frames, middle_px=middle_px),
    }
    kept.write_text(json.dumps(result, indent=2, allow_nan=False), encoding="utf-8")
    return result


def measure(
    path: Path,
    config: TrainingConfig,
    clips: Sequence[Path],
    *,
    num_frames: int,
    middle_px: int = 0,
) -> dict[str, Any]:
    """Cost and quality of finished weights: means over clips for every degradation."""
    from ..checkpoint import load_checkpoint
    from ..evaluation.benchmark import evaluate, summarise
    from ..evaluation.suite import MetricSuite
    from ..training.yardstick import load_yardstick
    from ..upscale import VideoUpscaler

    is_yardstick = config.model == YARDSTICK
    network = load_yardstick(path) if is_yardstick else load_checkpoint(path).model
    if not is_yardstick:
        network.skips_transformer = all(stage.skip_transformer for stage in config.stages)
    cost = seconds_per_frame(network, autocast_bf16=config.autocast_bf16)
    names = ("psnr_db", "ssim", "temporal_difference")
    results = evaluate(
        VideoUpscaler(network),
        clips,
        degradations=EVALUATED,
        num_frames=num_frames,
        middle_px=middle_px,
        suite=MetricSuite(names),
    )
    return {"ms_per_frame": 1000 * cost, "summary": summarise(results)}


def write_table(folder: Path, results: Sequence[dict[str, Any]]) -> Path:
    """A Markdown table of all finished runs: mean and spread over the seeds of each variant."""
    lines = [
        "Gain in PSNR over the bicubic resize in dB: mean of the clips, then mean over the seeds",
        "+- standard deviation over the seeds; in brackets the worst clip of any seed. Temporal",
        "error: how far each step from frame to frame is from the original's, rms in 8-bit steps.",
        "",
        "| variant | seeds | steps | minutes | ms/frame | "
        + " | ".join(f"{preset} | temporal error" for preset in EVALUATED)
        + " |",
        "| --- " * (5 + 2 * len(EVALUATED)) + "|",
    ]
    for name in dict.fromkeys(result["variant"] for result in results):
        runs = [result for result in results if result["variant"] == name]
        cells = [name, str(len(runs)), str(runs[0]["steps"])]
        cells.append(f"{statistics.mean(run['train_s'] for run in runs) / 60:.1f}")
        cells.append(f"{min(run['ms_per_frame'] for run in runs):.1f}")
        for preset in EVALUATED:
            rows = [run["summary"][preset] for run in runs]
            cells.append(_gain_cell(rows))
            errors = [row["temporal_difference"] for row in rows if "temporal_difference" in row]
            cells.append(f"{statistics.mean(errors):.2f}" if errors else "-")
        lines.append("| " + " | ".join(cells) + " |")
    path = folder / TABLE_NAME
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _gain_cell(rows: Sequence[dict[str, float]]) -> str:
    gains = [row["mean_gain_db"] for row in rows]
    spread = f" +- {statistics.stdev(gains):.3f}" if len(gains) > 1 else ""
    worst = min(row["least_gain_db"] for row in rows)
    return f"{statistics.mean(gains):+.3f}{spread} ({worst:+.2f})"


def run_ablation(
    recipe: TrainingConfig,
    folder: Path,
    *,
    variants: Sequence[str],
    seeds: Sequence[int],
    clips: Sequence[Path],
    num_frames: int = 7,
    middle_px: int = 0,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Train and measure every variant with every seed; the same call goes on where it stopped.

    Seeds come first, so that an ablation that is cut short has whole rounds to compare.

    Returns:
        The table, rewritten after each run.

    Raises:
        ValueError: The recipe cannot be varied so, or data or clips are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in seeds:
        for name in variants:
            config = plan_variant(name, recipe, seed, folder)
            result = run_variant(name, config, clips, num_frames=num_frames, middle_px=middle_px)
            results.append(result)
            table = write_table(folder, results)
            if report:
                gains = ", ".join(
                    f"{preset} {result['summary'][preset]['mean_gain_db']:+.3f} dB"
                    for preset in EVALUATED
                )
                report(f"{name}, seed {seed}: {gains}")
    return table
