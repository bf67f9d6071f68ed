"""The grain of a job from file to file: where in the film it is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ..finish.grain import Grain
from ..finish.grain_measure import RUN_FRAMES
from ..video import TimeWindow, VideoError
from ..video.pixels import Frame
from .find_grain import PLACES, ReadRun, grain_of, places_in
from .job import Job

MOST_READ_FRAMES = 240
"""Read from the beginning at most, of a film in which nothing can be found by its time."""


def grain_of_job(job: Job) -> Grain | None:
    """The grain of a job from file to file; None where none is asked for.

    Raises:
        VideoError: The source cannot be read.
        ValueError: The model fails.
    """
    if job.look.grain is None:
        return None
    runs = _runs_of(job) if job.look.grain == "auto" else ()
    return grain_of(job.look, runs, (job.info.width, job.info.height), job.upscaler.upscale)


def _runs_of(job: Job) -> Sequence[ReadRun]:
    """Places of a film: by their times, or of its beginning where that would read all before."""
    info, window = job.info, job.window
    is_short = job.num_frames is not None and job.num_frames <= MOST_READ_FRAMES
    is_indexed = job.source.kind != "film" or any(n in info.container for n in ("mov", "matroska"))
    if is_short or not is_indexed or not info.duration_s:
        total = min(job.num_frames or MOST_READ_FRAMES, MOST_READ_FRAMES)
        return [lambda start=s: _frames_from(job, window, start) for s in places_in(total)]
    start_s = 0.0 if window is None else window.start_s
    length_s = info.duration_s - start_s
    if window is not None and window.duration_s is not None:
        length_s = min(length_s, window.duration_s)
    starts = [TimeWindow(start_s=start_s + length_s * place) for place in PLACES]
    return [lambda at=s: _frames_from(job, at, 0) for s in starts]


def _frames_from(job: Job, window: TimeWindow | None, skipped: int) -> list[Frame]:
    """Some neighbouring frames; none where no frame begins there, or one of another size."""
    try:
        with job.open(window) as reader:
            frames = (frame for frame in reader if not frame.is_context)
            run = [frame.pixels for frame in islice(frames, skipped, skipped + RUN_FRAMES)]
    except VideoError:
        if window is None:
            raise
        return []  # times are as the container claims them
    size = (job.info.height, job.info.width)
    return run if all(pixels.shape[:2] == size for pixels in run) else []
