"""Pictures as the result of a job: one, a numbered sequence, or a folder of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import zip_longest
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
from ..video.image_notes import note_lines
from ..video.image_tags import ImageTags, fitting_tags, is_rgb_profile, read_image_tags
from ..video.image_writer import (
    DEFAULT_QUALITY,
    IMAGE_FORMATS,
    LIGHT_SUFFIX,
    ImageEncoder,
    ImageSpec,
)
from ..video.linear_light import from_half_bits, read_exr_header
from ..video.names import distinct, find_numbered, is_pattern, numbered
from ..video.writer import give_name, write_atomically
from ..words import counted
from .job import Job, exists_error
from .journal import IMAGES, Journal, sync_folder

PQ_OR_HLG = (16, 18)
"""Transfer characteristics of H.273 that are no sRGB."""


class PictureTarget:
    """A picture, a numbered sequence, or pictures in a folder under their own names.

    While the job runs the frames are lossless video segments in the journal, so that it can be
    stopped and continued like any other.

    Args:
        destination: A file, a pattern such as `out_%05d.png`, or a folder.
        source: What is read.
        encoding: How the user wants them.
        makes_folder: Whether its folder may be missing, since it will be made.

    Raises:
        VideoError: It cannot be written there.
    """

    codec = "ffv1"

    def __init__(
        self,
        destination: Path,
        source: Source,
        encoding: Encoding,
        *,
        makes_folder: bool = False,
    ) -> None:
        self.destination = destination
        self._source = source
        self._lost_of_others: dict[str, None] = {}
        self._quality = DEFAULT_QUALITY if encoding.quality is None else encoding.quality
        self._is_folder = destination.suffix.lower() not in IMAGE_FORMATS
        self.suffix = destination.suffix.lower()
        if self._is_folder:
            self.suffix = source.pictures[0].suffix.lower()
            self.suffix = self.suffix if self.suffix in IMAGE_FORMATS else ".png"
        self._names = distinct(source.pictures, lambda _: self.suffix) if self._is_folder else []
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

    def segment_spec(self, info: VideoInfo, width: int, height: int) -> EncodeSpec:
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

    def result(self, job: Job, num_frames: int) -> Source:
        """The pictures of a finished job as a source, numbered like what they were made of."""
        folder = self.destination if self._is_folder else self.destination.parent
        places = range(self._first(job), self._first(job) + num_frames)
        pictures = [folder / self._name(place) for place in places]
        numbers = [self._number(place) for place in places]
        return Source.of_pictures(self.destination, pictures, numbers)

    def outputs(self) -> list[Path]:
        """The files that would be written, where that is known, and those with such names."""
        if self._is_folder:
            return [self.destination / name for name in self._names]
        if not is_pattern(self.destination):
            return [self.destination]
        wanted = [numbered(self.destination, number) for number in self._source.numbers]
        return [*wanted, *self._of_its_names()]

    def exists(self) -> bool:
        """Whether there is something that would be replaced."""
        if is_pattern(self.destination) and not self._is_folder:
            return bool(self._of_its_names())
        return any(path.exists() for path in self.outputs())

    def _of_its_names(self) -> list[Path]:
        """What lies there already under a name of the pattern."""
        if not self.destination.absolute().parent.is_dir():
            return []
        return [path for _, path in find_numbered(self.destination)]

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
            if self.exists() and not job.options.overwrite:
                raise exists_error(self.destination)
        self._name_all(folder)
        return self._report(job)

    def _report(self, job: Job) -> MuxReport:
        spec = self.image_spec(job.info, job.look.width, job.look.height)
        pictures = self._source.pictures
        tags = read_image_tags(pictures[0]) if pictures else ImageTags()
        report = picture_report(job, spec, tags)
        others = [line for line in self._lost_of_others if line not in report.dropped]
        dropped = (*report.dropped, *others, *self._other_endings())
        return MuxReport(kept=report.kept, dropped=dropped)

    def _other_endings(self) -> list[str]:
        """What becomes of the endings of a folder's pictures, one line for each that changes."""
        if not self._is_folder:
            return []
        changed: dict[str, list[str]] = {}
        for picture in self._source.pictures:
            if picture.suffix.lower() != self.suffix:
                changed.setdefault(picture.suffix.lower(), []).append(picture.name)
        return [
            f"ending {suffix}: {names[0]!r}{f' and {len(names) - 1} more' * (len(names) > 1)} "
            f"written as {self.suffix}, one kind for all; name a pattern such as out_%05d.png for "
            "another"
            for suffix, names in changed.items()
        ]

    def _encode(self, job: Job, journal: Journal, spec: ImageSpec, folder: Path) -> None:
        encoder = ImageEncoder(spec)
        first = self._first(job)
        sources = self._source.pictures[first:]
        places = zip_longest(_frames(journal), sources)
        for place, (frame, source) in enumerate(places, start=first):
            if frame is None:
                break
            tags = ImageTags() if source is None else read_image_tags(source)
            self._lost_of_others |= dict.fromkeys(tag_lines(tags, spec)[1])
            light = from_half_bits(frame.pixels) if self.stores_light else None
            data = encoder.encode(frame.pixels, frame.alpha, tags, light)
            write_atomically(folder / self._name(place), data)

    def _first(self, job: Job) -> int:
        """Number of the first picture of the piece to do, from 0."""
        if job.window is None or not self._source.pictures:
            return 0
        return job.window.ticks(0, job.info.time_base)[0]

    def _name(self, place: int) -> str:
        """The name of the picture at a place in the source, from 0."""
        if self._is_folder:
            return self._names[place]
        if not is_pattern(self.destination):
            return self.destination.name
        return numbered(self.destination, self._number(place)).name

    def _number(self, place: int) -> int:
        """The number of the picture at a place in the source: that of a still, or from 1."""
        return self._source.numbers[place] if self._source.numbers else place + 1

    def _name_all(self, folder: Path) -> None:
        target = self.destination if self._is_folder else self.destination.absolute().parent
        target.mkdir(exist_ok=True)
        # No folder: an earlier run had named all and was killed while it cleaned up.
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            give_name(path, target / path.name)
        sync_folder(target)
        sync_folder(target.absolute().parent)


