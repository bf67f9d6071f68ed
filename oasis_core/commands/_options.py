"""The shell's arguments for the options of `oasis_core.options`, and what they mean."""

from __future__ import annotations

import argparse
from typing import Any

from ..option_kinds import Argument, Option
from ..options import OPTIONS
from ._shared import Options, parsed_by


class OptionArguments:
    """Adds every option that the shell spells to a parser, each once.

    A heading's options stand in the order of the table; those that are named first come first.
    """

    def __init__(self) -> None:
        self._left = [choice for choice in OPTIONS.values() if choice.shell is not None]

    def add(self, group: Options, *names: str) -> None:
        """Add the options of these names.

        Args:
            group: Where they stand in the help.
            names: Fields of `UpscaleOptions`.
        """
        for name in names:
            self._left.remove(OPTIONS[name])
            _add(group, OPTIONS[name])

    def add_rest(self, group: Options, heading: str) -> None:
        """Add the options of a heading that are not there yet."""
        self.add(group, *(o.name for o in self._left if o.shell and o.shell.heading == heading))


def option_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `UpscaleOptions` that the shell spells, as the user's words mean them."""
    values = {}
    for choice in OPTIONS.values():
        if choice.shell is None:
            continue
        value = getattr(arguments, _destination(choice.name, choice.shell))
        if choice.shell.switches_to is not None:
            value = choice.shell.switches_to if value else choice.default
        elif choice.shell.words is not None:
            value = choice.shell.words[value]
        values[choice.name] = value
    return values


def _flag(name: str, shell: Argument) -> str:
    return shell.flag or f"--{name.replace('_', '-')}"


def _destination(name: str, shell: Argument) -> str:
    return _flag(name, shell).removeprefix("--").replace("-", "_")


def _add(group: Options, choice: Option) -> None:
    shell = choice.shell
    assert shell is not None
    flag = _flag(choice.name, shell)
    if shell.switches_to is not None:
        group.add_argument(flag, action="store_true", help=shell.help)
        return
    settings: dict[str, Any] = {"help": shell.help, "default": choice.default}
    if shell.words is not None:
        word = next(word for word, value in shell.words.items() if value == choice.default)
        settings |= {"choices": tuple(shell.words), "default": word}
    elif shell.choices is not None:
        settings["choices"] = shell.choices
    if shell.read is not None:
        # Of a wrong number argparse itself says what it is.
        settings["type"] = shell.read if isinstance(shell.read, type) else parsed_by(shell.read)
    if shell.bare is not None:
        settings |= {"nargs": "?", "const": shell.bare}
    if shell.metavar is not None:
        settings["metavar"] = shell.metavar
    group.add_argument(flag, **settings)
