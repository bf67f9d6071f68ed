"""What a job is, in one line, before its first frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is about to be done; as text, a line for the person who asked for it."""

    source: str
    """Name of what is read, without its folder."""
    frames: int | None
    """Frames that will be done; None where only reading the whole file tells."""
    source_size: tuple[int, int]
    """(width, height) of the input in pixels."""
    size: tuple[int, int]
    """(width, height) of the result in pixels."""
    model: str
    """Name of the model."""
    device: str
    """Where it runs."""
    done_frames: int
    """Frames that an earlier run has finished."""

    @classmethod
    def of(cls, job: Job, done_frames: int) -> Outline:
        """The outline of a job that is ready.

        Args:
            job: What is to be done.
            done_frames: Frames that an earlier run has finished.
        """
        return cls(
            source=job.source.name,
            frames=job.num_frames,
            source_size=(job.info.width, job.info.height),
            size=(job.look.width, job.look.height),
            model=job.upscaler.name,
            device=str(job.upscaler.device),
            done_frames=done_frames,
        )

    def __str__(self) -> str:
        frames = "frames" if self.frames is None else f"{self.frames:,} frames"
        frames = "1 frame" if self.frames == 1 else frames
        done = f", {self.done_frames:,} of them done already" if self.done_frames else ""
        from_to = " to ".join("{}x{}".format(*size) for size in (self.source_size, self.size))
        return f"{self.source}: {frames}{done}, {from_to}, {self.model} on {self.device}"
