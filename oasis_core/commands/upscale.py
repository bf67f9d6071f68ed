"""`oasis upscale`: videos and pictures in, larger ones out."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..option_kinds import FILE, HEADINGS, MACHINE, PICTURE, PIECE, RUN, USUAL
from ..options import rate_of
from ..remote import RemoteFile, as_source
from ..words import counted
from ._batch import find_tasks
from ._engine import Engine, add_engine_options, open_engine
from ._many import run_many
from ._options import OptionArguments, option_values
from ._shared import (
    Options,
    Progress,
    add_model_options,
    parse_output,
    parse_time,
    print_json,
)

log = logging.getLogger(__name__)

PREVIEW_S = 3.0

OnProgress = Callable[[float, float], None]


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    parser = commands.add_parser(
        "upscale",
        help="upscale videos and pictures, sound and all",
        usage="oasis upscale SRC [SRC ...] DST [options]",
    )
    parser.add_argument(
        "sources",
        metavar="SRC",
        type=as_source,
        nargs="+",
        help="video or its URL, picture, in_%%05d.png, folder of pictures (a film) or of videos; "
        "or several; or lists.csv, lists.jsonl, 'in/**/*.mp4'",
    )
    parser.add_argument(
        "destination",
        metavar="DST",
        type=parse_output,
        help=".mp4, .mkv, .mov, .webm, .gif, a picture, out_%%05d.png, or a folder",
    )
    given = OptionArguments()
    groups = {heading: parser.add_argument_group(heading) for heading in HEADINGS}
    _add_usual(groups[USUAL], given)
    given.add_rest(groups[PICTURE], PICTURE)
    _add_piece(groups[PIECE], given)
    given.add_rest(groups[FILE], FILE)
    _add_run(groups[RUN], given)
    add_model_options(groups[MACHINE])
    given.add_rest(groups[MACHINE], MACHINE)
    add_engine_options(parser.add_argument_group("several workers or machines"))
    parser.set_defaults(run=run)


def _add_usual(usual: Any, given: OptionArguments) -> None:
    """What most people look for; it stands first in the help."""
    given.add(usual.add_mutually_exclusive_group(), "scale", "size", "fit")
    usual.add_argument(
        "--preview",
        nargs="?",
        type=parse_time,
        const=PREVIEW_S,
        metavar="TIME",
        help="do so much from the middle (default 3s), into NAME.preview.mp4 with a comparison",
    )
    usual.add_argument(
        "--dry-run", action="store_true", help="say what would be done and kept; write nothing"
    )
    given.add(usual, "strength")
    given.add_rest(usual, USUAL)


def _add_piece(group: Options, given: OptionArguments) -> None:
    given.add(group, "start_s", "duration_s")
    group.add_argument(
        "--preview-at", type=parse_time, metavar="TIME", help="where the preview begins"
    )
    given.add(group, "compare")
    group.add_argument(
        "--stills", action="store_true", help="every picture by itself, not frames of a film"
    )
    given.add_rest(group, PIECE)


def _add_run(group: Options, given: OptionArguments) -> None:
    given.add_rest(group, RUN)
    group.add_argument(
        "--retry-failed", action="store_true", help="of several: only those that failed before"
    )
    group.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    tasks = find_tasks(
        arguments.sources,
        arguments.destination,
        stills=arguments.stills,
        codec=arguments.codec,
    )
    if not arguments.dry_run:
        tasks.make_folders()
    summary = _outlook if arguments.dry_run else _summary
    with _stopped_like_ctrl_c(), open_engine(arguments) as engine:

        def do(source: Path, destination: Path, on_progress: OnProgress | None = None) -> Any:
            options = _options(arguments, source, engine)
            if arguments.dry_run:
                return engine.forecast_file(
                    source, destination, makes_folder=tasks.is_batch, **options
                )
            return _upscale(arguments, engine, source, destination, on_progress, options)

        if tasks.is_batch:
            pairs = [(source, _target(arguments, target)) for source, target in tasks.pairs]
            return run_many(
                arguments,
                do,
                pairs,
                num_at_once=min(engine.num_at_once, len(pairs)),
                stop=engine.close,
                summary=summary,
            )
        if arguments.retry_failed:
            raise ValueError("--retry-failed is for several sources; leave it out")
        source, destination = tasks.pairs[0]
        report = do(source, _target(arguments, destination))
    if arguments.json:
        print_json(report.to_json())
    else:
        print(summary(report))
        if not arguments.dry_run and _comparison(arguments):
            from ..upscale import comparison_path

            print(f"comparison, left the plain resize: {comparison_path(Path(report.destination))}")
    return 0


def _target(arguments: argparse.Namespace, destination: Path) -> Path:
    """A preview has a name of its own, so that it is never taken for the whole."""
    if arguments.preview is None:
        return destination
    if not destination.suffix or destination.is_dir():  # no ending: that would name a file
        return destination.with_name(f"{destination.name}_preview")
    return destination.with_name(f"{destination.stem}.preview{destination.suffix}")


def _upscale(
    arguments: argparse.Namespace,
    engine: Engine,
    source: Path | RemoteFile,
    destination: Path,
    on_progress: OnProgress | None,
    options: dict[str, Any],
) -> Any:
    progress = Progress("frame", is_quiet=arguments.json)
    is_quiet = arguments.json or on_progress is not None
    try:
        return engine.upscale_file(
            source,
            destination,
            on_progress=on_progress or progress,
            on_begin=None if is_quiet else progress.say,
            on_plan=partial(log.info, "%s"),
            **options,
        )
    finally:
        progress.close()


def _options(
    arguments: argparse.Namespace, source: Path | RemoteFile, engine: Engine
) -> dict[str, Any]:
    """The fields of `UpscaleOptions` that the user's words mean for one file."""
    options = option_values(arguments)
    if arguments.scale is arguments.size is arguments.fit is None:
        options["scale"] = engine.default_scale
    options["start_s"], options["duration_s"] = _piece(arguments, source)
    options["compare"] = _comparison(arguments)
    return options


