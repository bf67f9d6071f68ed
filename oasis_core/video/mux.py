"""Joining segments into the final file, with everything from the source that is not the picture."""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import lcm
from pathlib import Path

import av

from ..codecs import CODECS
from ..remote import RemoteFile, as_source, is_url
from .containers import open_video
from .errors import AV_ERRORS, VideoError, discard, is_refusal, reason, write_error
from .info import describe_stream
from .matroska_aspect import FILLER, display_size, write_display_size
from .passthrough import (
    CONTAINER_KEYS,
    ITUNES_KEYS,
    Passthrough,
    Span,
    add_streams,
    copy_chapters,
    copy_metadata,
    lost_metadata,
)
from .spec import EncodeSpec
from .timeline import Timeline, coded_packets, read_timeline
from .writer import sync

log = logging.getLogger(__name__)

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's muxer by file extension."""

# Broadcast formats start their clock anywhere; there is no zero to be faithful to.
_FREE_CLOCKS = ("mpegts", "mpeg", "mpegtsraw")
_MAX_TIMESCALE = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class MuxReport:
    """What a finished file kept of its source, one line each."""

    kept: tuple[str, ...]
    """What is in the output."""
    dropped: tuple[str, ...]
    """What is not, and why."""


def check_destination(destination: str | Path, codec: str, *, makes_folder: bool = False) -> str:
    """Return the muxer for an output file, or say why it cannot be written; nothing is touched.

    Args:
        destination: the wanted file.
        codec: one of `CODECS`.
        makes_folder: whether its folder may be missing, since it will be made.

    Raises:
        VideoError: unknown extension, a codec the container cannot hold, or no such folder.
    """
    path = Path(destination)
    muxer = CONTAINERS.get(path.suffix.lower())
    if muxer is None:
        raise VideoError(
            f"{str(path)!r} must end in one of {', '.join(CONTAINERS)}, got "
            f"{path.suffix or 'no ending'!r}; the ending chooses the container"
        )
    holders = CODECS[codec].containers if codec in CODECS else tuple(CONTAINERS.values())
    # MOV is MP4 with more room; FFmpeg has a muxer for each.
    kind = "mov" if path.suffix.lower() == ".mov" else muxer
    if kind not in holders:
        ending = {"matroska": ".mkv"}.get(holders[0], f".{holders[0]}")
        needs = {"matroska": "Matroska", "mov": "MOV or Matroska"}.get(
            holders[0], "MP4 or Matroska"
        )
        raise VideoError(
            f"{str(path)!r} cannot hold {codec}, which needs {needs}; name the output "
            f"{path.with_suffix(ending).name!r}"
        )
    if path.is_dir():
        raise VideoError(f"{str(path)!r} is a folder; name a file in it")
    if makes_folder and not path.parent.exists():
        return muxer
    if not path.parent.is_dir():
        raise VideoError(f"the folder {str(path.parent)!r} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise VideoError(
            f"the folder {str(path.parent)!r} is not writable; choose a folder you may write to"
        )
    return muxer


def mux(
    segments: Sequence[str | Path],
    source: str | Path | RemoteFile | None,
    destination: str | Path,
    spec: EncodeSpec,
    *,
    metadata: Mapping[str, str] | None = None,
    comment: str | None = None,
    cut: str = "none",
    most_packets: int | None = None,
) -> MuxReport:
    """Write the final file: the segments' pictures, the source's sound and all else it can hold.

    Nothing is encoded again. PTS are those of the segments, exactly, wherever the container's
    clock can show them (MP4 and MOV get the spec's time base; Matroska rounds to a millisecond).
    The sound is neither cut nor padded. The file is written as `NAME.part` and renamed once it is
    complete and synced.

    Args:
        segments: files of `SegmentWriter`, in order.
        source: where sound, subtitles, chapters, attachments and metadata come from; None for none.
        destination: the file to write; an existing one is replaced.
        spec: what the segments were encoded with.
        metadata: further global metadata.
        comment: a line for the file's comment, below what the source says there.
        cut: "none" copies all of the sound; "end" what begins before the picture ends; "both" what
            begins within the picture, which then starts at 0.
        most_packets: copy no more than so many of what lies beside the picture; None is all.

    Raises:
        VideoError: a file cannot be read or written; the destination is as it was.
    """
    target = Path(destination)
    muxer = check_destination(target, spec.codec)
    is_here = source is not None and not is_url(source)
    if is_here and target.exists() and target.samefile(source):
        raise VideoError(
            f"output {str(target)!r} is the input itself; name another file, the input is never "
            "replaced"
        )
    paths = [Path(segment) for segment in segments]
    timeline = read_timeline(paths)
    part = target.with_name(target.name + ".part")
    try:
        job = _Job(paths, timeline, spec, part, muxer, dict(metadata or {}), comment, cut)
        job.most_packets = most_packets
        report = job.run(None if source is None else as_source(source))
        sync(part)
        part.replace(target)
    except BaseException as error:
        discard(part)
        if isinstance(error, AV_ERRORS) and not isinstance(error, VideoError):
            raise write_error(target, error) from error
        raise
    return report


