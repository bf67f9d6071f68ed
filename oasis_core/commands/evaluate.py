"""`oasis evaluate`: degrade clips, restore them, compare with the truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import DEGRADATIONS, Report, add_model_options, find_clips, print_json

if TYPE_CHECKING:
    from ..evaluation.benchmark import ClipResult


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    evaluate = commands.add_parser("evaluate", help="degrade clips, restore them, compare")
    evaluate.add_argument("sources", nargs="+", metavar="CLIP|FOLDER", type=Path)
    add_model_options(evaluate)
    evaluate.add_argument("--scale", type=int, default=4)
    evaluate.add_argument("--frames", type=int, default=10, help="frames of each clip")
    evaluate.add_argument(
        "--degradation", action="append", choices=DEGRADATIONS, help="default: light, consistent"
    )
    evaluate.add_argument("--no-motion", action="store_true", help="skip the warping error")
    evaluate.add_argument(
        "--record", action="store_true", help="store the means in the model file's metadata"
    )
    evaluate.add_argument("--json", action="store_true")
    evaluate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    results = evaluate_model(arguments, report=None if arguments.json else print)
    if arguments.json:
        print_json(results)
    return 0


def evaluate_model(arguments: argparse.Namespace, report: Report | None) -> dict[str, Any]:
    """Degrade, restore and measure clips; returns clips and means as JSON values."""
    from .. import load
    from ..checkpoint import resolve_model, update_info
    from ..evaluation.benchmark import evaluate, summarise

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
