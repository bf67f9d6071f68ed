"""An animated WebP or a GIF as the result of a job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..options import Encoding
from ..video import (
    EncodeSpec,
    MuxReport,
    Source,
    VideoError,
    VideoFrame,
    VideoInfo,
    VideoReader,
    check_encoder,
)
from ..video.animation_writer import loops_of, write_gif, write_webp
from ..video.image_writer import DEFAULT_QUALITY, ImageSpec
from ..video.timeline import read_timeline
from ..video.writer import sync
from ..words import counted
from .job import Job
from .journal import Journal
from .single_file import SingleFile

GIF = ".gif"
ANIMATED = (".webp", GIF)
"""Endings of results that play by themselves."""
MOST_GIF_RATE = 50


class AnimationTarget(SingleFile):
    """One file of pictures that play: animated WebP or GIF.

    While the job runs the frames are lossless video segments in the journal, so that it can be
    stopped and continued like any other.

    Args:
        destination: The file.
        encoding: How the user wants it.
        makes_folder: Whether its folder may be missing, since it will be made.

    Raises:
        VideoError: It cannot be written there.
    """

    codec = "ffv1"
    stores_light = False

    def __init__(
        self, destination: Path, encoding: Encoding, *, makes_folder: bool = False
    ) -> None:
        super().__init__(destination)
        self.suffix = destination.suffix.lower()
        self.format_name = self.suffix.removeprefix(".")
        names = ("codec", "crf", "preset", "bit_depth", "pix_fmt")
        given = [name for name in names if getattr(encoding, name) is not None]
        if self.suffix == GIF and encoding.quality is not None:
            given.append("quality")
        if given:
            rest = "--quality is for WebP" if self.suffix == GIF else "--quality is its own"
            raise VideoError(
                f"{given[0]} means nothing to {self.suffix}, got {getattr(encoding, given[0])!r}; "
                f"leave it out, {rest}"
            )
        self._quality = DEFAULT_QUALITY if encoding.quality is None else encoding.quality
        parent = destination.absolute().parent
        if not parent.is_dir() and not (makes_folder and not parent.exists()):
            raise VideoError(
                f"the folder {str(destination.parent)!r} does not exist; create it first"
            )

    def segment_spec(self, info: VideoInfo, width: int, height: int) -> EncodeSpec:
        """How the segments that hold the frames meanwhile are encoded."""
        self._image_spec(info, width, height)
        spec = EncodeSpec(
            codec=self.codec,
            width=width,
            height=height,
            frame_rate=info.frame_rate,
            time_base=info.time_base,
            bit_depth=8,
            has_alpha=info.has_alpha,
        )
        check_encoder(spec)
        return spec

    def _image_spec(self, info: VideoInfo, width: int, height: int) -> ImageSpec:
        # Of a GIF only its sides are checked by it.
        return ImageSpec(
            suffix=".png" if self.suffix == GIF else ".webp",
            width=width,
            height=height,
            has_alpha=info.has_alpha,
            quality=self._quality,
        )

    def result(self, job: Job, num_frames: int) -> Source:
        """The finished file as a source."""
        del job, num_frames  # one file whatever is in it
        return Source.resolve(self.destination)

    def format_of(self, job: Job) -> tuple[str, int, bool]:
        """Pixel format, bits per component and transparency of the result."""
        if self.suffix == GIF:
            return "pal8", 8, job.info.has_alpha
        return "yuva420p" if job.info.has_alpha else "yuv420p", 8, job.info.has_alpha

    def forecast(self, job: Job) -> MuxReport:
        """What `finish` would report."""
        return MuxReport(kept=(), dropped=tuple(self._losses(job)))

    def finish(self, job: Job, journal: Journal, facts: dict[str, Any]) -> MuxReport:
        """Make the file of the segments and give it its name."""
        del facts  # neither format has a common place for it
        if self.is_finished(journal):
            return self.forecast(job)
        result = self.place_in(journal)
        loops = loops_of(job.source.path) if isinstance(job.source.path, Path) else 0

        def frames() -> Iterator[VideoFrame]:
            return _frames(journal)

        tick = job.spec.time_base
        if self.suffix == GIF:
            write_gif(result, frames, time_base=tick, loops=loops)
        else:
            spec = self._image_spec(job.info, job.look.width, job.look.height)
            write_webp(result, frames, spec, time_base=tick, loops=loops)
        sync(result)
        self.give_name(result, job, journal)
        return self.forecast(job)

    def _losses(self, job: Job) -> Iterator[str]:
        """What such a file cannot hold, one line each."""
        info, name = job.info, "GIF" if self.suffix == GIF else "animated WebP"
        if info.audio_streams:
            yield f"{counted(len(info.audio_streams), 'sound track')}: {name} has none"
        for stream in (*info.subtitle_streams, *info.other_streams):
            yield f"{stream}: {name} has no place for it"
        if info.bit_depth > 8:
            yield f"{info.bit_depth} bits: {name} has 8"
        if info.is_linear:
            yield f"light below 0 and above 1: limited, {name} holds coded values from 0 to 1"
        if info.hdr or info.color.transfer in (16, 18):
            yield f"HDR: {name} has no tags for it, and players take it for standard range"
        if info.sample_aspect_ratio != 1:
            yield f"shape of pixels {info.sample_aspect_ratio}: {name} has square ones"
        if self.suffix == GIF:
            yield "colours: 256 for the whole film, dithered"
            if info.has_alpha:
                yield "soft transparency: a pixel of a GIF is there or not"
            if info.frame_rate > MOST_GIF_RATE:
                yield f"times: {float(info.frame_rate):g} frames per second, a GIF shows 50 at most"
            elif (100 / info.frame_rate).denominator != 1:
                yield "times: rounded to 1/100 s, without drifting"
        elif (1000 / info.frame_rate).denominator != 1:
            yield "times: rounded to 1/1000 s, without drifting"
        yield from info.not_kept


def _frames(journal: Journal) -> Iterator[VideoFrame]:
    """The finished frames at their exact times."""
    paths = [journal.segment_path(record.index) for record in journal.records]
    timeline, place = read_timeline(paths), 0
    for path in paths:
        with VideoReader(path) as reader:
            for frame in reader:
                ends = (*timeline.pts[place + 1 : place + 2], timeline.end_pts)
                start, place = timeline.pts[place], place + 1
                yield replace(frame, pts=start, duration=ends[0] - start)
