"""Make the plots of docs/scale.md from the simulation.

Needs the extra `plot`; run it as `python docs/make_scale_plots.py`. Prints the page's table.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from scale_simulation import Fleet, Outcome, simulate

FOLDER = Path(__file__).parent
WORKERS = (1, 10, 30, 100, 300, 1000, 3000, 10_000)
SEGMENT_FRAMES = 48
# Measured, see the page: CPU time of one core at 320x180, and of the driver for one segment.
SCAN_S_PER_FRAME = 0.0036
DRIVER_S = 0.006
FILM_SEGMENTS = 63  # two minutes at 25 frames/s
CPU_S_PER_FRAME = 0.80
GPU_S_PER_FRAME = 0.02
BYTES_PER_FRAME = 100_000
# About so many segments for each worker, whatever their number, and at least this many films.
ROUNDS = 10
LEAST_FILMS = 20

BASE = Fleet(
    num_workers=1,
    num_films=1,
    segments_per_film=FILM_SEGMENTS,
    segment_s=SEGMENT_FRAMES * CPU_S_PER_FRAME,
    segment_bytes=SEGMENT_FRAMES * BYTES_PER_FRAME,
    scan_s=SEGMENT_FRAMES * SCAN_S_PER_FRAME,
    driver_s=DRIVER_S,
)
PROFILES = {
    "1 CPU core a worker, 0.80 s/frame (measured)": BASE,
    "0.02 s/frame a worker (assumed)": replace(BASE, segment_s=SEGMENT_FRAMES * GPU_S_PER_FRAME),
}


def archive(fleet: Fleet, num_workers: int) -> Outcome:
    """Enough films that each worker has some segments to do."""
    films = max(LEAST_FILMS, ROUNDS * num_workers // fleet.segments_per_film)
    return simulate(replace(fleet, num_workers=num_workers, num_films=films))


def one_film(fleet: Fleet, num_workers: int) -> Outcome:
    """A film of two hours alone."""
    return simulate(replace(fleet, num_workers=num_workers, num_films=1, segments_per_film=3750))


def label_axis(axis: plt.Axes, title: str) -> None:
    """The same look for every panel."""
    axis.set(xscale="log", xlabel="workers", ylabel="efficiency, %", ylim=(0, 110), title=title)
    axis.grid(alpha=0.3)


def main() -> None:
    """Write docs/scale_workers.png and docs/scale_limits.png."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, run, title in (
        (axes[0], archive, "an archive of two-minute films"),
        (axes[1], one_film, "one film of two hours"),
    ):
        for name, fleet in PROFILES.items():
            outcomes = [run(fleet, workers) for workers in WORKERS]
            axis.plot(WORKERS, [100 * o.efficiency for o in outcomes], marker="o", label=name)
            for workers, o in zip(WORKERS, outcomes, strict=True):
                sys.stdout.write(
                    f"| {title} | {name} | {workers} | {o.efficiency:.0%} | {o.driver_busy:.0%} | "
                    f"{o.join_busy:.0%} | {o.storage_busy:.0%} | {o.num_deaths} | "
                    f"{o.most_known} |\n"
                )
        label_axis(axis, title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(FOLDER / "scale_workers.png", dpi=110)

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    variants = {
        "as described": {},
        "a death an hour": {"worker_mtbf_s": 3600.0},
        "5 % stragglers": {"straggler_share": 0.05},
        "storage 1 GB/s": {"storage_bytes_per_s": 1e9},
        "driver's disk 0.2 GB/s": {"driver_bytes_per_s": 2e8},
        "ten drivers": {"driver_s": DRIVER_S / 10, "driver_bytes_per_s": 1e10, "open_films": 2560},
    }
    for axis, (name, fleet) in zip(axes, PROFILES.items(), strict=True):
        for label, changes in variants.items():
            outcomes = [archive(replace(fleet, **changes), workers) for workers in WORKERS]
            axis.plot(WORKERS, [100 * o.efficiency for o in outcomes], marker=".", label=label)
        label_axis(axis, name)
    axes[0].legend(loc="lower left", fontsize=8)
    figure.savefig(FOLDER / "scale_limits.png", dpi=110)


if __name__ == "__main__":
    main()
