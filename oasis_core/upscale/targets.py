"""What a job writes in the end: a film, or pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from ..codecs import CODECS, HDR_CODECS
from ..options import Encoding
from ..remote import RemoteFile
from ..video import (
    ClipSource,
    EncodeSpec,
    MuxReport,
    Source,
    VideoError,
    VideoInfo,
    check_destination,
    check_encoder,
    mux,
    trial_mux,
)
from ..video.color import FULL
from ..video.destination import OWN_CODECS
from ..video.image_notes import note_lines
from ..video.image_tags import read_image_tags
from ..video.image_writer import IMAGE_FORMATS
from ..video.info import UNSPECIFIED
from ..video.names import is_pattern
from .animation_target import ANIMATED, GIF, AnimationTarget
from .job import Job
from .journal import Journal
from .picture_target import PictureTarget
from .single_file import SingleFile

DEFAULT_CODEC = "h264"


class Target(Protocol):
    """What a job writes in the end."""

    destination: Path
    """File, pattern or folder, as the user named it."""
    codec: str
    """Codec of the journal's segments, one of `oasis_core.video.CODECS`."""
    format_name: str
    """What the result is for people: its codec, or of pictures their ending."""
    stores_light: bool
    """Whether segments hold amounts of light, as the bits of half-precision numbers."""

    def segment_spec(self, info: VideoInfo, width: int, height: int) -> EncodeSpec:
        """How the journal's segments are encoded, checked against this FFmpeg build."""

    def result(self, job: Job, num_frames: int) -> Source:
        """What is finished, as a source."""

    def outputs(self) -> list[Path]:
        """The files that would be written, as far as that is known."""

    def exists(self) -> bool:
        """Whether there is something that would be replaced."""

    def is_finished(self, journal: Journal) -> bool:
        """Whether an earlier run made the result, and only names or the journal are left."""

    def format_of(self, job: Job) -> tuple[str, int, bool]:
        """Pixel format, bits per component and transparency of the result."""

    def forecast(self, job: Job) -> MuxReport:
        """What `finish` would report, as far as it does not depend on the pictures."""

    def finish(self, job: Job, journal: Journal, facts: dict[str, Any]) -> MuxReport:
        """Make the result of the segments and give it its name."""


class FilmTarget(SingleFile):
    """One video file.

    Args:
        destination: The file.
        encoding: How.
        makes_folder: Whether its folder may be missing, since it will be made.

    Raises:
        VideoError: It cannot be written there.
    """

    def __init__(
        self, destination: Path, encoding: Encoding, *, makes_folder: bool = False
    ) -> None:
        super().__init__(destination)
        self._encoding = encoding
        self.stores_light = False
        usual = OWN_CODECS.get(destination.suffix.lower(), DEFAULT_CODEC)
        self.codec = self.format_name = encoding.codec or usual
        check_destination(destination, self.codec, makes_folder=makes_folder)
        if encoding.quality is not None:
            raise VideoError(
                f"quality is for pictures, got {encoding.quality}; use --crf for a video"
            )

    def segment_spec(self, info: VideoInfo, width: int, height: int) -> EncodeSpec:
        """How segments are encoded, checked against this FFmpeg build."""
        wanted = self._encoding
        spec = EncodeSpec.from_source(
            info,
            codec=self.codec,
            width=width,
            height=height,
            crf=wanted.crf,
            preset=wanted.preset,
            bit_depth=wanted.bit_depth,
            pix_fmt=wanted.pix_fmt,
        )
        check_encoder(spec)
        return spec

    def result(self, job: Job, num_frames: int) -> Source:
        """The finished file as a source."""
        del job, num_frames  # a film is one file whatever is in it
        return Source(path=self.destination, kind="film")

    def format_of(self, job: Job) -> tuple[str, int, bool]:
        """Pixel format, bits and transparency of the result."""
        return job.spec.pixel_format, job.spec.bit_depth, job.spec.has_alpha

    def forecast(self, job: Job) -> MuxReport:
        """What `finish` would report, as far as it does not depend on the pictures."""
        suffix = self.destination.suffix
        muxed = trial_mux(job.source.beside, job.info, job.spec, suffix, window=job.window)
        return MuxReport(kept=muxed.kept, dropped=(*_losses(job), *muxed.dropped))

    def finish(self, job: Job, journal: Journal, facts: dict[str, Any]) -> MuxReport:
        """Join the segments, copy the rest of the source, give the file its name."""
        losses = _losses(job)
        if self.is_finished(journal):
            return MuxReport(kept=(), dropped=losses)
        result = self.place_in(journal)
        muxed = mux(
            [journal.segment_path(record.index) for record in journal.records],
            job.source.beside,
            result,
            job.spec,
            comment="OASIS " + json.dumps(facts) if job.options.metadata else None,
            cut="none" if job.window is None else "both",
        )
        self.give_name(result, job, journal)
        return MuxReport(kept=muxed.kept, dropped=(*losses, *muxed.dropped))


