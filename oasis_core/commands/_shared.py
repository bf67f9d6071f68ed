"""Options and output that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..choices import BEFORE_WORK, BUNDLED, DTYPES, LATENT_DECODERS
from ..remote import RemoteFile, as_source, is_url, no_result
from ..words import lasting, read_size, read_time

Report = Callable[[str], None]
Options = argparse._ActionsContainer
"""What options are added to: a parser, or one of the groups in its help."""


def parse_output(text: str) -> Path:
    """Read the name of a result, which cannot be a URL."""
    if is_url(text):
        raise argparse.ArgumentTypeError(no_result(text))
    return Path(text)


def on_disk(source: str | Path | RemoteFile) -> Path:
    """What a name stands for if it is on a disk; a file URL is.

    Raises:
        ValueError: It is behind a URL.
    """
    source = as_source(source)
    if isinstance(source, RemoteFile):
        raise ValueError(f"must be on a disk, got {str(source)!r}; download it first")
    return source


def parsed_by(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """What argparse calls to read a word, so that it says the sentence of the reader's error."""

    def parse(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


parse_size = parsed_by(read_size)
parse_time = parsed_by(read_time)
parse_on_disk = parsed_by(on_disk)
"""Reads the name of a file or folder that must be on a disk."""


def add_model_options(parser: Options) -> None:
    """Add --model, --device and --dtype."""
    parser.add_argument(
        "--model", default=BUNDLED[0], metavar="NAME|PATH", help="bundled model or checkpoint"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", *DTYPES),
        help="auto: what the device has, if close",
    )
    parser.add_argument(
        "--decoder",
        choices=LATENT_DECODERS,
        help="of a model with both: wan is exact, tiny is fast; tiny-both: to encode with, too",
    )
    parser.add_argument(
        "--decoder-tile",
        type=int,
        metavar="PX",
        help="Wan's decoder in tiles of its own, for larger --tile in the same memory",
    )
    parser.add_argument(
        "--transformer",
        choices=("on", "off"),
        default="on",
        help="off: the convolutions of oasis-tiny alone, which are faster",
    )
    add_detail(parser)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile a large model: for long clips on a GPU",
    )
    parser.add_argument(
        "--int8", action="store_true", help="a large model in half the memory, for small GPUs"
    )


def add_detail(parser: Options) -> None:
    """Add --detail, which mixes the two ends of a model."""
    parser.add_argument(
        "--detail",
        type=float,
        metavar="0..1",
        help="0: faithful to the source; 1: vivid: sharp, with texture that may be invented",
    )


def load_model(arguments: argparse.Namespace) -> Any:
    """Load the model that `add_model_options` describes."""
    if not getattr(arguments, "json", False):
        # Loading torch alone is seconds of silence.
        print(f"loading {arguments.model} ...", file=sys.stderr, flush=True)
    from .. import load

    return load(
        arguments.model,
        arguments.device,
        arguments.dtype,
        arguments.decoder,
        compiled=arguments.compile,
        int8=arguments.int8,
        decoder_tile=arguments.decoder_tile,
        transformer=arguments.transformer == "on",
        detail=arguments.detail,
    )


def can_draw_bar() -> bool:
    """Whether stderr is a terminal with room for one; some containers' say 0 columns, 0 rows."""
    try:
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 1
    except (OSError, ValueError):  # closed, or no terminal after all
        return False


FIRST_LINE_S = 10.0
"""After so long a log hears how it goes, even where no tenth is done."""
EVERY_LINE_S = 300.0
"""And again after so long, in films of which a tenth takes hours."""


