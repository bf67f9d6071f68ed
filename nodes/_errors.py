"""Errors as users read them: ComfyUI puts the full name of an exception's class before its text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

PACKAGE = __name__.rpartition(".")[0].rpartition(".")[0]


def plain_errors(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method raise built-in exceptions in place of this pack's own, with the same sentence.

    The pack is loaded under the path of its folder, which would stand before every sentence.
    """

    @functools.wraps(method)
    def call(*args: Any, **values: Any) -> Any:
        try:
            return method(*args, **values)
        except Exception as error:
            if not type(error).__module__.startswith(f"{PACKAGE}."):
                raise
            plain = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
            raise plain(str(error)) from error

    return call
