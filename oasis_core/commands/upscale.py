"""`oasis upscale`: a video file in, a larger one out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ._shared import CODECS, Progress, add_model_options, parse_size, print_json


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser("upscale", help="upscale a video file, sound and all")
    parser.add_argument("source", metavar="SRC", type=Path)
    parser.add_argument("destination", metavar="DST", type=Path, help="ends in .mp4, .mkv or .mov")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, help="factor for both sides (default 4; 1 restores)")
    size.add_argument("--size", type=parse_size, metavar="WxH", help="exact size of the result")
    add_model_options(parser)
    parser.add_argument(
        "--strength", type=float, default=1.0, help="0: plain resize ... 1: the model in full"
    )
    parser.add_argument(
        "--color-anchor", choices=("on", "off"), default="on", help="keep the source's colours"
    )
    parser.add_argument(
        "--shots", choices=("auto", "off"), default="auto", help="find cuts and keep shots apart"
    )
    parser.add_argument("--tile", type=int, metavar="PX", help="tile side in output pixels")
    parser.add_argument("--segment", type=int, metavar="FRAMES", help="frames worked on at once")
    parser.add_argument("--codec", choices=CODECS, default="h264")
    parser.add_argument("--crf", type=float, help="quality of the encoder; lower is better")
    parser.add_argument("--preset", help="speed of the encoder, like fast or slow")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.add_argument(
        "--fresh", action="store_true", help="forget an interrupted run instead of continuing it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from .. import load, upscale_file

    scale = arguments.scale
    if scale is None and arguments.size is None:
        scale = 4.0
    progress = Progress("frame", is_quiet=arguments.json)
    try:
        report = upscale_file(
            arguments.source,
            arguments.destination,
            model=load(arguments.model, arguments.device, arguments.dtype, arguments.decoder),
            scale=scale,
            size=arguments.size,
            strength=arguments.strength,
            color_anchor=arguments.color_anchor == "on",
            shots=arguments.shots != "off",
            tile_px=arguments.tile,
            segment_frames=arguments.segment,
            codec=arguments.codec,
            crf=arguments.crf,
            preset=arguments.preset,
            overwrite=arguments.overwrite,
            fresh=arguments.fresh,
            on_progress=progress,
            on_plan=None if arguments.json else lambda plan: print(plan, file=sys.stderr),
        )
    finally:
        progress.close()
    if arguments.json:
        print_json(report.to_json())
    else:
        print(_summary(report))
    return 0


def _summary(report: Any) -> str:
    """What a finished run says to a person."""
    seconds = ", ".join(
        f"{stage} {value:.1f}" for stage, value in report.seconds.items() if stage != "total"
    )
    lines = [
        f"{report.destination}: {report.frames} frames, {report.source_width}x"
        f"{report.source_height} to {report.width}x{report.height}, {report.num_shots} shot(s), "
        f"{report.seconds['total']:.1f} s, {report.fps:.2f} frames/s",
        f"{report.model} in {report.dtype} on {report.device}; seconds: {seconds}; peak memory "
        f"{report.peak_rss_bytes / 1e9:.2f} GB",
    ]
    if report.num_resumed_segments:
        lines.append(f"continued: {report.num_resumed_segments} segments were done before")
    if report.num_corrupt_frames:
        lines.append(f"damaged in the source and concealed: {report.num_corrupt_frames} frames")
    lines += [f"kept: {item}" for item in report.kept]
    lines += [f"not kept: {item}" for item in report.dropped]
    return "\n".join(lines)
