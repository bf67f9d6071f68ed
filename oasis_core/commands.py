"""What the shell's smaller commands do: describe, calibrate, train, evaluate."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpoint import (
    BUNDLED,
    file_sha256,
    load_checkpoint,
    read_header,
    resolve_model,
    update_info,
)
from .model.denoiser import OasisModel
from .training.data import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from .model.routing import HeadRouting

Report = Callable[[str], None]
REPORT_EVERY_STEPS = 25


def describe(subject: str) -> dict[str, Any]:
    """Facts about a model (bundled name or .safetensors file) or a video file.

    Raises:
        ValueError: It is neither.
    """
    if subject in BUNDLED or subject.endswith(".safetensors"):
        return _describe_model(resolve_model(subject))
    from .video import probe

    info = probe(Path(subject))
    names = (
        "container codec width height rotation_deg sample_aspect_ratio frame_rate time_base "
        "num_frames duration_s pixel_format bit_depth has_alpha is_interlaced audio_streams "
        "subtitle_streams other_streams"
    )
    values = {name: getattr(info, name) for name in names.split()}
    plain = (bool, int, float, type(None))
    facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if isinstance(value, (*plain, tuple))
    }
    facts |= {name: str(value) for name, value in values.items() if name not in facts}
    tags = ("primaries", "transfer", "matrix", "range", "chroma_location")
    return {"file": subject, **facts, "color": {tag: getattr(info.color, tag) for tag in tags}}


def _describe_model(path: Path) -> dict[str, Any]:
    config, routing, info = read_header(path)
    with torch.device("meta"):
        model = OasisModel(config)
    total = [sum(routing.counts(i)[kind] for i in range(config.num_layers)) for kind in range(3)]
    return {
        "model": config.name,
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "heads": dict(zip(("global", "intra", "window"), total, strict=True)),
        "window": list(routing.window),
        "licence": info.get("licence", "not stated"),
        "source": info.get("source", "not stated"),
        "config": config.to_json(),
        "metrics": info.get("metrics", {}),
    }


def find_clips(sources: Iterable[Path]) -> list[Path]:
    """Files as given, folders replaced by the videos in them, sorted.

    Raises:
        ValueError: A source does not exist, or nothing was found.
    """
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            paths += sorted(p for p in source.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        elif source.is_file():
            paths.append(source)
        else:
            raise ValueError(f"{source} does not exist")
    if not paths:
        raise ValueError(f"no video found; looked for {', '.join(sorted(VIDEO_SUFFIXES))}")
    return paths


def _center_crops(paths: list[Path], num_frames: int, crop_px: int) -> list[Tensor]:
    """Centre crops `1 3 t h w` of the first frames, all of one size."""
    from .evaluation.benchmark import read_clip

    clips = []
    for path in paths:
        clip = read_clip(path, num_frames, multiple=1)
        if len(clip) < num_frames or min(clip.shape[-2:]) < crop_px:
            raise ValueError(
                f"{path} must have {num_frames} frames of {crop_px}x{crop_px} px or more, got "
                f"{len(clip)} of {clip.shape[3]}x{clip.shape[2]}; lower --frames or --crop"
            )
        top, left = ((n - crop_px) // 2 for n in clip.shape[-2:])
        crop = clip[:, :, top : top + crop_px, left : left + crop_px]
        clips.append(crop.transpose(0, 1)[None].contiguous())
    return clips


def calibrate_model(arguments: argparse.Namespace, report: Report | None) -> HeadRouting:
    """Measure a model's heads on clips, assign them, write JSON and picture if asked."""
    from .model.routing import HeadRouting, calibrate
    from .model.routing_plot import plot_routing

    checkpoint = load_checkpoint(resolve_model(arguments.model))
    model, layers = checkpoint.model, range(checkpoint.routing.num_layers)
    # Distances are meant to be measured on unrestricted heads.
    orders = [checkpoint.routing.permutation(layer) for layer in layers]
    config = model.config
    model.transformer.apply_routing(
        HeadRouting.all_global(config.num_layers, config.num_heads, window=config.window_size)
    )
    total = [sum(checkpoint.routing.counts(layer)[kind] for layer in layers) for kind in range(3)]
    asked = {"intra": arguments.intra_heads, "window": arguments.window_heads}
    own = {"intra": total[1], "window": total[2]}
    routing = calibrate(
        model,
        _center_crops(find_clips(arguments.clips), arguments.frames, arguments.crop),
        seed=arguments.seed,
        num_queries=arguments.queries,
        quotas={key: own[key] if value is None else value for key, value in asked.items()},
        head_order=orders,
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(routing.to_json(), indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot_routing(routing, arguments.plot)
    if report:
        for layer in layers:
            names = " ".join(pattern.name.lower() for pattern in routing.patterns[layer])
            report(f"layer {layer}: {names}")
        share = routing.agreement(checkpoint.routing)
        report(f"agreement with the model's own routing: {share:.0%}")
    return routing


def train_model(config_path: Path, report: Report) -> Path:
    """Train from a TOML file, reporting loss and speed now and then; returns the weights."""
    from .training.config import load_training_config
    from .training.loop import Trainer, train

    start, losses = time.monotonic(), []

    def on_step(trainer: Trainer, loss: float) -> None:
        nonlocal start
        losses.append(loss)
        if len(losses) < REPORT_EVERY_STEPS:
            return
        rate = len(losses) / (time.monotonic() - start)
        left = trainer.stage.num_steps - trainer.step
        report(
            f"stage {trainer.stage.name} step {trainer.step}/{trainer.stage.num_steps} "
            f"loss {sum(losses) / len(losses):.5f} {rate:.2f} it/s {left / rate / 60:.0f} min left"
        )
        losses.clear()
        start = time.monotonic()

    return train(load_training_config(config_path), on_step)


def evaluate_model(arguments: argparse.Namespace, report: Report | None) -> dict[str, Any]:
    """Degrade, restore and measure clips; returns clips and means as JSON values."""
    from . import load
    from .evaluation.benchmark import ClipResult, evaluate, summarise

    def on_result(result: ClipResult) -> None:
        if report:
            report(
                f"{result.degradation:12} {result.name:28} bicubic {result.bicubic['psnr_db']:.2f} "
                f"dB, model {result.gain_db:+.2f} dB, SSIM "
                f"{result.model['ssim'] - result.bicubic['ssim']:+.4f}"
            )

    results = evaluate(
        load(arguments.model, arguments.device, arguments.dtype),
        find_clips(arguments.sources),
        degradations=arguments.degradation or ("light", "consistent"),
        scale=arguments.scale,
        num_frames=arguments.frames,
        has_motion=not arguments.no_motion,
        on_result=on_result,
    )
    summary = summarise(results)
    if report:
        for name, row in summary.items():
            report(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if arguments.record:
        settings = {"scale": arguments.scale, "frames": arguments.frames}
        update_info(resolve_model(arguments.model), metrics={**summary, "settings": settings})
    return {"summary": summary, "clips": [result.to_json() for result in results]}
