"""What a job writes in the end: a film, or pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..digests import file_fingerprint
from ..remote import RemoteFile
from ..video import (
    HDR_CODECS,
    EncodeSpec,
    MuxReport,
    VideoError,
    VideoFrame,
    VideoInfo,
    VideoReader,
    check_destination,
    check_encoder,
    list_images,
    mux,
    trial_mux,
)
from ..video.color import FULL
from ..video.errors import write_error
from ..video.image_tags import ImageTags, read_image_tags
from ..video.image_writer import (
    DEFAULT_QUALITY,
    IMAGE_FORMATS,
    LIGHT_SUFFIX,
    ImageEncoder,
    ImageSpec,
)
from ..video.linear_light import from_half_bits
from ..video.names import find_numbered, first_number, is_pattern, numbered
from ..video.writer import write_atomically
from .job import Job, exists_error
from .journal import IMAGES, Journal, sync_folder
from .options import Encoding
from .picture_report import picture_report

DEFAULT_CODEC = "h264"
PQ_OR_HLG = (16, 18)
"""Transfer characteristics of H.273 that are no sRGB."""


class FilmTarget:
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
        self.destination = destination
        self._encoding = encoding
        self.stores_light = False
        self.codec = self.format_name = encoding.codec or DEFAULT_CODEC
        check_destination(destination, self.codec, makes_folder=makes_folder)
        if encoding.quality is not None:
            raise VideoError(
                f"quality is for pictures, got {encoding.quality}; use --crf for a video"
            )

    def spec(self, info: VideoInfo, width: int, height: int) -> EncodeSpec:
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

    def result_paths(self, job: Job, num_frames: int) -> None:
        """There are no pictures."""

    def exists(self) -> bool:
        """Whether there is something that would be replaced."""
        return self.destination.exists()

    def is_finished(self, journal: Journal) -> bool:
        """Whether an earlier run got as far as naming the result, and only its journal is left."""
        if journal.result is None or not self.destination.is_file():
            return False
        return file_fingerprint(self.destination) == journal.result

    def format_of(self, job: Job) -> tuple[str, int, bool]:
        """Pixel format, bits and transparency of the result."""
        return job.spec.pixel_format, job.spec.bit_depth, job.spec.has_alpha

    def forecast(self, job: Job) -> MuxReport:
        """What `finish` would report, as far as it does not depend on the pictures."""
        suffix = self.destination.suffix
        muxed = trial_mux(job.beside, job.info, job.spec, suffix, window=job.window)
        return MuxReport(kept=muxed.kept, dropped=(*_losses(job), *muxed.dropped))

    def finish(self, job: Job, journal: Journal, facts: dict[str, Any]) -> MuxReport:
        """Join the segments, copy the rest of the source, give the file its name."""
        losses = _losses(job)
        if self.is_finished(journal):
            return MuxReport(kept=(), dropped=losses)
        # Inside the journal's folder, so that a crash leaves nothing beside the destination.
        result = journal.folder / ("result" + self.destination.suffix)
        muxed = mux(
            [journal.segment_path(record.index) for record in journal.records],
            job.beside,
            result,
            job.spec,
            comment="OASIS " + json.dumps(facts) if job.has_metadata else None,
            cut="none" if job.window is None else "both",
        )
        journal.record_result(result)
        if self.exists() and not job.overwrite:
            raise exists_error(self.destination)
        _rename(result, self.destination)
        sync_folder(self.destination.absolute().parent)
        return MuxReport(kept=muxed.kept, dropped=(*losses, *muxed.dropped))


def _losses(job: Job) -> tuple[str, ...]:
    """What the codec or the container cannot keep of the picture itself, one line each."""
    lines = []
    if job.info.has_alpha and not job.spec.has_alpha:
        lines.append(
            f"transparency: {job.spec.codec} has none; use --codec prores (.mov) or ffv1 (.mkv)"
        )
    if job.spec.codec == "prores" and job.spec.color.range == FULL:
        lines.append("full range: converted to limited, prores has no other; colours are the same")
    if job.info.is_linear:
        lines.append("light below 0 and above 1: limited, a video holds coded values from 0 to 1")
    if job.info.hdr and job.spec.codec not in HDR_CODECS:
        lines.append(
            f"HDR10 mastering data: not written with {job.spec.codec}; use "
            f"{', '.join(HDR_CODECS)} to keep it"
        )
    lines += job.info.not_kept
    images = job.images
    if not images and not job.has_streams and isinstance(job.source, Path):
        images = [job.source]  # animated
    if images and read_image_tags(images[0]).icc is not None:
        lines.append("colour profile (ICC): a video has no place for it")
    return tuple(lines)


class PictureTarget:
    """A picture, a numbered sequence, or pictures in a folder under their own names.

    While the job runs the frames are lossless video segments in the journal, so that it can be
    stopped and continued like any other.

    Args:
        destination: A file, a pattern such as `out_%05d.png`, or a folder.
        sources: The pictures that are the source; None for a video.
        encoding: How.
        makes_folder: Whether its folder may be missing, since it will be made.

    Raises:
        VideoError: It cannot be written there.
    """

    codec = "ffv1"

    def __init__(
        self,
        destination: Path,
        sources: list[Path] | None,
        encoding: Encoding,
        *,
        makes_folder: bool = False,
    ) -> None:
        self.destination = destination
        self._sources = sources or []
        self._quality = DEFAULT_QUALITY if encoding.quality is None else encoding.quality
        self._is_folder = destination.suffix.lower() not in IMAGE_FORMATS
        self.suffix = destination.suffix.lower()
        if self._is_folder:
            self.suffix = self._sources[0].suffix.lower()
            self.suffix = self.suffix if self.suffix in IMAGE_FORMATS else ".png"
        names = ("codec", "crf", "preset", "bit_depth", "pix_fmt")
        given = [name for name in names if getattr(encoding, name) is not None]
        if given:
            raise VideoError(
                f"{given[0]} is for videos, got {getattr(encoding, given[0])!r} for pictures "
                f"({self.suffix}); leave it out, --quality is theirs"
            )
        self.format_name = self.suffix.removeprefix(".")
        self.stores_light = self.suffix == LIGHT_SUFFIX
        parent = destination.absolute().parent
        if not parent.is_dir() and not (makes_folder and not parent.exists()):
            raise VideoError(
                f"the folder {str(destination.parent)!r} does not exist; create it first"
            )

    def spec(self, info: VideoInfo, width: int, height: int) -> EncodeSpec:
        """How the segments that hold the frames meanwhile are encoded."""
        is_many = self._is_folder or is_pattern(self.destination)
        if not is_many and info.num_frames != 1:
            pattern = f"{self.destination.stem}_%05d{self.suffix}"
            raise VideoError(
                f"{str(self.destination)!r} holds one picture and the source has "
                f"{info.num_frames or 'more'}; name a sequence such as {pattern!r}"
            )
        if self.stores_light and info.color.transfer in PQ_OR_HLG:
            raise VideoError(
                "the coded values of a PQ or HLG video are not written as light into .exr; write "
                ".png or .tif, which keep 16 bits of them"
            )
        self.image_spec(info, width, height)
        kind = IMAGE_FORMATS[self.suffix]
        spec = EncodeSpec(
            codec=self.codec,
            width=width,
            height=height,
            frame_rate=info.frame_rate,
            time_base=info.time_base,
            bit_depth=16 if self.stores_light or min(info.bit_depth, kind.max_bits) > 8 else 8,
            has_alpha=info.has_alpha and kind.has_alpha,
        )
        check_encoder(spec)
        return spec

    def image_spec(self, info: VideoInfo, width: int, height: int) -> ImageSpec:
        """How the pictures are encoded."""
        return ImageSpec(
            suffix=self.suffix,
            width=width,
            height=height,
            bits=info.bit_depth,
            has_alpha=info.has_alpha,
            is_linear=info.is_linear,
            quality=self._quality,
        )

    def result_paths(self, job: Job, num_frames: int) -> list[Path]:
        """The pictures of a finished job, in order."""
        folder = self.destination if self._is_folder else self.destination.parent
        first = self._first(job)
        return [folder / self._name(index, first) for index in range(num_frames)]

    def exists(self) -> bool:
        """Whether there is something that would be replaced."""
        if self._is_folder:
            names = [self.destination / (p.stem + self.suffix) for p in self._sources]
            return any(name.exists() for name in names)
        if not is_pattern(self.destination):
            return self.destination.exists()
        return self.destination.absolute().parent.is_dir() and bool(find_numbered(self.destination))

    def is_finished(self, journal: Journal) -> bool:
        """Whether all pictures were made and only their names are missing, some perhaps."""
        return journal.result is not None

    def format_of(self, job: Job) -> tuple[str, int, bool]:
        """Pixel format, bits and transparency of the result."""
        spec = self.image_spec(job.info, job.look.width, job.look.height)
        kind = IMAGE_FORMATS[self.suffix]
        bits = 16 if self.stores_light or min(spec.bits, kind.max_bits) > 8 else 8
        return spec.pixel_format, bits, spec.has_alpha and kind.has_alpha

    def forecast(self, job: Job) -> MuxReport:
        """What `finish` would report."""
        return self._report(job)

    def finish(self, job: Job, journal: Journal, facts: dict[str, Any]) -> MuxReport:
        """Turn the segments into pictures, then give all of them their names."""
        del facts  # pictures have no common place for it
        folder = journal.folder / IMAGES
        spec = self.image_spec(job.info, job.look.width, job.look.height)
        if not self.is_finished(journal):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self._encode(job, journal, spec, folder)
            for path in (folder, journal.folder):  # no name may be lost when the next line is not
                sync_folder(path)
            journal.record_done({"pictures": sum(r.num_frames for r in journal.records)})
            if self.exists() and not job.overwrite:
                raise exists_error(self.destination)
        self._name_all(folder)
        return self._report(job)

    def _report(self, job: Job) -> MuxReport:
        spec = self.image_spec(job.info, job.look.width, job.look.height)
        tags = read_image_tags(self._sources[0]) if self._sources else ImageTags()
        return picture_report(job, spec, tags)

    def _encode(self, job: Job, journal: Journal, spec: ImageSpec, folder: Path) -> None:
        encoder = ImageEncoder(spec)
        first = self._first(job)
        sources = self._sources[first:]
        for index, (frame, source) in enumerate(zip_longest(_frames(journal), sources)):
            if frame is None:
                break
            tags = ImageTags() if source is None else read_image_tags(source)
            light = from_half_bits(frame.pixels) if self.stores_light else None
            data = encoder.encode(frame.pixels, frame.alpha, tags, light)
            write_atomically(folder / f"{self._name(index, first)}", data)

    def _first(self, job: Job) -> int:
        """Number of the first picture of the piece to do, from 0."""
        if job.window is None or not self._sources:
            return 0
        return job.window.ticks(0, job.info.time_base)[0]

    def _name(self, index: int, first: int) -> str:
        if self._is_folder:
            return self._sources[first + index].stem + self.suffix
        if not is_pattern(self.destination):
            return self.destination.name
        start = first_number(self._sources[0]) if self._sources else 1
        return numbered(self.destination, start + first + index).name

    def _name_all(self, folder: Path) -> None:
        target = self.destination if self._is_folder else self.destination.absolute().parent
        target.mkdir(exist_ok=True)
        # No folder: an earlier run had named all and was killed while it cleaned up.
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            _rename(path, target / path.name)
        sync_folder(target)
        sync_folder(target.absolute().parent)


def _frames(journal: Journal) -> Iterator[VideoFrame]:
    for record in journal.records:
        with VideoReader(journal.segment_path(record.index)) as reader:
            yield from reader


def _rename(path: Path, target: Path) -> None:
    try:
        try:
            path.replace(target)
        except FileExistsError:  # some network drives; the journal still has the result
            target.unlink()
            path.replace(target)
    except OSError as error:
        raise write_error(target, error) from error


def make_target(
    source: Path | RemoteFile,
    destination: Path,
    encoding: Encoding,
    *,
    makes_folder: bool = False,
) -> FilmTarget | PictureTarget:
    """Choose what to write by the destination's ending; a folder is for pictures from pictures.

    Args:
        source: What the user named.
        destination: Likewise.
        encoding: How to write it.
        makes_folder: Whether the destination's folder may be missing, since it will be made.

    Raises:
        VideoError: It cannot be written there.
    """
    suffix = destination.suffix.lower()
    if suffix in IMAGE_FORMATS:
        sources = list_images(source)
        return PictureTarget(destination, sources, encoding, makes_folder=makes_folder)
    if not suffix or destination.is_dir():
        sources = list_images(source)
        if sources:
            return PictureTarget(destination, sources, encoding, makes_folder=makes_folder)
    return FilmTarget(destination, encoding, makes_folder=makes_folder)
