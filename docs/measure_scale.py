"""Measure what docs/scale.md says of this machine; needs the extra `cluster` and Linux.

    python docs/measure_scale.py stages      # CPU time by stage; a report for bench --plan
    python docs/measure_scale.py efficiency  # two workers against two plain runs, in turn
    python docs/measure_scale.py handing     # frames through Ray, as separate pools would need it

`efficiency` wants two idle cores: for five minutes at 48 frames, a film too short to be typical, or
nine at 120. CPU times are valid on a busy machine too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SIZE = (320, 180)
PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


def write_film(path: Path, num_frames: int) -> Path:
    """A film of moving texture, the same each time."""
    import av
    import numpy as np

    rng = np.random.default_rng(0)
    base = np.kron(rng.integers(0, 256, (SIZE[1] // 4 + 1, SIZE[0] // 4, 3)), np.ones((4, 4, 1)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for t in range(num_frames):
            grain = rng.integers(-6, 7, base.shape)
            pixels = np.clip(np.roll(base, t, 1) + grain, 0, 255).astype(np.uint8)[: SIZE[1]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def stages(folder: Path, num_frames: int) -> dict[str, Any]:
    """Stage times of one thread, as CPU time in place of time by the clock."""
    import torch

    import oasis_core
    from oasis_core.upscale import run, segment

    torch.set_num_threads(1)
    clock = SimpleNamespace(perf_counter=time.process_time)
    run.time = segment.time = clock
    film = write_film(folder / "film.mkv", num_frames)
    upscaler = oasis_core.load(device="cpu")
    report = oasis_core.upscale_file(film, folder / "out.mkv", model=upscaler, scale=4).to_json()
    (Path.cwd() / "stages.json").write_text(json.dumps(report), encoding="utf-8")
    sys.stdout.write("written: stages.json, for oasis bench --plan --report\n")
    per_frame = {k: round(v / num_frames, 4) for k, v in report["seconds"].items() if k != "total"}
    return {"dtype": report["dtype"], "cpu_s_per_frame": per_frame}


def cpu_s() -> float:
    """CPU time so far of this process and all below it; orphans are ours, see `main`."""
    parents, used = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    total = 0.0
    for process in used:
        ancestor = process
        while ancestor not in (0, 1, os.getpid()):
            ancestor = parents.get(ancestor, 0)
        total += used[process] * (ancestor == os.getpid())
    return total


def _plain(core: int, film: Path, out: Path, barrier: Any) -> None:
    os.sched_setaffinity(0, {core})
    import torch

    import oasis_core
    from oasis_core.upscale.memory import keep_freed_memory

    keep_freed_memory()  # as the command and the workers do
    torch.set_num_threads(1)
    upscaler = oasis_core.load(device="cpu", dtype="bfloat16")
    barrier.wait()
    oasis_core.upscale_file(film, out, model=upscaler, scale=4)
    barrier.wait()
    barrier.wait()  # until the CPU time was read


def two_plain(film: Path, folder: Path, cores: list[int]) -> tuple[float, float]:
    """Seconds by the clock and of CPU for two plain runs side by side, without their start."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    jobs = [
        context.Process(target=_plain, args=(core, film, folder / f"plain{n}.mkv", barrier))
        for n, core in enumerate(cores)
    ]
    for job in jobs:
        job.start()
    barrier.wait()
    begun, used = time.monotonic(), cpu_s()
    barrier.wait()
    result = time.monotonic() - begun, cpu_s() - used
    barrier.wait()
    for job in jobs:
        job.join()
    return result


def two_workers(film: Path, folder: Path) -> tuple[float, float]:
    """The same two films through two Ray workers, without their start."""
    from oasis_core.cluster import Cluster

    with Cluster(device="cpu", dtype="bfloat16", num_workers=2) as cluster:
        while not all(member.facts for member in cluster.pool._members):
            time.sleep(0.05)
        begun, used = time.monotonic(), cpu_s()
        with ThreadPoolExecutor(2) as threads:
            names = [folder / f"ray{n}.mkv" for n in range(2)]
            list(threads.map(lambda out: cluster.upscale_file(film, out, scale=4), names))
        return time.monotonic() - begun, cpu_s() - used


def efficiency(folder: Path, num_frames: int, rounds: int) -> dict[str, Any]:
    """Plain and Ray in turn; ratios of each pair, so that a drift of the machine cancels."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = [allowed[0], allowed[-1]]
    film = write_film(folder / "film.mkv", num_frames)
    pairs = []
    for number in range(rounds):
        here = folder / str(number)
        here.mkdir()
        plain, ray = two_plain(film, here, cores), two_workers(film, here)
        expected = (here / "plain0.mkv").read_bytes()
        assert all((here / f"ray{n}.mkv").read_bytes() == expected for n in range(2))
        pairs.append(
            {"plain_s": plain[0], "ray_s": ray[0], "plain_cpu": plain[1], "ray_cpu": ray[1]}
        )
        sys.stdout.write(json.dumps(pairs[-1]) + "\n")
        sys.stdout.flush()
    return {
        "cores": cores,
        "efficiency_by_the_clock": statistics.median(p["plain_s"] / p["ray_s"] for p in pairs),
        "efficiency_by_cpu_time": statistics.median(p["plain_cpu"] / p["ray_cpu"] for p in pairs),
    }


def handing(num_frames: int) -> dict[str, Any]:
    """CPU time to hand a 1280x720 frame from one process to another through Ray, both ways."""
    import numpy as np

    from oasis_core.cluster.connect import connect, import_ray

    ray = import_ray()
    connect(ray, None, 1)

    @ray.remote
    class Other:
        def work(self, frames: np.ndarray) -> np.ndarray:
            return frames + 1  # has to touch every byte, as an encoder has

    other, frames = Other.remote(), np.zeros((8, 720, 1280, 3), np.uint8)
    ray.get(other.work.remote(frames))
    begun, used = time.monotonic(), cpu_s()
    for _ in range(num_frames // 8):
        ray.get(other.work.remote(ray.put(frames)))
    result = {"clock_ms": time.monotonic() - begun, "cpu_ms": cpu_s() - used}
    ray.shutdown()
    begun = time.process_time()
    for _ in range(num_frames // 8):
        frames + 1
    result["of_it_work_ms"] = time.process_time() - begun
    return {name: round(1000 * value / num_frames, 2) for name, value in result.items()}


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("stages", "efficiency", "handing"))
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    # Ray's servers are orphans: let them come to this process, so that their time is seen.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        if arguments.what == "stages":
            result = stages(Path(name), arguments.frames)
        elif arguments.what == "efficiency":
            result = efficiency(Path(name), arguments.frames, arguments.rounds)
        else:
            result = handing(arguments.frames)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