def _frames(journal: Journal) -> Iterator[VideoFrame]:
    for record in journal.records:
        with VideoReader(journal.segment_path(record.index)) as reader:
            yield from reader


def picture_report(job: Job, spec: ImageSpec, tags: ImageTags) -> MuxReport:
    """What pictures kept of their source, and what not.

    Args:
        job: What was done.
        spec: How the pictures are written.
        tags: Profile and camera data of the first picture of the source.
    """
    kept, dropped = tag_lines(tags, spec)
    dropped = [*spec.losses, *dropped, *job.info.not_kept]
    if job.info.is_linear:
        dropped += _light_losses(job)
    if job.info.audio_streams:
        dropped.append(f"{counted(len(job.info.audio_streams), 'sound track')}: pictures have none")
    for stream in (*job.info.subtitle_streams, *job.info.other_streams):
        dropped.append(f"{stream}: pictures have none")
    return MuxReport(kept=tuple(kept), dropped=tuple(dropped))


def tag_lines(tags: ImageTags, spec: ImageSpec) -> tuple[list[str], list[str]]:
    """Return a line for each thing beside the pixels that is kept, and for each that is not.

    Args:
        tags: Of a picture of the source.
        spec: How the pictures are written.
    """
    kept, dropped = [], []
    fitting = fitting_tags(tags, spec.suffix)
    if tags.icc is not fitting.icc:
        dropped.append("colour profile (ICC): too large for JPEG")
    elif tags.icc is not None and not is_rgb_profile(tags.icc):
        model = tags.icc[16:20].decode("latin-1").strip()
        dropped.append(f"colour profile (ICC): it is for {model}, and the result is RGB")
    elif tags.icc is not None:
        has_place = spec.suffix != LIGHT_SUFFIX
        (kept if has_place else dropped).append(
            "colour profile (ICC)" + ("" if has_place else f": {spec.suffix} has no place for it")
        )
    if tags.exif is not fitting.exif:
        dropped.append("camera data (EXIF): too large for JPEG")
    elif tags.exif is not None and spec.suffix not in (".tif", ".tiff", LIGHT_SUFFIX):
        kept.append("camera data (EXIF), with its orientation set to upright")
    elif tags.exif is not None:
        dropped.append(f"camera data (EXIF): not written into {spec.suffix}")
    elif tags.has_loose_exif:
        dropped.append("camera data (EXIF): not taken out of a TIFF")
    more_kept, more_dropped = note_lines(tags.notes, spec.suffix)
    return kept + more_kept, dropped + more_dropped


def _light_losses(job: Job) -> list[str]:
    """What an OpenEXR source has that is not read, one line each."""
    lines = []
    header = read_exr_header(job.info.path)
    if header.other_channels:
        names = ", ".join(header.other_channels)
        lines.append(f"channels {names}: only R, G, B, A and Y are read")
    if header.attributes:
        lines.append(f"header attributes {', '.join(header.attributes)}: not written")
    if header.is_deep and job.stores_light:
        lines.append("32-bit numbers: written as half, which has 11 bits and ends at 65504")
    return lines