class _Job:
    """One run of `mux`, once everything is checked."""

    def __init__(
        self,
        segments: list[Path],
        timeline: Timeline,
        spec: EncodeSpec,
        part: Path,
        muxer: str,
        metadata: dict[str, str],
        comment: str | None,
        cut: str,
    ) -> None:
        self._segments = segments
        self._timeline = timeline
        self._spec = spec
        self._part = part
        self._muxer = muxer
        self._metadata = metadata
        self._comment = comment
        self._cut = cut
        self._moved_s = Fraction(0)
        self._refused: list[str] = []
        self.most_packets: int | None = None

    def run(self, source_path: Path | None) -> MuxReport:
        if source_path is None:
            self._write(None, None)
            self._check_picture()
            return MuxReport(kept=(), dropped=())
        source, film = open_video(source_path, allow_truncated=True)
        with source:
            try:
                beside = self._write(source_path, (source, film))
            except AV_ERRORS as error:
                if not is_refusal(error):
                    raise
                beside = self._write_alone(source_path, (source, film), error)
            self._check_picture()
            beside.say_moved(source)
            if self._refused:
                text = f"{len(self._refused)} packets of sound or subtitles that are damaged"
                beside.dropped.append(f"{text} ({self._refused[0]})")
            with av.open(str(self._part.absolute()), metadata_errors="replace") as written:
                beside.dropped += lost_metadata(source, written)
                beside.kept += self._moved(written)
        return MuxReport(kept=tuple(beside.kept), dropped=tuple(beside.dropped))

    def _write_alone(
        self,
        source_path: Path,
        opened: tuple[av.container.InputContainer, av.VideoStream],
        error: BaseException,
    ) -> Passthrough:
        """Write the picture without the streams that FFmpeg cannot put beside it, and say so.

        A render of days must not be lost to its sound.
        """
        self._refused.clear()
        beside = self._write(source_path, opened, is_alone=True)
        source, film = opened
        for stream in source.streams:
            if stream.index != film.index:
                text = "FFmpeg cannot write all that lies beside the picture"
                beside.dropped.append(f"{describe_stream(stream)}: {text} ({reason(error)})")
        return beside

    def _check_picture(self) -> None:
        """Make sure that nothing FFmpeg refused was of the picture.

        Raises:
            VideoError: it was.
        """
        if not self._refused:
            return
        with av.open(str(self._part.absolute()), metadata_errors="replace") as written:
            num_packets = sum(p.size > 0 for p in written.demux(written.streams.video[0]))
        if num_packets != len(self._timeline.pts):
            raise VideoError(
                f"the joined file would have {num_packets} of {len(self._timeline.pts)} frames; "
                "name an output in another container (.mkv, .mp4)"
            )

    def _put(self, packet: av.packet.Packet, output: av.container.OutputContainer) -> None:
        try:
            output.mux(packet)
        except AV_ERRORS as error:
            # FFmpeg sorts packets: it may mean one given earlier, so who is at fault is not known.
            if not is_refusal(error):
                raise
            if not self._refused:
                log.warning("a packet is left out of the copy: %s", error)
            self._refused.append(reason(error))

    def _write(
        self,
        source_path: Path | None,
        opened: tuple[av.container.InputContainer, av.VideoStream] | None,
        *,
        is_alone: bool = False,
    ) -> Passthrough:
        beside, extra, shift = Passthrough(), iter(()), Fraction(0)
        span = self._span()
        options = self._options(opened)
        with av.open(
            str(self._part.absolute()), "w", format=self._muxer, options=options
        ) as output:
            # The template belongs to its container, which stays open until the header is out.
            with av.open(str(self._segments[0].absolute())) as first:
                picture = self._add_picture(output, first.streams.video[0])
                if opened is not None:
                    source, film = opened
                    shift = self._moved_s = self._shift(source)
                    if not is_alone:
                        beside = add_streams(source, source_path, film.index, output)
                    copy_metadata(source, film, output, picture)
                    copy_chapters(source, output, shift, beside, span)
                    extra = beside.packets(source_path, source, shift, span)
                    if shift and self._cut != "both":
                        beside.kept.append(f"times, moved by {float(shift):.3f} s to start at 0")
                output.metadata.update(self._metadata)
                if self._lacks_aspect:
                    picture.metadata["title"] = picture.metadata.get("title", "") + FILLER
                if self._comment is not None:
                    key = next((k for k in output.metadata if k.lower() == "comment"), "comment")
                    earlier = output.metadata.get(key)
                    both = (earlier, self._comment) if earlier else (self._comment,)
                    output.metadata[key] = "\n".join(both)
                output.start_encoding()
            ticks = int(shift / self._timeline.time_base)
            coded = self._bound(coded_packets(self._segments, self._timeline, ticks), picture)
            beside_packets = islice(extra, self.most_packets)
            for packet in heapq.merge(coded, beside_packets, key=_decoding_time):
                self._put(packet, output)
        if self._lacks_aspect:
            spec = self._spec
            size = display_size(spec.width, spec.height, spec.sample_aspect_ratio)
            write_display_size(self._part, size)
        return beside

    @property
    def _lacks_aspect(self) -> bool:
        """Whether neither the codec's bits nor PyAV say what shape a pixel has."""
        is_said = CODECS[self._spec.codec].says_aspect or self._muxer != "matroska"
        return self._spec.sample_aspect_ratio != 1 and not is_said

    def _moved(self, written: av.container.InputContainer) -> list[str]:
        """Return a line if the muxer moved all times: AAC starts before 0, Matroska cannot."""
        stream = written.streams.video[0]
        first = next(p for p in written.demux(stream) if p.size)
        wanted = self._timeline.pts[0] * self._timeline.time_base + self._moved_s
        moved = first.pts * stream.time_base - wanted
        if abs(moved) < Fraction(1, 1000):
            return []
        return [f"times, all moved by {float(moved):.3f} s: this container has none below 0"]

    def _options(
        self, opened: tuple[av.container.InputContainer, av.VideoStream] | None
    ) -> dict[str, str]:
        # bitexact: no random ids, no version strings, so that the same input gives the same file.
        options = {"fflags": "+bitexact"}
        if self._muxer != "matroska":
            options["movflags"] = "+faststart"
            names = {*self._metadata, *(opened[0].metadata if opened else ())}
            # Free names (ComfyUI's "workflow") need Apple's form of metadata, which all of FFmpeg
            # reads; without them the iTunes form does, which more players know.
            if {name.lower() for name in names} - ITUNES_KEYS - CONTAINER_KEYS:
                options["movflags"] += "+use_metadata_tags"
            options["video_track_timescale"] = str(self._timeline.time_base.denominator)
            # Edit lists count in the movie's clock: too coarse a one would move the first frame.
            options["movie_timescale"] = str(_movie_timescale(self._timeline.time_base, opened))
        return options

    def _add_picture(
        self, output: av.container.OutputContainer, template: av.VideoStream
    ) -> av.VideoStream:
        spec, tags = self._spec, self._spec.written_color
        picture = output.add_stream_from_template(template, opaque=True)
        context = picture.codec_context
        context.framerate = spec.frame_rate
        context.sample_aspect_ratio = spec.sample_aspect_ratio
        context.color_primaries = tags.primaries
        context.color_trc = tags.transfer
        context.colorspace = tags.matrix
        context.color_range = tags.range
        if spec.codec.startswith("h265") and self._muxer != "matroska":
            context.codec_tag = "hvc1"  # Apple's players refuse the default, hev1
        return picture

    def _span(self) -> Span | None:
        """Return the piece of the source's clock that belongs to the picture."""
        if self._cut == "none":
            return None
        times, tick = self._timeline, self._timeline.time_base
        start_s = times.pts[0] * tick if self._cut == "both" else None
        return Span(start_s=start_s, stop_s=times.end_pts * tick)

    def _shift(self, source: av.container.InputContainer) -> Fraction:
        """Return seconds to add to all times, in whole ticks: no zero to be true to, or a cut."""
        if self._cut == "both":
            return -self._timeline.pts[0] * self._timeline.time_base
        if source.format.name not in _FREE_CLOCKS or not source.start_time:
            return Fraction(0)
        start = Fraction(source.start_time, av.time_base)
        start = min(start, self._timeline.pts[0] * self._timeline.time_base)
        return -(start // self._timeline.time_base) * self._timeline.time_base

    @staticmethod
    def _bound(
        packets: Iterator[av.packet.Packet], stream: av.VideoStream
    ) -> Iterator[av.packet.Packet]:
        for packet in packets:
            packet.stream = stream
            yield packet


def _decoding_time(packet: av.packet.Packet) -> float:
    return float(packet.dts * packet.time_base)


def _movie_timescale(
    time_base: Fraction, opened: tuple[av.container.InputContainer, av.VideoStream] | None
) -> int:
    """Return a clock in which picture and sound start at whole numbers, if there is one."""
    scale = time_base.denominator
    for stream in opened[0].streams.audio if opened else ():
        finer = lcm(scale, stream.codec_context.sample_rate or 1) if stream.codec_context else scale
        scale = finer if finer <= _MAX_TIMESCALE else scale
    while scale < 1000:
        scale *= 10
    return scale
