"""The `oasis` command: arguments, progress and exit codes; the work is done elsewhere.

Exit codes: 0 done, 1 failed (one sentence on stderr), 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .commands import (
    ablate,
    bench,
    calibrate,
    compare,
    convert,
    degrade,
    doctor,
    evaluate,
    export_partial,
    info,
    models,
    status,
    train,
    upscale,
)
from .commands._parser import Parser
from .malloc import keep_freed_memory
from .remote import RemoteFile, is_url
from .version import __version__

COMMANDS = (
    upscale,
    compare,
    export_partial,
    status,
    degrade,
    calibrate,
    convert,
    models,
    info,
    doctor,
    bench,
    train,
    ablate,
    evaluate,
)
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The command line of every command."""
    parser = Parser(
        prog="oasis",
        description="Make videos and pictures larger and cleaner, with their sound and all else.",
    )
    parser.add_argument("--version", action="version", version=f"oasis {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens inside")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    for subparser in commands.choices.values():
        subparser.set_defaults(parser=subparser)
    return parser


def _failure_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    hook, sys.unraisablehook = sys.unraisablehook, _say_unraisable
    try:
        return _finished(_run(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # before there was anything to interrupt, or a second one
        return EXIT_INTERRUPTED
    finally:
        sys.unraisablehook = hook


def _say_unraisable(unraisable: Any) -> None:
    """Keep quiet about a Ctrl-C that met a destructor, where Python drops it with a traceback."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


def _run(words: Sequence[str]) -> int:
    for name in ("stdout", "stderr"):  # None if the shell closed it, as in `2>&-`
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (stays open)
            setattr(sys, name, nowhere)
    arguments = build_parser().parse_args(words)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
    )
    logging.raiseExceptions = False  # of logging itself, where stderr is closed
    keep_freed_memory()
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except KeyboardInterrupt:
        shown = (str(RemoteFile(word)) if is_url(word) else word for word in words)
        command = shlex.join(["oasis", *shown])
        with suppress(OSError):  # the terminal may be what went away
            print(f"interrupted; the same command continues: {command}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise  # a fault of the program
        print(f"oasis: needs the package {error.name}, which is not installed", file=sys.stderr)
        return 1
    # Torch and FFmpeg say with these, too, what a device or a file will not do.
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and _is_reader_gone():
            return 1  # it has what it wanted, as in `| head -1`
        # A refusal says all there is to say; where another error comes from, only the trace tells.
        if arguments.verbose and not isinstance(error, ValueError):
            logging.getLogger(__name__).exception("details")
        with suppress(OSError):
            print(f"oasis: {_failure_of(error)}", file=sys.stderr)
        return 1


def _is_reader_gone() -> bool:
    """Whether it was our own output that could not be written, and not a connection."""
    try:
        print(flush=True)  # only a byte tells
    except OSError:
        return True
    return False


def _finished(code: int) -> int:
    """Write out what was printed; a reader that is gone, as in `| head -1`, is a failure."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
            # Python would try again at its end, and complain.
            with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
    return code
