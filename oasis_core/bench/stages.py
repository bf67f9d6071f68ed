"""Where the time of a latent model goes, stage by stage, and how near the device is to its limits.

The limits are measured in the same process: a large matrix product and a large copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config import PRESETS, ModelConfig
from ..geometry import next_valid_num_frames
from ..model.cost import PROJECTOR_STAGE, VISUAL_STAGE, Counts, model_costs, padded_size
from ..model.denoiser import OasisModel, inference_autocast_off
from ..model.routing import HeadRouting
from ..model.timing import fastest
from ..model.weight_precision import hold_weights, to_channels_last
from ..upscale.memory import peak_cuda_bytes, peak_rss_bytes
from ..upscale.precision import choose_device, named_dtype, preferred_dtype

MATMUL_SIDE = {"cuda": 8192, "cpu": 768}
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}
CEILING_RUNS = 5


def random_model(
    name: str, device: str, dtype: str, decoder: str | None, seed: int = 0
) -> tuple[OasisModel, torch.device, torch.dtype]:
    """A preset with random weights, ready on a device: for speed only, its pictures are noise.

    Args:
        name: Of a preset.
        device: As for `oasis_core.load`.
        dtype: Likewise.
        decoder: "wan", "tiny" or None for the preset's own.
        seed: Of the weights.

    Raises:
        ValueError: There is no such preset, or no such device.
    """
    if name not in PRESETS:
        raise ValueError(f"random weights are for presets ({', '.join(PRESETS)}), got {name!r}")
    return random_model_of(PRESETS[name], device, dtype, decoder, seed)


def random_model_of(
    config: ModelConfig, device: str, dtype: str, decoder: str | None = None, seed: int = 0
) -> tuple[OasisModel, torch.device, torch.dtype]:
    """As `random_model`, of any configuration."""
    chosen = choose_device(device)
    with torch.device("meta"):
        model = OasisModel(config).eval().requires_grad_(False)
    if decoder is not None:
        model.choose_decoder(decoder)
    arithmetic = torch.float32
    if config.is_latent:
        arithmetic = preferred_dtype(chosen) if dtype == "auto" else named_dtype(dtype)
        hold_weights(model, arithmetic)
    model = model.to_empty(device=chosen)
    generator = torch.Generator(device=chosen).manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            bound = 0.1 if tensor.ndim < 2 else (3 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-bound, bound, generator=generator)
    if chosen.type == "cuda":
        to_channels_last(model)
    return model, chosen, arithmetic


def apply_counts(model: OasisModel, counts: Counts) -> None:
    """Route the heads of a random-weight model; which head is which does not matter there."""
    for block, row in zip(model.transformer.blocks, counts, strict=True):
        block.attention.counts = tuple(row)


@torch.inference_mode()
def bench_stages(
    model: OasisModel,
    counts: Counts,
    *,
    size: tuple[int, int],
    num_frames: int,
    num_runs: int,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Time each stage of one forward pass over random frames.

    Args:
        model: A latent model with a decoder, on its device, weights held in `dtype`.
        counts: Heads per pattern that are applied, for each layer.
        size: (width, height) in pixels; padded to whole tokens.
        num_frames: Frames; padded to 4k+1.
        num_runs: Measured runs of each stage after one that warms up; the fastest counts.
        dtype: Of the arithmetic.

    Returns:
        JSON values.

    Raises:
        ValueError: The model has no latent to stop at.
    """
    config = model.config
    if not config.is_latent:
        raise ValueError(f"the stages bench needs a latent model, got {config.name}")
    device = next(model.parameters()).device
    num_frames = next_valid_num_frames(num_frames, config.token_stride[0])
    height, width = padded_size(config, size[1], size[0])
    generator = torch.Generator(device=device).manual_seed(0)
    shape = (1, 3, num_frames, height, width)
    video = torch.rand(shape, generator=generator, device=device).to(dtype)
    with inference_autocast_off(device):
        seconds = _time_stages(model, video, device, num_runs)
    costs = model_costs(
        config, counts, num_frames=num_frames, height=height, width=width,
        sample_bytes=dtype.itemsize, window=model.transformer.blocks[0].attention.window,
    )  # fmt: skip
    limits = measure_limits(device, dtype)
    total = sum(seconds.values())
    groups = _group_costs(costs)
    return {
        "model": config.name,
        "device": _device_name(device),
        "device_type": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "size": [width, height],
        "frames": num_frames,
        "decoder": config.decoder,
        **limits,
        "stages": {
            name: _stage_row(value, total, groups[name], limits) for name, value in seconds.items()
        },
        "seconds": total,
        "fps": num_frames / total,
        "peak_bytes": peak_cuda_bytes(device) or peak_rss_bytes(),
    }


