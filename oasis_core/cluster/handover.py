"""Giving a worker's file its final name, once the driver sees it."""

from __future__ import annotations

import time
from pathlib import Path

from ..video.writer import write_atomically
from .worker import ClusterError, Outcome

APPEAR_S = 15.0
"""Network file systems may show a new file late; longer means that the folder is not shared."""


def publish(outcome: Outcome, path: Path, *, appear_s: float = APPEAR_S) -> None:
    """Give a segment's file its name, which makes it the segment.

    Args:
        outcome: From a worker.
        path: The journal's name for it.
        appear_s: Seconds to wait for the file.

    Raises:
        ClusterError: It does not appear.
        VideoError: It came over the network and cannot be written.
    """
    if outcome.content is not None:
        write_atomically(path, outcome.content)
        return
    deadline, pause_s = time.monotonic() + appear_s, 0.02
    while True:
        try:
            outcome.path.replace(path)
            return
        except FileNotFoundError as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the file that a worker on {outcome.host} wrote must appear in "
                    f"{str(path.parent)!r} within {appear_s:g} s and does not; put results on a "
                    "file system that every machine mounts at the same path"
                ) from error
        time.sleep(pause_s)
        pause_s = min(1.0, 2 * pause_s)
