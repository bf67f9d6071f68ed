"""What a model costs, counted: the table of `oasis bench --plan`."""

from __future__ import annotations

from typing import Any

from ..config import ModelConfig
from ..model.cost import Counts, Grid, model_costs, padded_size, transformer_flops, uniform_counts
from ..model.routing import HeadRouting


def routing_counts(
    config: ModelConfig, routing: HeadRouting | None, asked: str | None
) -> tuple[Counts, str]:
    """Heads per pattern and layer, and what to call them.

    Args:
        config: The model.
        routing: Of its file; None for a preset.
        asked: "global", "thirds", or "G,I,W" heads in each layer; None for the file's routing, or
            thirds without one.

    Raises:
        ValueError: The words are none of these, or the heads do not add up.
    """
    heads = config.num_heads
    if asked is None and routing is not None:
        return [routing.counts(layer) for layer in range(config.num_layers)], "the file's routing"
    if asked in (None, "thirds"):
        third = heads // 3
        counts = (heads - 2 * third, third, third)
    elif asked == "global":
        counts = (heads, 0, 0)
    else:
        try:
            counts = tuple(int(part) for part in asked.split(","))
        except ValueError:
            counts = ()
        if len(counts) != 3:
            raise ValueError(
                f"routing must be global, thirds, or three numbers of heads like 4,4,4, got "
                f"{asked!r}"
            )
    return uniform_counts(config, counts), ",".join(map(str, counts))


def plan_table(
    config: ModelConfig,
    counts: Counts,
    *,
    size: tuple[int, int],
    num_frames: int,
    sample_bytes: int = 2,
    window: Grid | None = None,
) -> dict[str, Any]:
    """Operations and least traffic of one forward pass, by stage.

    Args:
        config: The model.
        counts: Heads per pattern, for each layer.
        size: (width, height) in pixels; padded to whole tokens.
        num_frames: Frames.
        sample_bytes: Of the arithmetic.
        window: Box (t, h, w) in tokens of the window heads; None for the model's own.

    Returns:
        JSON values: the stages with TFLOP, GB and share, totals, and the ratio to global attention.
    """
    height, width = padded_size(config, size[1], size[0])
    sizes = {"num_frames": num_frames, "height": height, "width": width}
    stages = model_costs(config, counts, **sizes, sample_bytes=sample_bytes, window=window)
    unrouted = model_costs(config, uniform_counts(config, (config.num_heads, 0, 0)), **sizes)
    total = sum(stage.flops for stage in stages)
    everything = sum(stage.flops for stage in unrouted)
    return {
        "model": config.name,
        "size": [width, height],
        "frames": num_frames,
        "decoder": config.decoder,
        "stages": [
            {
                "stage": stage.name,
                "tflop": stage.flops / 1e12,
                "least_gb": stage.num_bytes / 1e9,
                "share": stage.flops / total,
            }
            for stage in stages
        ],
        "transformer_tflop": transformer_flops(stages) / 1e12,
        "total_tflop": total / 1e12,
        "tflop_per_frame": total / 1e12 / num_frames,
        "transformer_ratio_to_global": transformer_flops(unrouted) / transformer_flops(stages),
        "total_ratio_to_global": everything / total,
    }


def table_lines(table: dict[str, Any], routing: str) -> list[str]:
    """The table for people."""
    width, height = table["size"]
    lines = [
        f"{table['model']}, {table['frames']} frames of {width}x{height}, heads {routing}, decoder "
        f"{table['decoder']}: {table['total_tflop']:.1f} TFLOP, {table['tflop_per_frame']:.2f} a "
        "frame (counted, not measured)"
    ]
    lines += [
        f"  {row['stage']:22} {row['tflop']:10.2f} TFLOP {row['share']:6.1%} "
        f"{row['least_gb']:9.1f} GB"
        for row in table["stages"]
    ]
    lines.append(
        f"  against all heads global: transformer {table['transformer_ratio_to_global']:.2f} times "
        f"fewer operations, everything {table['total_ratio_to_global']:.2f} times"
    )
    return lines
