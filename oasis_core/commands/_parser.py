"""A parser whose mistakes are answered in two lines, with the name that was probably meant."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from ..words import meant, one_of

_CHOICE = re.compile(r"invalid choice: '(?P<word>[^']*)'")
_UNKNOWN = "unrecognized arguments: "
_MISSING = "the following arguments are required: "


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` for people: a mistake gets one sentence, not a page of usage.

    Sub-commands are made of the same class, since argparse makes them of their parent's.
    """

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, what may have been meant and where help is; exit code 2."""
        self.exit(2, f"oasis: {self._explained(message)}\nsee: {self.prog} --help\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; an unknown option is answered by the command it was given to.

        Argparse leaves it to the outermost parser, which does not know the command's options.
        """
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = getattr(values, "parser", self)
            parser.error(_UNKNOWN + " ".join(unknown))
        return values

    def _explained(self, message: str) -> str:
        if message.startswith(_UNKNOWN):
            word = message.removeprefix(_UNKNOWN).split()[0]
            names = [name for action in self._actions for name in action.option_strings]
            kind = "option" if word.startswith("-") else "argument"
            return f"{kind} {word!r} is not known{meant(word.partition('=')[0], names)}"
        if message.startswith(_MISSING):
            missing = message.removeprefix(_MISSING).split(", ")
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        if match := _CHOICE.search(message):
            return self._explained_choice(message, match["word"])
        return message

    def _explained_choice(self, message: str, word: str) -> str:
        for action in self._actions:
            if action.choices is None or word in action.choices:
                continue
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            if message.startswith(f"argument {name}:"):
                choices = [str(choice) for choice in action.choices]
                label = "command" if name == "COMMAND" else name
                return f"{label} must be {one_of(choices)}, got {word!r}{meant(word, choices)}"
        return message
