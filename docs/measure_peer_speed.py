"""How long a frame takes from decoded 8-bit pixels to 8-bit pixels, here and with peers' weights.

    python docs/measure_peer_speed.py animevideov3=FILE.param x4plus=FILE.param --threads 2

320x180 to 1280x720, one process, rounds in turn, the best of each: a busy moment strikes all alike.
Wall time is what a user waits; CPU time tells, with one thread, what was computed on a machine that
others use, too. Files of peers: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import oasis_core
from oasis_core.evaluation.peers import find_peers
from oasis_core.video import VideoReader

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
SIZE, SCALE = (320, 180), 4
Work = Callable[[list[np.ndarray]], list[np.ndarray]]


def read_frames(count: int) -> list[np.ndarray]:
    """Frames of the bundled clip as `h w 3` uint8, cut or repeated to the size measured."""
    with VideoReader(CLIP) as reader:
        frames = [frame.pixels for frame in itertools.islice(reader, count)]
    width, height = SIZE
    wide = [np.tile(frame, (2, 2, 1))[:height, :width] for frame in frames]
    return [np.ascontiguousarray(frame) for frame in wide]


def measure(work: Work, frames: list[np.ndarray]) -> tuple[float, float]:
    """Wall and CPU seconds a frame."""
    start, cpu = time.perf_counter(), time.process_time()
    results = work(frames)
    seconds = time.perf_counter() - start, time.process_time() - cpu
    wanted = (SIZE[1] * SCALE, SIZE[0] * SCALE, 3)
    if [r.shape for r in results] != [wanted] * len(frames) or results[0].dtype != np.uint8:
        raise ValueError(f"{len(frames)} frames of {wanted} uint8 must come back")
    return seconds[0] / len(frames), seconds[1] / len(frames)


def ours(upscaler: oasis_core.VideoUpscaler) -> Work:
    """The engine's own path for frames as they come."""
    return lambda frames: list(upscaler.upscale_frames(frames, scale=SCALE))


def theirs(peer: object) -> Work:
    """A peer frame by frame."""

    def work(frames: list[np.ndarray]) -> list[np.ndarray]:
        size = (SIZE[0] * SCALE, SIZE[1] * SCALE)
        results = []
        for frame in frames:
            picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
            restored = (peer.restore(picture, size) * 255).round().to(torch.uint8)
            results.append(restored[0].permute(1, 2, 0).contiguous().numpy())
        return results

    return work


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("peers", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=16, help="for the model here")
    parser.add_argument(
        "--peer-frames", type=int, default=2, help="for peers, which see one at a time"
    )
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    works = {}
    for text, has_transformer in (("", True), (", without its transformer", False)):
        upscaler = oasis_core.load(
            "oasis-tiny", "cpu", arguments.dtype, transformer=has_transformer
        )
        name = f"oasis-tiny{text}, {str(upscaler.dtype).removeprefix('torch.')}"
        works[name] = (ours(upscaler), arguments.frames)
    for peer in find_peers(
        arguments.peers, lambda path: oasis_core.load(path, "cpu", arguments.dtype)
    ):
        works[peer.name] = (theirs(peer), arguments.peer_frames)
    frames = read_frames(max(arguments.frames, arguments.peer_frames))
    best: dict[str, tuple[float, float]] = {}
    for number in range(arguments.rounds):
        for name, (work, count) in works.items():
            found = measure(work, frames[:count])
            known = best.get(name, found)
            best[name] = (min(found[0], known[0]), min(found[1], known[1]))
            print(f"round {number + 1}, {name}: {found[0]:.3f} s, CPU {found[1]:.3f} s", flush=True)
    (first_wall, first_cpu), *_ = best.values()
    print(
        "\n| | s/frame | times ours | CPU s/frame | times ours |\n| --- | --- | --- | --- | --- |"
    )
    for name, (wall, cpu) in best.items():
        print(
            f"| {name} | {wall:.3f} | {wall / first_wall:.2f} | {cpu:.3f} | {cpu / first_cpu:.2f} |"
        )


if __name__ == "__main__":
    main()
