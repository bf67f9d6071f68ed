"""`oasis calibrate`: measure attention heads, route them, draw the routing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import DEFAULT_MODEL, Report, find_clips, print_json

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.routing import HeadRouting


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("calibrate", help="measure attention heads and route them")
    parser.add_argument("clips", nargs="+", metavar="CLIP", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|PATH")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the routing here")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="write a picture of it here")
    parser.add_argument("--window-heads", type=int, help="heads of the network made window heads")
    parser.add_argument("--intra-heads", type=int, help="heads of the network made intra-frame")
    parser.add_argument("--frames", type=int, default=5, help="frames taken from each clip")
    parser.add_argument("--crop", type=int, default=256, metavar="PX", help="side of the crop")
    parser.add_argument("--queries", type=int, default=256, help="sampled queries per clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the routing as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    routing = calibrate_model(arguments, report=None if arguments.json else print)
    if arguments.json:
        print_json(routing.to_json())
    return 0


def _center_crops(paths: list[Path], num_frames: int, crop_px: int) -> list[Tensor]:
    """Centre crops `1 3 t h w` of the first frames, all of one size."""
    from ..evaluation.benchmark import read_clip

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
    from ..checkpoint import load_checkpoint, resolve_model
    from ..model.routing import HeadRouting, calibrate
    from ..model.routing_plot import plot_routing

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