class Progress:
    """One bar for the whole job on a terminal; elsewhere a line for every tenth.

    What an earlier run has done and the time before work begins count for neither speed nor time
    left.

    Args:
        unit: What is counted, of one.
        is_quiet: Show nothing.
        clock: Gives seconds.
    """

    def __init__(
        self, unit: str, is_quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.unit, self.is_quiet, self._clock = unit, is_quiet, clock
        self.bar: Any = None
        self.start = self._said_at = clock()
        self.next_share = 0.1
        self.num_said = 0
        self._done = self._done_before = 0.0
        self._has_begun = self._is_waiting = False

    def stage(self, name: str, done: int, total: int) -> None:
        """Hear what the run is doing; the first stage that makes something begins the count."""
        del done, total
        self._is_waiting = not self._has_begun and name in BEFORE_WORK
        if not self._has_begun and not self._is_waiting:
            self._has_begun, self._done_before = True, self._done
            self.start = self._said_at = self._clock()

    def __call__(self, done: float, total: float) -> None:
        """Show that `done` of `total` units are finished."""
        self._done = done
        try:
            self._show(done, total)
        except OSError:  # a closed terminal or a full log is no reason to stop a night's work
            self.is_quiet = True

    def say(self, text: object) -> None:
        """Print a line, if anybody looks."""
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            self.is_quiet = True

    def _show(self, done: float, total: float) -> None:
        if can_draw_bar() and not self.is_quiet:
            self._draw(done, total)
        elif self.is_quiet or self._is_waiting or not total:
            return
        elif self._is_news(int(done + 1e-6), total):
            seconds = max(self._clock() - self.start, 1e-9)
            speed = max(done - self._done_before, 1e-9) / seconds
            print(
                f"{self.num_said}/{total:.0f} {self.unit}s, {speed:.2f} {self.unit}s/s, "
                f"{lasting((total - done) / speed)} left",
                file=sys.stderr,
                flush=True,
            )

    def _is_news(self, num_done: int, total: float) -> bool:
        """Whether another unit is finished whole, and with it another tenth or a while is over."""
        share, now_s = num_done / total, self._clock()
        if num_done <= max(self.num_said, self._done_before):
            return False
        is_first = self.num_said == 0
        is_due = now_s - self._said_at >= (FIRST_LINE_S if is_first else EVERY_LINE_S)
        if share < self.next_share - 1e-9 and not is_due:
            return False
        self.num_said, self._said_at = num_done, now_s
        self.next_share = int(10 * share + 1e-9) / 10 + 0.1
        return True

    def _draw(self, done: float, total: float) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(
                total=round(total),
                initial=done,
                unit=self.unit,
                bar_format="{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}]",
            )
        self.bar.total = round(total)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()


@contextmanager
def needing_checkout(what: str) -> Iterator[None]:
    """Around an import from `oasis_core.lab`, which the built package leaves out.

    Args:
        what: Option or command that needs it.

    Raises:
        ValueError: It is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if "oasis_core.lab" not in (error.name or ""):
            raise
        raise ValueError(
            f"{what} needs a checkout of the repository, installed with `pip install -e .`"
        ) from error


def print_json(value: Any) -> None:
    """Print a value as JSON that every parser reads: no NaN."""
    print(json.dumps(value, indent=2, allow_nan=False))


def find_clips(sources: Iterable[Path | RemoteFile]) -> list[Path | RemoteFile]:
    """Files and URLs as given, folders replaced by the videos in them, in natural order.

    A folder of pictures alone is one clip, and so is a pattern.

    Raises:
        ValueError: A source does not exist, or nothing was found.
    """
    from ..video import VIDEO_SUFFIXES, Source
    from ..video.names import folder_contents

    paths: list[Path | RemoteFile] = []
    for source in sources:
        if source.is_dir():
            films, pictures = folder_contents(source)
            paths += films or ([source] if pictures else [])
        elif source.exists() or Source.resolve(source).pictures:
            paths.append(source)
        else:
            raise ValueError(f"{str(source)!r} does not exist")
    if not paths:
        raise ValueError(f"no video found; looked for {', '.join(sorted(VIDEO_SUFFIXES))}")
    return paths
