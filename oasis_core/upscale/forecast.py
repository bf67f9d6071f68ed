"""What a job would do, said before it is begun and without writing anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .job import Job
from .journal import Journal, journal_path, unfinished_plan

if TYPE_CHECKING:
    from .plan import Plan
    from .targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The facts of a file that is not upscaled yet."""

    source: str
    """Path of the input."""
    destination: str
    """Path of the output."""
    frames: int | None
    """Frames that will be done; None where only reading the whole file tells."""
    source_width: int
    """Pixels of the input."""
    source_height: int
    """Pixels of the input."""
    width: int
    """Pixels of the output."""
    height: int
    """Pixels of the output."""
    frame_rate: str
    """Average frames per second, a fraction."""
    codec: str
    """Codec of the output; of pictures their ending."""
    pixel_format: str
    """FFmpeg's name of what is stored."""
    bit_depth: int
    """Bits per component of the output."""
    has_alpha: bool
    """Whether the output has transparency."""
    plan: Plan
    """How the job would be cut up."""
    device: str
    """Where the model would run."""
    model: str
    """Name of the model."""
    kept: tuple[str, ...]
    """Other streams and data that the output would have, one line each."""
    dropped: tuple[str, ...]
    """What it could not keep, and why."""
    done_segments: int
    """Segments that an earlier run has finished."""
    done_frames: int
    """Frames in them."""
    is_replacing: bool
    """Whether an existing file would be replaced."""
    comparison: str | None
    """Path of the comparison, if one is wanted."""

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain JSON values."""
        lists = {"kept": list(self.kept), "dropped": list(self.dropped)}
        return {"dry_run": True} | asdict(self) | lists | {"plan": self.plan.to_json()}


def make_forecast(
    job: Job,
    target: Target,
    plan: Plan,
    *,
    comparison: Path | None,
    is_fresh: bool,
) -> Forecast:
    """Describe a job that was prepared.

    Args:
        job: What is to be done.
        target: Where to.
        plan: How it would be cut up if nothing were done yet.
        comparison: Where a comparison would lie; None for none.
        is_fresh: Whether an unfinished run would be forgotten.

    Raises:
        JournalError: An unfinished run was made with something else.
    """
    folder, done = journal_path(job.destination), []
    earlier = None if is_fresh else unfinished_plan(folder, job.identity())
    if earlier is not None:
        plan, done = plan.following(earlier), Journal.read_records(folder)
    muxed = target.forecast(job)
    pixel_format, bit_depth, has_alpha = target.format_of(job)
    return Forecast(
        source=str(job.source),
        destination=str(job.destination),
        frames=job.num_frames,
        source_width=job.info.width,
        source_height=job.info.height,
        width=job.look.width,
        height=job.look.height,
        frame_rate=str(job.info.frame_rate),
        codec=target.format_name,
        pixel_format=pixel_format,
        bit_depth=bit_depth,
        has_alpha=has_alpha,
        plan=plan,
        device=str(job.upscaler.device),
        model=job.upscaler.name,
        kept=muxed.kept,
        dropped=muxed.dropped,
        done_segments=len(done),
        done_frames=sum(record.num_frames for record in done),
        is_replacing=target.exists(),
        comparison=None if comparison is None else str(comparison),
    )
