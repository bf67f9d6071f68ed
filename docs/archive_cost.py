"""What a lot of video costs on many workers: arithmetic from measured stage times.

Run it as `python docs/archive_cost.py REPORT.json --hours-of-video N`; the report is what
`oasis upscale SRC DST --json` printed on a worker like those to be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
DECODING = ("decode", "shots")
UPSCALING = ("resize", "model", "blend")
ENCODING = ("encode",)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Seconds that one worker takes for one frame, at one size of the result."""

    width: int
    height: int
    decode_s: float
    """Reading a frame and looking for a cut."""
    upscale_s: float
    """Resize, model, blending; the frames that segments share are counted in."""
    encode_s: float
    mux_s: float
    """Joining, on the driver."""
    device: str = "unknown"
    """Where it was measured."""

    def __post_init__(self) -> None:
        for name in ("decode_s", "upscale_s", "encode_s", "mux_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more seconds a frame, got {value}")
        if self.worker_s <= 0:
            raise ValueError("a frame must take some time, got 0 s for all stages")

    @property
    def worker_s(self) -> float:
        """Seconds of a worker for a frame, all stages one after the other."""
        return self.decode_s + self.upscale_s + self.encode_s

    def at(self, width: int, height: int) -> StageTimes:
        """The same worker at another size of the result, in proportion to its pixels."""
        share = width * height / (self.width * self.height)
        return StageTimes(
            width=width,
            height=height,
            decode_s=self.decode_s * share,
            upscale_s=self.upscale_s * share,
            encode_s=self.encode_s * share,
            mux_s=self.mux_s * share,
            device=self.device,
        )


def stage_times(report: dict[str, Any]) -> StageTimes:
    """Stage times from what `oasis upscale --json` printed.

    Args:
        report: One report of a run that was not continued.

    Raises:
        ValueError: It is no such report, or too much of it was done before.
    """
    try:
        seconds, frames = report["seconds"], report["frames"]
        width, height, resumed = report["width"], report["height"], report["num_resumed_segments"]
        sums = [
            sum(seconds[name] for name in names) / frames
            for names in (DECODING, UPSCALING, ENCODING, ("mux",))
        ]
        device = f"{report['device']}, {report['dtype']}, {report['model']}"
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"the report must be one object that 'oasis upscale SRC DST --json' printed ({error!r})"
        ) from error
    if resumed:
        raise ValueError(
            f"the report must be of a run from beginning to end, but {resumed} segments were done "
            "before; run it again with --fresh --overwrite"
        )
    decode, upscale, encode, mux = sums
    return StageTimes(
        width=width, height=height, decode_s=decode, upscale_s=upscale, encode_s=encode,
        mux_s=mux, device=device,
    )  # fmt: skip


def read_stage_times(path: Path) -> StageTimes:
    """Stage times from a file that holds such a report.

    Raises:
        ValueError: It cannot be read or is no such report.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the report {str(path)!r} cannot be read ({error})") from error
    return stage_times(report)


def fleet_plan(
    times: StageTimes,
    *,
    hours_of_video: float,
    num_workers: int,
    frame_rate: float,
    efficiency: float = 1.0,
    dollars_per_hour: float | None = None,
) -> dict[str, Any]:
    """Worker-hours, days and dollars for an archive at each size.

    Args:
        times: Measured.
        hours_of_video: Length of the archive.
        num_workers: Workers like the measured one.
        frame_rate: Frames per second of the archive.
        efficiency: Share of the workers' time that is work, from measurement or simulation.
        dollars_per_hour: What one worker costs; None leaves dollars out.

    Returns:
        JSON values: the measured stages, and one row for each size.

    Raises:
        ValueError: A number is out of range.
    """
    _check_ranges(hours_of_video, num_workers, frame_rate, efficiency, dollars_per_hour)
    rows = []
    for name, size in SIZES.items():
        scaled = times.at(*size)
        per_hour = scaled.worker_s * frame_rate / efficiency
        row = {
            "size": name,
            "is_measured": size == (times.width, times.height),
            "worker_hours_per_hour": per_hour,
            "worker_hours": per_hour * hours_of_video,
            "days": per_hour * hours_of_video / num_workers / 24,
            "driver_hours": scaled.mux_s * frame_rate * hours_of_video,
        }
        if dollars_per_hour is not None:
            row["dollars_per_hour"] = per_hour * dollars_per_hour
            row["dollars"] = per_hour * hours_of_video * dollars_per_hour
        rows.append(row)
    return {
        "measured": asdict(times),
        "hours_of_video": hours_of_video,
        "workers": num_workers,
        "frame_rate": frame_rate,
        "efficiency": efficiency,
        "rows": rows,
    }


def _check_ranges(
    hours_of_video: float,
    num_workers: int,
    frame_rate: float,
    efficiency: float,
    dollars_per_hour: float | None,
) -> None:
    for name, value in (
        ("hours of video", hours_of_video),
        ("workers", num_workers),
        ("frame rate", frame_rate),
        ("efficiency", efficiency),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be more than 0, got {value}")
    if efficiency > 1:
        raise ValueError(f"efficiency must be at most 1, got {efficiency}")
    if dollars_per_hour is not None and not 0 <= dollars_per_hour < math.inf:
        raise ValueError(f"price must be 0 or more dollars an hour, got {dollars_per_hour}")


def fleet_lines(plan: dict[str, Any]) -> list[str]:
    """The plan for people."""
    measured = plan["measured"]
    lines = [
        f"measured at {measured['width']}x{measured['height']} on {measured['device']}: "
        f"{1000 * measured['decode_s']:.1f} ms decode, {1000 * measured['upscale_s']:.1f} ms "
        f"upscale, {1000 * measured['encode_s']:.1f} ms encode a frame",
        f"{plan['hours_of_video']:g} h of video at {plan['frame_rate']:g} frames/s on "
        f"{plan['workers']} such workers, {plan['efficiency']:.0%} of their time work:",
    ]
    for row in plan["rows"]:
        line = (
            f"  {row['size']:5} {row['worker_hours_per_hour']:9.2f} worker-hours per hour of "
            f"video, {row['worker_hours']:,.0f} in all, {row['days']:,.1f} days"
        )
        if "dollars" in row:
            line += f", ${row['dollars_per_hour']:,.2f} per hour, ${row['dollars']:,.0f} in all"
        lines.append(line + ("" if row["is_measured"] else " (in proportion to pixels)"))
    lines.append(f"  joining on the driver: {plan['rows'][0]['driver_hours']:,.1f} h at 720p")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Print the plan; returns the exit code."""
    parser = argparse.ArgumentParser(description="What an archive costs, from one measured run.")
    parser.add_argument("report", type=Path)
    parser.add_argument("--hours-of-video", type=float, required=True, metavar="N")
    parser.add_argument("--workers", type=int, default=1, metavar="M")
    parser.add_argument("--frame-rate", type=float, default=25.0, help="of the archive (25)")
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="of one worker for an hour")
    parser.add_argument(
        "--efficiency", type=float, default=1.0, help="share of the time that is work (1)"
    )
    arguments = parser.parse_args(argv)
    try:
        plan = fleet_plan(
            read_stage_times(arguments.report),
            hours_of_video=arguments.hours_of_video,
            num_workers=arguments.workers,
            frame_rate=arguments.frame_rate,
            efficiency=arguments.efficiency,
            dollars_per_hour=arguments.price,
        )
    except ValueError as error:
        print(f"archive_cost: {error}", file=sys.stderr)
        return 1
    print("\n".join(fleet_lines(plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
