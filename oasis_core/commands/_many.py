"""Many films in one run: what is done already, what failed, and one bar over all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ._manifest import is_list as is_list_of_films
from ._shared import Progress, print_json

RESULTS = "oasis-results.jsonl"
"""In the destination's folder: one line for each film that was done or failed, newest last. It is
written for lists, and when something failed."""

Pair = tuple[Path, Path]
Report = Any
Do = Callable[[Path, Path, Callable[[float, float], None] | None], Report]
"""Upscales one film; the last argument takes its progress, None leaves it to the film."""


class SharedProgress:
    """One bar over films that are done at the same time.

    Args:
        is_quiet: Show nothing.
    """

    def __init__(self, is_quiet: bool) -> None:
        self._progress = Progress("frame", is_quiet)
        self._films: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def of(self, number: int) -> Callable[[float, float], None]:
        """What one film reports to."""

        def report(done: float, total: float) -> None:
            with self._lock:
                self._films[number] = (done, total)
                sums = [sum(values) for values in zip(*self._films.values(), strict=True)]
                self._progress(*sums)

        return report

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.close()


def run_many(
    arguments: argparse.Namespace,
    do: Do,
    pairs: Sequence[Pair],
    *,
    num_at_once: int,
    stop: Callable[[], None],
    summary: Callable[[Report], str],
) -> int:
    """Do films, go on after failures, and say at the end what became of each.

    Args:
        arguments: Of the command; with `dry_run` nothing is written.
        do: Does one, or says what it would do.
        pairs: Source and destination of each.
        num_at_once: Films in work at the same time.
        stop: Makes films in work end soon.
        summary: What a report says to a person.

    Returns:
        The exit code: 1 if a film failed.
    """
    from ..upscale import journal_path

    results = arguments.destination / RESULTS
    if arguments.retry_failed:
        failed_before = failures(results)
        pairs = [pair for pair in pairs if _key(pair[1], results.parent) in failed_before]
    todo, skipped = [], []
    for pair in pairs:
        is_there = pair[1].exists() and not journal_path(pair[1]).exists()
        (skipped if is_there and not arguments.overwrite else todo).append(pair)
    done, failed, rows = [], [], []
    is_list = any(is_list_of_films(source) for source in arguments.sources)
    for number, (pair, result, seconds) in enumerate(
        _each(do, todo, num_at_once, stop, arguments), start=1
    ):
        row = {"source": str(pair[0]), "destination": _key(pair[1], results.parent)}
        if isinstance(result, Exception):
            text = " ".join(str(result).split()) or type(result).__name__
            failed.append({"source": str(pair[0]), "error": text})
            row |= {"status": "failed", "error": text}
            line = f"[{number}/{len(todo)}] failed: {pair[0]}: {text}"
        else:
            done.append(result.to_json())
            row |= {"status": "done", "frames": result.frames}
            line = f"[{number}/{len(todo)}] {summary(result)}"
        rows.append(row | {"seconds": round(seconds, 3), "at": round(time.time())})
        # A folder of results stays free of ours, unless there is something to remember.
        if (failed or is_list or results.is_file()) and not arguments.dry_run:
            append_rows(results, rows)
            rows = []
        if not arguments.json:
            print(line, file=sys.stderr if row["status"] == "failed" else sys.stdout)
    _conclude(arguments, done, skipped, failed)
    return 1 if failed else 0


def _conclude(
    arguments: argparse.Namespace,
    done: Sequence[dict[str, Any]],
    skipped: Sequence[Pair],
    failed: Sequence[dict[str, Any]],
) -> None:
    """Say what became of all."""
    what = "would be done" if arguments.dry_run else "done"
    if arguments.json:
        there = [str(pair[1]) for pair in skipped]
        print_json({what.replace(" ", "_"): done, "skipped": there, "failed": failed})
    else:
        print(f"{len(done)} {what}, {len(skipped)} there already, {len(failed)} failed")
        _print_failures(failed, is_rehearsal=arguments.dry_run)


def _print_failures(failed: Sequence[dict[str, Any]], *, is_rehearsal: bool) -> None:
    if failed and not is_rehearsal:
        print("the same command with --retry-failed does only these again:", file=sys.stderr)
    for failure in failed:
        print(f"failed: {failure['source']}: {failure['error']}", file=sys.stderr)


def _each(
    do: Do,
    pairs: Sequence[Pair],
    num_at_once: int,
    stop: Callable[[], None],
    arguments: argparse.Namespace,
) -> Iterator[tuple[Pair, Any, float]]:
    """Yield each pair with its report or error and its seconds, in the order they end."""
    progress = SharedProgress(arguments.json) if num_at_once > 1 else None

    def attempt(number: int, pair: Pair) -> tuple[Pair, Any, float]:
        start = time.monotonic()
        try:
            result = do(*pair, None if progress is None else progress.of(number))
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            result = error
        return pair, result, time.monotonic() - start

    if progress is None:
        for number, pair in enumerate(pairs):
            if not arguments.json:
                print(f"{pair[0]} -> {pair[1]}", file=sys.stderr)
            yield attempt(number, pair)
        return
    with ThreadPoolExecutor(num_at_once, thread_name_prefix="film") as threads:
        try:
            futures = [threads.submit(attempt, n, pair) for n, pair in enumerate(pairs)]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
        finally:
            progress.close()


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add lines to a file of results."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _key(destination: str | Path, folder: Path) -> str:
    """A destination as it is noted: seen from the folder, however and from where it was named."""
    inside = Path(os.path.relpath(destination, folder))
    return str(Path(destination).absolute()) if ".." in inside.parts else inside.as_posix()


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The newest line of each destination, seen from the folder; torn lines are left out."""
    newest: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return newest
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            newest[row["destination"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return newest


def failures(path: Path) -> set[str]:
    """Destinations whose newest result is a failure.

    Raises:
        ValueError: There are no results yet.
    """
    if not path.is_file():
        raise ValueError(
            f"--retry-failed needs the results of an earlier run in {str(path)!r}, and there are "
            "none; leave it out"
        )
    return {name for name, row in read_results(path).items() if row.get("status") == "failed"}
