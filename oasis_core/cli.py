"""The `oasis` command: arguments, progress and exit codes; the work is done elsewhere.

Exit codes: 0 done, 1 failed (one sentence on stderr), 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__

# Spelled out here and not imported: `oasis --help` must answer without loading torch.
# tests/core/test_cli.py holds them against the definitions.
DEGRADATIONS = ("light", "consistent", "inconsistent")
CODECS = ("h264", "h265", "ffv1")
DTYPES = ("auto", "float32", "bfloat16", "float16")
DEFAULT_MODEL = "oasis-tiny"
EXIT_INTERRUPTED = 130


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be WIDTHxHEIGHT, like 1280x720, got {text!r}"
        ) from error


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|PATH", help="bundled model or checkpoint"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--dtype", default="auto", choices=DTYPES, help="auto: a probe picks what is fast and right"
    )


def _add_upscale(commands: Any) -> None:
    parser = commands.add_parser("upscale", help="upscale a video file, sound and all")
    parser.add_argument("source", metavar="SRC", type=Path)
    parser.add_argument("destination", metavar="DST", type=Path, help="ends in .mp4, .mkv or .mov")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, help="factor for both sides (default 4; 1 restores)")
    size.add_argument("--size", type=_size, metavar="WxH", help="exact size of the result")
    _add_model_options(parser)
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
    parser.set_defaults(run=_run_upscale)


def _add_degrade(commands: Any) -> None:
    parser = commands.add_parser("degrade", help="make a realistic low-quality copy of a video")
    parser.add_argument("source", metavar="SRC", type=Path)
    parser.add_argument("destination", metavar="DST", type=Path)
    parser.add_argument("--scale", type=float, default=4.0, help="factor by which it gets smaller")
    parser.add_argument("--preset", choices=DEGRADATIONS, default="consistent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.add_argument("--json", action="store_true", help="print the drawn parameters as JSON")
    parser.set_defaults(run=_run_degrade)


def _add_calibrate(commands: Any) -> None:
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
    parser.set_defaults(run=_run_calibrate)


def _add_others(commands: Any) -> None:
    info = commands.add_parser("info", help="describe a model or a video file")
    info.add_argument("subject", metavar="MODEL|VIDEO")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_run_info)

    bench = commands.add_parser("bench", help="time the model on this machine")
    _add_model_options(bench)
    bench.add_argument("--size", type=_size, default=(1280, 720), metavar="WxH")
    bench.add_argument("--frames", type=int, default=16)
    bench.add_argument("--runs", type=int, default=3)
    bench.add_argument("--threads", type=int, help="CPU threads")
    bench.add_argument("--only", choices=("speed", "routing", "attention", "boundaries"))
    bench.add_argument("--clip", type=Path, help="video for the boundary bench")
    bench.add_argument("--short", action="store_true", help="a small, quick form of every bench")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=_run_bench)

    train = commands.add_parser("train", help="train a model; the same command continues a run")
    train.add_argument("config", metavar="CONFIG.toml", type=Path)
    train.set_defaults(run=_run_train)

    evaluate = commands.add_parser("evaluate", help="degrade clips, restore them, compare")
    evaluate.add_argument("sources", nargs="+", metavar="CLIP|FOLDER", type=Path)
    _add_model_options(evaluate)
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
    evaluate.set_defaults(run=_run_evaluate)


def build_parser() -> argparse.ArgumentParser:
    """The command line of every command."""
    parser = argparse.ArgumentParser(
        prog="oasis", description="One-step diffusion video super-resolution with routed attention."
    )
    parser.add_argument("--version", action="version", version=f"oasis {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens inside")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_upscale, _add_degrade, _add_calibrate, _add_others):
        add(commands)
    return parser


class Progress:
    """One bar for the whole job on a terminal; elsewhere a line for every tenth."""

    def __init__(self, unit: str, is_quiet: bool = False) -> None:
        self.unit, self.is_quiet = unit, is_quiet
        self.bar: Any = None
        self.start = time.monotonic()
        self.next_share = 0.1

    def __call__(self, done: float, total: float) -> None:
        """Show that `done` of `total` units are finished."""
        if sys.stderr.isatty() and not self.is_quiet:
            self._draw(done, total)
        elif not self.is_quiet and total and done / total >= self.next_share - 1e-9:
            seconds = max(time.monotonic() - self.start, 1e-9)
            left = seconds * (total - done) / max(done, 1e-9)
            print(
                f"{done:.0f}/{total:.0f} {self.unit}s, {done / seconds:.2f} {self.unit}s/s, "
                f"{left:.0f} s left",
                file=sys.stderr,
            )
            self.next_share = int(10 * done / total) / 10 + 0.1

    def _draw(self, done: float, total: float) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(
                total=round(total),
                unit=self.unit,
                bar_format="{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}]",
            )
        self.bar.total = round(total)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _run_upscale(arguments: argparse.Namespace) -> int:
    from . import load, upscale_file

    scale = arguments.scale
    if scale is None and arguments.size is None:
        scale = 4.0
    progress = Progress("frame", is_quiet=arguments.json)
    try:
        report = upscale_file(
            arguments.source,
            arguments.destination,
            model=load(arguments.model, arguments.device, arguments.dtype),
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
        _print_json(report.to_json())
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


def _run_degrade(arguments: argparse.Namespace) -> int:
    from .degradation.files import degrade_file

    progress = Progress("frame", is_quiet=arguments.json)
    try:
        steps = degrade_file(
            arguments.source,
            arguments.destination,
            preset=arguments.preset,
            scale=arguments.scale,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
            on_progress=progress,
        )
    finally:
        progress.close()
    if arguments.json:
        _print_json({"preset": arguments.preset, "seed": arguments.seed, "steps": steps})
    else:
        names = ", ".join(step["operator"] for step in steps)
        print(f"{arguments.destination}: {arguments.preset}, seed {arguments.seed}: {names}")
    return 0


def _run_calibrate(arguments: argparse.Namespace) -> int:
    from .commands import calibrate_model

    routing = calibrate_model(arguments, report=None if arguments.json else print)
    if arguments.json:
        _print_json(routing.to_json())
    return 0


def _run_info(arguments: argparse.Namespace) -> int:
    from .commands import describe

    facts = describe(arguments.subject)
    if arguments.json:
        _print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key.replace('_', ' ')}: {value}")
    return 0


def _run_bench(arguments: argparse.Namespace) -> int:
    from .bench import run_benches

    results = run_benches(arguments, report=None if arguments.json else print)
    if arguments.json:
        _print_json(results)
    return 0


def _run_train(arguments: argparse.Namespace) -> int:
    from .commands import train_model

    print(train_model(arguments.config, report=print))
    return 0


def _run_evaluate(arguments: argparse.Namespace) -> int:
    from .commands import evaluate_model

    results = evaluate_model(arguments, report=None if arguments.json else print)
    if arguments.json:
        _print_json(results)
    return 0


def _failure_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
    )
    from .upscale.memory import keep_freed_memory

    keep_freed_memory()
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError) as error:
        if arguments.verbose:
            logging.getLogger(__name__).exception("details")
        print(f"oasis: {_failure_of(error)}", file=sys.stderr)
        return 1