def _losses(job: Job) -> tuple[str, ...]:
    """What the codec or the container cannot keep of the picture itself, one line each."""
    lines = []
    if job.info.has_alpha and not job.spec.has_alpha:
        lines.append(
            f"transparency: {job.spec.codec} has none; use --codec prores (.mov) or ffv1 (.mkv)"
        )
    if job.info.bit_depth > 8 and CODECS[job.spec.codec].depths == (8,):
        lines.append(
            f"{job.info.bit_depth} bits: {job.spec.codec} has 8 here; use --codec h265 or av1"
        )
    if not CODECS[job.spec.codec].full_range and job.spec.color.range == FULL:
        lines.append(
            f"full range: converted to limited, {job.spec.codec} has no other; colours are the same"
        )
    if job.info.is_linear:
        lines.append("light below 0 and above 1: limited, a video holds coded values from 0 to 1")
    if job.info.hdr and job.spec.codec not in HDR_CODECS:
        lines.append(
            f"HDR10 mastering data: not written with {job.spec.codec}; use "
            f"{', '.join(HDR_CODECS)} to keep it"
        )
    lines += job.info.not_kept
    tags_file = job.source.tags_file
    if tags_file is not None:
        tags = read_image_tags(tags_file)
        if tags.icc is not None:
            lines.append("colour profile (ICC): a video has no place for it")
        if tags.exif is not None or tags.has_loose_exif:
            lines.append("camera data (EXIF): not written into a video")
        _, lost = note_lines(tags.notes, job.destination.suffix.lower())
        is_tagged = tags.notes.cicp is not None and job.info.color.transfer != UNSPECIFIED
        lines += [line for line in lost if not (is_tagged and line.startswith("colour tags"))]
    return tuple(lines)


def _plays(source: Source, suffix: str) -> bool:
    """Whether what is made of a source moves; a GIF of one picture is an animation of one."""
    if suffix == GIF or source.kind in ("animation", "clip") or len(source.pictures) > 1:
        return True
    return source.kind == "film" and source.probe().num_frames != 1


def make_target(
    name: str | os.PathLike[str] | RemoteFile | ClipSource | Source,
    destination: Path,
    encoding: Encoding,
    *,
    makes_folder: bool = False,
) -> tuple[Source, Target]:
    """Choose what to write by the destination's ending; a folder is for pictures from pictures.

    What the destination's name alone forbids is said before the source is looked at.

    Args:
        name: What the user named as source.
        destination: What the user named for the result.
        encoding: How to write it.
        makes_folder: Whether the destination's folder may be missing, since it will be made.

    Returns:
        The source, resolved, and what will be written.

    Raises:
        VideoError: The destination cannot be written, or the source means nothing.
    """
    suffix = destination.suffix.lower()
    is_picture = suffix in IMAGE_FORMATS or suffix == GIF
    if not is_picture and suffix and not destination.is_dir():
        film = FilmTarget(destination, encoding, makes_folder=makes_folder)
        return Source.resolve(name), film
    source = Source.resolve(name)
    if suffix in ANIMATED and not is_pattern(destination) and _plays(source, suffix):
        return source, AnimationTarget(destination, encoding, makes_folder=makes_folder)
    if is_picture or source.pictures:
        return source, PictureTarget(destination, source, encoding, makes_folder=makes_folder)
    return source, FilmTarget(destination, encoding, makes_folder=makes_folder)
