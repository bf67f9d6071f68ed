"""`oasis calibrate`: measure attention heads and route them; how sure that is, what it saves."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import BUNDLED, DTYPES
from ..extras import need
from ..remote import as_source
from ..words import counted
from ._shared import (
    Report,
    add_detail,
    find_clips,
    parse_output,
    print_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ..config import ModelConfig
    from ..families.restorer import Restorer
    from ..model.head_distances import HeadDistances
    from ..model.routing import HeadRouting
    from ..remote import RemoteFile

COST_SIZES = ((1280, 720), (1920, 1080), (3840, 2160))
COST_FRAMES = 33
LEAST_CROP_PX = 32
USUAL_FRAMES = 5


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("calibrate", help="measure attention heads and route them")
    parser.add_argument("clips", nargs="+", metavar="CLIP", type=as_source)
    parser.add_argument("--model", default=BUNDLED[0], metavar="NAME|PATH")
    add_detail(parser)
    parser.add_argument("--device", default="cpu", help="where to measure (default cpu)")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="arithmetic of a large model"
    )
    parser.add_argument("--out", type=parse_output, metavar="JSON", help="write the routing here")
    parser.add_argument(
        "--plot", type=parse_output, metavar="PNG", help="write a picture of it here"
    )
    parser.add_argument(
        "--write", type=parse_output, metavar="MODEL", help="write the model with this routing here"
    )
    parser.add_argument("--window-heads", type=int, help="heads of the network made window heads")
    parser.add_argument("--intra-heads", type=int, help="heads of the network made intra-frame")
    parser.add_argument(
        "--max-window", type=float, metavar="D", help="threshold instead: 0 local to 1 uniform"
    )
    parser.add_argument("--max-intra", type=float, metavar="D", help="the same for intra-frame")
    parser.add_argument(
        "--keep-db",
        type=float,
        metavar="DB",
        help="instead: as many local heads as keep the pixels of every clip this near (PSNR) to "
        "those of all heads global; measured on the clips",
    )
    parser.add_argument(
        "--frames",
        type=int,
        help="frames taken from each clip (default 5; of a model that works in chunks, two chunks)",
    )
    parser.add_argument("--crop", type=int, default=256, metavar="PX", help="side of the crop")
    parser.add_argument("--queries", type=int, default=256, help="sampled queries per clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if arguments.plot:
        need("PIL", extra="plot", purpose="--plot")
    results = calibrate_model(arguments, report=None if arguments.json else print)
    if arguments.json:
        print_json(results)
    return 0


def _center_crops(
    paths: Sequence[Path | RemoteFile], num_frames: int, crop_px: int, stride: tuple[int, int, int]
) -> list[Tensor]:
    """Centre crops `1 3 t h w` of the first frames, all of one size, in whole tokens of `stride`.

    A crop or number of frames that a model does not take is rounded down to the next that it does.
    """
    from ..evaluation.benchmark import read_clip
    from ..geometry import middle

    token = math.lcm(*stride[1:])
    if crop_px < token:
        raise ValueError(f"--crop must be at least one token of {token} px, got {crop_px}")
    num_frames, crop_px = num_frames - (num_frames - 1) % stride[0], crop_px // token * token
    clips = []
    for path in paths:
        clip = read_clip(path, num_frames, multiple=1)
        if len(clip) < num_frames or min(clip.shape[-2:]) < crop_px:
            raise ValueError(
                f"{path} must have {num_frames} frames of {crop_px}x{crop_px} px or more, got "
                f"{len(clip)} of {clip.shape[3]}x{clip.shape[2]}; lower --frames or --crop"
            )
        rows, columns = (middle(length, crop_px) for length in clip.shape[-2:])
        crop = clip[:, :, rows, columns]
        clips.append(crop.transpose(0, 1)[None].contiguous())
    return clips


def calibrate_model(arguments: argparse.Namespace, report: Report | None) -> dict[str, Any]:
    """Measure a model's heads on clips, assign them, write what is asked.

    Returns:
        JSON values: the routing, how stable it is, and what it costs.
    """
    from ..checkpoint import resolve_model, write_rerouted
    from ..families.catalog import open_restorer
    from ..families.files import LoadOptions
    from ..families.restorer import routing_of
    from ..model.routing_bound import route_within
    from ..model.routing_picture import draw_routing
    from ..model.routing_stability import mean_distances, measure_stability

    _check(arguments)
    path = resolve_model(arguments.model)
    restorer = open_restorer(path, LoadOptions(detail=arguments.detail))
    own, config = routing_of(restorer).rerouter.own, restorer.network.config
    if arguments.frames is None:
        traits = restorer.traits
        several = traits.lead_frames + traits.segment_multiple
        arguments.frames = several if traits.lead_frames else USUAL_FRAMES
    parts, clips = _measure(restorer, config, arguments)
    mean, bound = mean_distances(parts), None
    if arguments.keep_db is not None:
        bound = route_within(
            restorer.network,
            clips,
            mean,
            arguments.keep_db,
            on_tried=None if report is None else _say_tried(report),
        )
        limit = bound.routing.rule.get("max_window", 0.0)
        arguments.max_intra = arguments.max_window = limit

    def route(distances: HeadDistances) -> HeadRouting:
        return _route(distances, own, arguments)

    routing = route(mean) if bound is None else bound.routing
    stability = measure_stability(parts, route, seed=arguments.seed) if len(parts) > 1 else None
    costs = _costs(config, routing)
    if arguments.out:
        arguments.out.write_text(json.dumps(routing.to_json(), indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        draw_routing(routing).save(arguments.plot, format="PNG")
    if arguments.write:
        write_rerouted(path, arguments.write, routing)
    results = {
        "routing": routing.to_json(),
        "agreement_with_own": routing.agreement(own),
        "stability": None if stability is None else stability.to_json(),
        "costs": costs,
    }
    if bound is not None:
        results["kept_db"], results["tried"] = bound.kept_db, bound.num_tried
    if report:
        for line in _lines(routing, results):
            report(line)
    return results


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before the clips are read."""
    for name, least in (("frames", 1), ("crop", LEAST_CROP_PX), ("queries", 1), ("keep_db", 1)):
        value, name = getattr(arguments, name), name.replace("_", "-")
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    for name in ("out", "plot", "write"):
        path = getattr(arguments, name)
        if path and not path.parent.is_dir():
            raise ValueError(f"the folder of --{name} must exist, got {path.parent}")
        if path and path.is_dir():
            raise ValueError(f"--{name} must be a file to write, got the folder {path}")
    others = ("window_heads", "intra_heads", "max_window", "max_intra")
    if arguments.keep_db is not None and any(getattr(arguments, x) is not None for x in others):
        raise ValueError("--keep-db chooses the heads itself; leave numbers and thresholds out")
    if arguments.write and arguments.write.suffix != ".safetensors":
        raise ValueError(f"--write must end in .safetensors, got {arguments.write}")
    if arguments.write and arguments.write.exists():
        raise ValueError(f"{arguments.write} exists; choose another name for --write")


