"""Results that lie in ComfyUI's temporary folder, of which only the last few are kept."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_KEPT = 5
LINKED = ("model", "video", "mask", "before", "after", "truth")
"""Inputs whose values ComfyUI does not know before the nodes in front of them have run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    files: tuple[Path, ...]
    settings: str
    prompt: str | None


class ResultShelf:
    """Remembers what was written in which order, and removes the oldest.

    ComfyUI goes on handing out a result from its cache after its file is gone. So a node asks
    `num_lost` in its fingerprint: the number changes for the settings whose result was removed, and
    that node alone runs again when it is asked for again.
    """

    def __init__(self) -> None:
        self._results: dict[Path, _Result] = {}
        self._lost: Counter[str] = Counter()
        self._lock = threading.Lock()

    def put(
        self,
        path: Path,
        values: Mapping[str, Any],
        *,
        prompt: str | None,
        num_kept: int,
        beside: tuple[Path, ...] = (),
    ) -> None:
        """Note a result, and remove the oldest beyond the number to keep.

        Args:
            path: The file.
            values: Inputs of the node by name.
            prompt: Which queued prompt it belongs to; none of its results is removed.
            num_kept: Results of earlier prompts that stay.
            beside: Files and folders that go when it goes.
        """
        with self._lock:
            self._results.pop(path, None)
            self._results[path] = _Result(
                files=(path, *beside), settings=_text(values), prompt=prompt
            )
            earlier = [key for key, result in self._results.items() if result.prompt != prompt]
            for key in earlier[: max(0, len(earlier) - num_kept)]:
                self._remove(key)

    def _remove(self, key: Path) -> None:
        result = self._results[key]
        try:
            for file in result.files:
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink(missing_ok=True)
        except OSError as error:  # being played on Windows; next time
            logger.debug("%s stays: %s", key, error)
            return
        del self._results[key]
        self._lost[result.settings] += 1

    def forget(self, path: Path) -> None:
        """Say that a result was moved away and is no longer the shelf's."""
        with self._lock:
            self._results.pop(path, None)

    def num_lost(self, values: Mapping[str, Any]) -> int:
        """How many results of a node with these inputs were removed so far.

        Args:
            values: Inputs by name as a fingerprint gets them: None where a link leads to them.
        """
        with self._lock:
            if any(value is None for name, value in values.items() if name not in LINKED):
                return sum(self._lost.values())
            return self._lost[_text(values)]


def _text(values: Mapping[str, Any]) -> str:
    known = {name: value for name, value in values.items() if name not in LINKED}
    return repr(sorted(known.items()))


SHELF = ResultShelf()
"""Of this server; the temporary folder is emptied when it starts."""