def _comparison(arguments: argparse.Namespace) -> str | None:
    """How plain resize and result are shown beside each other; None: they are not."""
    return arguments.compare or (None if arguments.preview is None else "side")


def _piece(arguments: argparse.Namespace, source: Path) -> tuple[float | None, float | None]:
    """Start and length of the piece to do, in seconds; None is the beginning or the end."""
    if arguments.preview is None:
        if arguments.preview_at is not None:
            raise ValueError("--preview-at needs --preview; use --start for the final file")
        return arguments.start, arguments.duration
    if arguments.start is not None or arguments.duration is not None:
        raise ValueError("--preview chooses its own piece; leave --start and --duration out")
    if arguments.preview_at is not None:
        return arguments.preview_at, arguments.preview
    from ..video import probe

    length_s = probe(source, frame_rate=rate_of(arguments.fps)).duration_s or 0.0
    return max(0.0, (length_s - arguments.preview) / 2), arguments.preview


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """A closed terminal and a polite kill leave the same resumable state as Ctrl-C."""
    seen: list[int] = []

    def stop(number: int, _: object) -> None:
        seen.append(number)
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    # What is ignored stays so: `nohup` is there to outlive the terminal.
    names = [name for name in names if before[name] != signal.SIG_IGN]
    try:
        for name in names:
            signal.signal(getattr(signal, name), stop)
    except ValueError:  # not the main thread: whoever runs it there handles signals
        names = []
    try:
        yield
    except Exception as error:
        if seen:  # PyTorch makes an error of its own from an interrupt while it loads a model
            raise KeyboardInterrupt from error
        raise
    finally:
        for name in names:
            signal.signal(getattr(signal, name), before[name])


def _outlook(forecast: Any) -> str:
    """What a dry run says to a person."""
    frames = (
        "an unknown number of frames"
        if forecast.frames is None
        else counted(forecast.frames, "frame")
    )
    alpha = " with transparency" if forecast.has_alpha else ""
    lines = [
        f"{forecast.destination}: {frames}, {forecast.source_width}x"
        f"{forecast.source_height} to {forecast.width}x{forecast.height}, {forecast.codec} as "
        f"{forecast.pixel_format} of {forecast.bit_depth} bits{alpha}, {forecast.frame_rate} "
        "frames/s",
        f"{forecast.model} on {forecast.device}: {forecast.plan}",
    ]
    if forecast.is_replacing:
        lines.append(f"replaced: {forecast.destination} exists")
    if forecast.done_segments:
        lines.append(
            f"continued: {counted(forecast.done_segments, 'segment')} of "
            f"{counted(forecast.done_frames, 'frame')} done already"
        )
    if forecast.comparison is not None:
        lines.append(f"also: {forecast.comparison}")
    lines += [f"would keep: {item}" for item in forecast.kept]
    lines += [f"would not keep: {item}" for item in forecast.dropped]
    return "\n".join([*lines, "dry run: nothing was written"])


def _summary(report: Any) -> str:
    """What a finished run says to a person."""
    seconds = ", ".join(
        f"{stage} {value:.1f}" for stage, value in report.seconds.items() if stage != "total"
    )
    lines = [
        f"{report.destination}: {counted(report.frames, 'frame')}, {report.source_width}x"
        f"{report.source_height} to {report.width}x{report.height}, "
        f"{counted(report.num_shots, 'shot')}, "
        f"{report.seconds['total']:.1f} s, {report.fps:.2f} frames/s",
        f"{report.model} in {report.dtype} on {report.device}; seconds: {seconds}; peak memory "
        f"{report.peak_rss_bytes / 1e9:.2f} GB",
    ]
    if report.num_resumed_segments:
        lines.append(f"continued: {counted(report.num_resumed_segments, 'segment')} done before")
    if report.num_held_frames:
        lines.append(
            f"held: {counted(report.num_held_frames, 'frame')} known and not computed again"
        )
    if report.num_corrupt_frames:
        lines.append(
            f"damaged in the source and concealed: {counted(report.num_corrupt_frames, 'frame')}"
        )
    lines += [f"kept: {item}" for item in report.kept]
    lines += [f"not kept: {item}" for item in report.dropped]
    return "\n".join(lines)