def _say_tried(report: Report) -> Callable[[float, float], None]:
    def say(limit: float, kept_db: float) -> None:
        report(f"heads below {limit:.3f} local: {kept_db:.1f} dB to all heads global")

    return say


def _measure(
    restorer: Restorer, config: ModelConfig, arguments: argparse.Namespace
) -> tuple[list[HeadDistances], list[Tensor]]:
    """Distances of every clip on its own, on unrestricted heads, in the file's head order.

    With them the clips, in the precision of the arithmetic.
    """
    from ..families.restorer import routing_of
    from ..model.head_distances import measure_distances
    from ..model.routing import HeadRouting
    from ..upscale.precision import choose_device, named_dtype

    device, dtype = choose_device(arguments.device), named_dtype(arguments.dtype)
    everything = HeadRouting.all_global(
        config.num_layers, config.num_heads, window=config.window_size
    )
    routing_of(restorer).routed(everything).prepare(device, dtype)
    stride, model = restorer.traits.stride, restorer.network
    clips = _center_crops(find_clips(arguments.clips), arguments.frames, arguments.crop, stride)
    if restorer.traits.arithmetic == "own":
        clips = [clip.to(dtype) for clip in clips]
    distances = [
        measure_distances(
            model,
            [clip],
            window=config.window_size,
            seed=arguments.seed + index,
            num_queries=arguments.queries,
        )
        for index, clip in enumerate(clips)
    ]
    return distances, clips


