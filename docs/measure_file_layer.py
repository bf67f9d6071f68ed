"""Measure what the journal and the joining of segments cost: `python docs/measure_file_layer.py`.

One run from file to file; the seconds spent in the journal (checksums, writing, syncing) and in
the final joining are counted inside it, so that both share whatever else the machine does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import oasis_core  # noqa: E402 - the path first
from oasis_core.upscale import journal, run, targets, upscaling_files  # noqa: E402

CLIP = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"


class Counted:
    """Adds up the seconds that some functions take; of nested ones the outer counts."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of `owner.name` from now on."""
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            self._depth += 1
            begun = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - begun

        setattr(owner, name, timed)


def main() -> None:
    """Run once and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--strength", type=float, default=1)
    parser.add_argument("--segment", type=int, help="frames of a segment")
    arguments = parser.parse_args()
    noting, joining = Counted(), Counted()
    for name in ("__init__", "start", "record", "record_done", "remove"):
        noting.watch(journal.Journal, name)
    noting.watch(run, "file_sha256")
    joining.watch(targets.FilmTarget, "finish")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        report = upscaling_files.upscale_file(
            arguments.clip,
            Path(folder) / "out.mp4",
            upscaler=oasis_core.load(),
            scale=arguments.scale,
            strength=arguments.strength,
            segment_frames=arguments.segment,
        )
    total = report.seconds["total"]
    # What is noted while joining belongs to both; it is counted once.
    both = noting.seconds + joining.seconds
    print(f"{report.frames} frames in {report.num_segments} segments, {total:.1f} s")
    print(f"journal {noting.seconds:.3f} s = {noting.seconds / total:.2%}")
    print(f"joining {joining.seconds:.3f} s = {joining.seconds / total:.2%}")
    print(f"together at most {both / total:.2%}")


if __name__ == "__main__":
    main()