def _time_stages(
    model: OasisModel, video: Tensor, device: torch.device, num_runs: int
) -> dict[str, float]:
    seconds: dict[str, float] = {}
    source, context, guide = video, None, None
    if model.config.stem == "noise":
        source = model.encode(video)
        seconds[PROJECTOR_STAGE], guide = fastest(lambda: model.guide(video), device, num_runs)
    elif model.config.stem == "latent":
        seconds["encoder"], source = fastest(lambda: model.encode(video), device, num_runs)
    if model.visual is not None:
        seconds[VISUAL_STAGE], context = fastest(lambda: model.context(video), device, num_runs)
    seconds["transformer"], latent = fastest(
        lambda: model.predict_latent(source, context, guide), device, num_runs
    )
    # Random weights may predict anything; what is decoded should look like a latent.
    latent = latent / latent.float().std().clamp(min=1e-6).to(latent.dtype)
    seconds["decoder"], _ = fastest(
        lambda: [None for _ in model.decode(latent, video)], device, num_runs
    )
    return seconds


def measure_limits(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """The most operations and bytes per second that this device was seen to do just now."""
    side = MATMUL_SIDE.get(device.type, MATMUL_SIDE["cpu"])
    a = torch.ones(side, side, device=device, dtype=dtype)
    matmul_s, _ = fastest(lambda: a @ a, device, CEILING_RUNS)
    block = torch.ones(COPY_BYTES.get(device.type, COPY_BYTES["cpu"]) // 4, device=device)
    target = torch.empty_like(block)
    copy_s, _ = fastest(lambda: target.copy_(block), device, CEILING_RUNS)
    return {
        "measured_tflop_per_s": 2 * side**3 / matmul_s / 1e12,
        "measured_gb_per_s": 2 * block.numel() * 4 / copy_s / 1e9,
    }


def _group_costs(costs: list[Any]) -> dict[str, tuple[int, int]]:
    groups = dict.fromkeys(
        ("encoder", VISUAL_STAGE, PROJECTOR_STAGE, "transformer", "decoder"), (0, 0)
    )
    for cost in costs:
        name = cost.name if cost.name in groups else "transformer"
        flops, num_bytes = groups[name]
        groups[name] = (flops + cost.flops, num_bytes + cost.num_bytes)
    return groups


def _stage_row(
    seconds: float, total: float, cost: tuple[int, int], limits: dict[str, float]
) -> dict[str, float]:
    flops, num_bytes = cost
    bound_s = max(
        flops / (limits["measured_tflop_per_s"] * 1e12),
        num_bytes / (limits["measured_gb_per_s"] * 1e9),
    )
    return {
        "seconds": seconds,
        "share": seconds / total,
        "tflop": flops / 1e12,
        "tflop_per_s": flops / seconds / 1e12,
        "share_of_roofline": bound_s / seconds,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def stage_lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    width, height = result["size"]
    lines = [
        f"{result['model']}, random or own weights, {result['frames']} frames of {width}x{height}, "
        f"{result['dtype']} on {result['device']}: {result['seconds']:.3f} s, {result['fps']:.2f} "
        f"frames/s, peak {result['peak_bytes'] / 2**30:.2f} GiB"
    ]
    lines += [
        f"  {name:12} {row['seconds']:9.3f} s {row['share']:6.1%} {row['tflop']:9.3f} TFLOP "
        f"{row['tflop_per_s']:8.3f} TFLOP/s, {row['share_of_roofline']:.0%} of the roofline"
        for name, row in result["stages"].items()
    ]
    lines.append(
        f"  measured limits: {result['measured_tflop_per_s']:.2f} TFLOP/s, "
        f"{result['measured_gb_per_s']:.1f} GB/s"
    )
    return lines


def read_model_facts(model: str) -> tuple[ModelConfig, HeadRouting | None]:
    """Configuration and routing of a preset or of a model file, without its weights."""
    from ..checkpoint import BUNDLED, read_header, resolve_model

    if model in PRESETS and model not in BUNDLED:
        return PRESETS[model], None
    config, routing, _ = read_header(resolve_model(model))
    return config, routing