def _route(
    distances: HeadDistances, own: HeadRouting, arguments: argparse.Namespace
) -> HeadRouting:
    """Thresholds if any is given, else quotas: as asked, or as many as the model has now."""
    from dataclasses import replace

    from ..model.routing import HeadRouting

    thresholds = (arguments.max_intra, arguments.max_window)
    quotas = (arguments.intra_heads, arguments.window_heads)
    if any(x is not None for x in thresholds) and any(x is not None for x in quotas):
        raise ValueError("thresholds (--max-...) and numbers of heads exclude each other")
    if any(x is not None for x in thresholds):
        intra, window = (0.0 if x is None else x for x in thresholds)
        routing = HeadRouting.from_thresholds(distances, max_intra=intra, max_window=window)
    else:
        layers = range(own.num_layers)
        now = [sum(own.counts(layer)[kind] for layer in layers) for kind in (1, 2)]
        intra, window = (n if x is None else x for n, x in zip(now, quotas, strict=True))
        total = own.num_layers * own.num_heads
        counts = (total - intra - window, intra, window)
        routing = HeadRouting.from_quotas(distances, counts=counts, scope="network")
    rule = {**routing.rule, "num_queries": arguments.queries, "seed": arguments.seed}
    return replace(routing, rule=rule)


def _costs(config: ModelConfig, routing: HeadRouting) -> list[dict[str, Any]]:
    """What the routing costs at usual sizes, counted."""
    from ..bench.plan_table import plan_table

    counts = [routing.counts(layer) for layer in range(config.num_layers)]
    keys = ("size", "transformer_tflop", "total_tflop", "transformer_ratio_to_global")
    tables = (
        plan_table(config, counts, size=size, num_frames=COST_FRAMES, window=routing.window)
        for size in COST_SIZES
    )
    return [{key: table[key] for key in (*keys, "total_ratio_to_global")} for table in tables]


def _lines(routing: HeadRouting, results: dict[str, Any]) -> list[str]:
    """The results for people."""
    lines = []
    for layer, row in enumerate(routing.patterns):
        lines.append(f"layer {layer}: {' '.join(pattern.name.lower() for pattern in row)}")
    lines.append(f"agreement with the model's own routing: {results['agreement_with_own']:.0%}")
    if "kept_db" in results:
        totals = [sum(routing.counts(i)[k] for i in range(routing.num_layers)) for k in range(3)]
        lines.append(
            f"{totals[0]} global, {totals[1]} intra-frame and {totals[2]} window heads keep "
            f"{results['kept_db']:.1f} dB to all heads global in the worst clip"
        )
    stability = results["stability"]
    if stability is None:
        lines.append("stability: not known from one clip; give several")
    else:
        lines.append(
            f"stability: disjoint halves of {stability['num_clips']} clips agree on "
            f"{stability['mean']:.0%} of the heads (worst split {stability['least']:.0%}, by "
            f"chance {stability['by_chance']:.0%}); "
            f"{counted(stability['unstable_heads'], 'head')} would change in half of the splits"
        )
    for cost in results["costs"]:
        width, height = cost["size"]
        lines.append(
            f"{COST_FRAMES} frames of {width}x{height}: transformer "
            f"{cost['transformer_tflop']:.1f} TFLOP, {cost['transformer_ratio_to_global']:.2f} "
            f"times fewer than all heads global; with the decoder {cost['total_tflop']:.1f}, "
            f"{cost['total_ratio_to_global']:.2f} times fewer (counted; the most to expect in time)"
        )
    return lines
