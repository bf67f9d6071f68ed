"""`oasis evaluate`: restore clips and compare, or compare results that exist already."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import DEGRADATIONS, STANDARD_SETS
from ..remote import as_source
from ._evaluation_words import clip_line, report_means
from ._shared import (
    Report,
    add_model_options,
    load_model,
    on_disk,
    parse_on_disk,
    parse_output,
    print_json,
)

if TYPE_CHECKING:
    from ..evaluation.benchmark import ClipResult, Shown
    from ..evaluation.clips import ClipSource
    from ..evaluation.peers import Peer
    from ..upscale import VideoUpscaler

_EPILOG = """ways to use it:
  oasis evaluate CLIPS --out REPORT            degrade sharp clips, restore, compare
  oasis evaluate --low LQ --truth GT           restore low-quality clips, compare
  oasis evaluate --low LQ --out REPORT         no originals: strips, and metrics that need none
  oasis evaluate --truth GT --restored A=DIR   compare results of any method
  oasis evaluate --set udm10 FOLDER            a standard set in its published layout
  oasis evaluate CLIPS --peers lanczos,4x.pth  the same of other upscalers, in the same run
"""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="degrade clips, restore them, compare; or compare given results",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument(
        "sources",
        nargs="*",
        metavar="CLIP|FOLDER",
        type=as_source,
        help="sharp clips, URLs too, or a set's root",
    )
    add_model_options(evaluate)
    pairs = evaluate.add_argument_group("given clips (folders of videos or of picture folders)")
    pairs.add_argument("--truth", type=parse_on_disk, metavar="FOLDER", help="originals")
    pairs.add_argument(
        "--low", type=parse_on_disk, metavar="FOLDER", help="low-quality clips to restore"
    )
    pairs.add_argument(
        "--restored",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="results to measure; repeatable",
    )
    pairs.add_argument("--set", choices=STANDARD_SETS, help="layout of the one folder given")
    evaluate.add_argument("--scale", type=float, default=4, help="where no original tells it")
    evaluate.add_argument("--frames", type=int, default=10, help="of each clip; 0: all")
    evaluate.add_argument(
        "--middle",
        type=int,
        default=0,
        metavar="PX",
        help="take the middle square of clips (of the result, in pixels)",
    )
    evaluate.add_argument(
        "--degradation",
        action="append",
        choices=DEGRADATIONS,
        help="default: light, web, consistent",
    )
    evaluate.add_argument(
        "--tripod",
        action="store_true",
        help="hold the first frame of sharp clips: what changes then is noise",
    )
    peers = evaluate.add_argument_group("other upscalers in the same run")
    peers.add_argument(
        "--peers",
        action="append",
        default=[],
        metavar="A,B",
        help="lanczos, or [NAME=]FILE: a model file, or ncnn's .param; repeatable",
    )
    peers.add_argument(
        "--details",
        metavar="A,B",
        help="the model itself at these points of --detail, such as 0,0.5,1",
    )
    peers.add_argument(
        "--cache", type=parse_output, metavar="FOLDER", help="keep what peers made for the next run"
    )
    peers.add_argument(
        "--sheets", type=parse_output, metavar="FOLDER", help="write crops side by side as PNG"
    )
    evaluate.add_argument("--metrics", metavar="A,B", help="default: all that can run")
    evaluate.add_argument(
        "--sampled",
        type=int,
        default=0,
        metavar="N",
        help="LPIPS, DISTS and CLIP-IQA on the middle N frames only; 0: all",
    )
    evaluate.add_argument("--no-motion", action="store_true", help="skip the warping errors")
    evaluate.add_argument(
        "--scores",
        type=parse_on_disk,
        metavar="CSV",
        help="other tools' scores: clip, method, musiq, ...",
    )
    evaluate.add_argument(
        "--out",
        type=parse_output,
        metavar="FOLDER",
        help="write report.html, results.json, results.csv, results.md",
    )
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
    return 1 if results["skipped"] else 0


def _restored_folders(texts: list[str]) -> dict[str, Path]:
    from ..evaluation.clips import RESERVED, EvaluationError

    folders: dict[str, Path] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        try:
            path = on_disk(folder if separator else text)
        except ValueError as error:
            raise EvaluationError(f"--restored {error}") from error
        name = name if separator else path.name
        if not name or name in folders or name in RESERVED:
            raise EvaluationError(
                f"--restored needs a name of its own for each folder, none of "
                f"{', '.join(RESERVED)}, got {name!r}; write NAME=FOLDER"
            )
        folders[name] = path
    return folders


def _check_record(arguments: argparse.Namespace, sources: list[ClipSource]) -> None:
    """Refuse to store what was not measured, or to change the installed model.

    Raises:
        EvaluationError: The model is bundled or not used, or a clip has no original.
    """
    from ..checkpoint import BUNDLED, read_header, resolve_model
    from ..evaluation.clips import EvaluationError

    path = resolve_model(arguments.model)
    if path.resolve() in {bundled.resolve() for bundled in BUNDLED.values()}:
        raise EvaluationError(
            f"--record changes the model file, which the bundled {arguments.model} must not be; "
            "name a copy with --model"
        )
    if not all(s.truth and (s.low or not s.restored) for s in sources):
        raise EvaluationError(
            "--record needs clips that the model restores and their originals; leave it out or "
            "name such clips"
        )
    read_header(path)


def _sources(arguments: argparse.Namespace) -> list[ClipSource]:
    """The clips a command line names.

    Raises:
        EvaluationError: Ways of naming clips are mixed, or nothing is found.
    """
    from ..evaluation.clips import EvaluationError, find_sources, pair_folders
    from ..evaluation.datasets import find_set

    if not 1 <= arguments.scale <= 16:
        raise EvaluationError(f"--scale must be in [1, 16], got {arguments.scale:g}")
    if arguments.frames < 0:
        raise EvaluationError(f"--frames must be at least 0 (all), got {arguments.frames}")
    if arguments.sampled < 0:
        raise EvaluationError(f"--sampled must be at least 0 (all), got {arguments.sampled}")
    given = arguments.truth or arguments.low or arguments.restored
    if bool(arguments.sources) == bool(given):
        raise EvaluationError(
            "name either sharp clips to degrade or folders with --truth, --low, --restored"
        )
    if arguments.set:
        if len(arguments.sources) != 1:
            raise EvaluationError(f"--set {arguments.set} needs one folder, the set's root")
        try:
            root = on_disk(arguments.sources[0])
        except ValueError as error:
            raise EvaluationError(f"the folder of --set {error}") from error
        return find_set(arguments.set, root)
    if arguments.sources:
        return find_sources(arguments.sources)
    return pair_folders(
        truth=arguments.truth,
        low=arguments.low,
        restored=_restored_folders(arguments.restored),
    )


def _chosen_metrics(arguments: argparse.Namespace) -> list[str]:
    from ..evaluation.suite import DEFAULT_METRICS

    names = arguments.metrics.split(",") if arguments.metrics else list(DEFAULT_METRICS)
    moving = ("warping_error", "ewarp_published", "ewarp_corrected")
    return [name for name in names if not (arguments.no_motion and name in moving)]


def _load(arguments: argparse.Namespace) -> VideoUpscaler:
    """The model under test: bundled, an oasis checkpoint, or a trained yardstick."""
    from ..checkpoint import resolve_model
    from ..training.yardstick import is_yardstick, load_yardstick
    from ..upscale import VideoUpscaler

    path = resolve_model(arguments.model)
    if is_yardstick(path):
        return VideoUpscaler(load_yardstick(path), arguments.device, arguments.dtype)
    return load_model(arguments)


def _settings(arguments: argparse.Namespace, upscaler: VideoUpscaler | None) -> dict[str, Any]:
    """What a reader of the figures must know."""
    return {
        "model": upscaler.name if upscaler else None,
        "transformer": arguments.transformer if upscaler else None,
        "detail": upscaler.restorer.facts.get("detail", 0.0) if upscaler else None,
        "dtype": str(upscaler.dtype).removeprefix("torch.") if upscaler else None,
        "scale": arguments.scale,
        "frames": arguments.frames or "all",
        "middle_px": arguments.middle or "all",
        "sampled": arguments.sampled or "all",
        "tripod": "yes" if arguments.tripod else None,
    }


def evaluate_model(arguments: argparse.Namespace, report: Report | None) -> dict[str, Any]:
    """Measure clips as asked; returns clips and means as JSON values."""
    from .. import load
    from ..evaluation.benchmark import DEFAULT_DEGRADATIONS, evaluate
    from ..evaluation.html_report import PictureBook, results_json, write_report
    from ..evaluation.markdown_report import write_markdown
    from ..evaluation.peers import ResultCache, find_peers
    from ..evaluation.sheets import write_sheet
    from ..evaluation.suite import MetricSuite, read_scores
    from ..upscale.precision import choose_device

    sources = _sources(arguments)
    if arguments.record:
        _check_record(arguments, sources)
    if arguments.out:
        # A folder that cannot be written shows before the work, not after it.
        arguments.out.mkdir(parents=True, exist_ok=True)
    scores = read_scores(arguments.scores) if arguments.scores else {}
    device = str(choose_device(arguments.device))
    suite = MetricSuite(_chosen_metrics(arguments), device, num_sampled=arguments.sampled)
    peers = find_peers(
        _listed(arguments.peers), lambda path: load(path, arguments.device, arguments.dtype)
    )
    peers = _details(arguments) + peers
    needs_model = any(source.low or not source.restored for source in sources)
    upscaler = _load(arguments) if needs_model else None
    book, say, skipped = PictureBook(), report or _say_nothing, {}

    def on_result(result: ClipResult, shown: Shown) -> None:
        if arguments.out:
            book.add(result, shown)
        if arguments.sheets:
            write_sheet(arguments.sheets, result, shown)
        say(clip_line(result))

    def on_skip(name: str, reason: str) -> None:
        skipped[name] = reason
        say(f"skipped {name}: {reason}")

    results = evaluate(
        upscaler,
        sources,
        degradations=arguments.degradation or DEFAULT_DEGRADATIONS,
        scale=arguments.scale,
        num_frames=arguments.frames,
        middle_px=arguments.middle,
        is_tripod=arguments.tripod,
        peers=peers,
        cache=ResultCache(arguments.cache),
        suite=suite,
        on_result=on_result,
        on_skip=on_skip,
    )
    results = [result.with_scores(scores) for result in results]
    settings = _settings(arguments, upscaler)
    if arguments.out:
        page = write_report(arguments.out, results, suite, settings, book, skipped)
        write_markdown(arguments.out, results)
        say(f"report: {page}")
    report_means(results, suite, say)
    if skipped:
        say(f"{len(skipped)} of the clips were skipped: {', '.join(skipped)}")
    values = results_json(results, suite, settings, skipped)
    if arguments.record:
        values["recorded"] = _record(arguments, results, skipped, say)
    return values


def _details(arguments: argparse.Namespace) -> list[Peer]:
    """The model under test at other points of its slider.

    Raises:
        EvaluationError: One is no number; the model refuses what is out of its range.
    """
    from ..evaluation.clips import EvaluationError
    from ..evaluation.peers import EngineModel

    found: list[Peer] = []
    for text in _listed([arguments.details or ""]):
        try:
            detail = float(text)
        except ValueError as error:
            raise EvaluationError(f"--details must be numbers in [0, 1], got {text!r}") from error
        chosen = argparse.Namespace(**{**vars(arguments), "detail": detail})
        found.append(EngineModel(f"detail {detail:g}", load_model(chosen)))
    return found


def _listed(texts: list[str]) -> list[str]:
    """The parts of comma-separated options."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _say_nothing(line: str) -> None:
    del line


def _record(
    arguments: argparse.Namespace,
    results: list[ClipResult],
    skipped: dict[str, str],
    say: Report,
) -> bool:
    """Store the means with the model, unless a clip is missing from them; whether it was done."""
    from ..checkpoint import resolve_model, update_info
    from ..evaluation.benchmark import summarise

    if skipped:
        # Means without the hard clips look better than the model is.
        say("not recorded: --record needs every clip; mend or leave out the skipped ones")
        return False
    settings = {
        "scale": arguments.scale,
        "frames": arguments.frames,
        "middle_px": arguments.middle,
    }
    metrics = {**summarise(results), "settings": settings}
    update_info(resolve_model(arguments.model), metrics=metrics)
    return True
