"""Joining segments into the final file, with everything from the source that is not the picture."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer

from ..codecs import CODECS
from ..remote import RemoteFile, as_source, is_url
from .containers import open_video
from .destination import MATROSKA, check_destination
from .errors import AV_ERRORS, VideoError, discard, is_refusal, reason, write_error
from .matroska_aspect import FILLER, display_size, write_display_size
from .metadata import (
    CONTAINER_KEYS,
    ITUNES_KEYS,
    copy_chapters,
    copy_metadata,
    lost_metadata,
)
from .passthrough import Passthrough, add_streams
from .span import Span
from .spec import EncodeSpec
from .timeline import Timeline, coded_packets, mov_timescale, movie_timescale, read_timeline
from .writer import sync

log = logging.getLogger(__name__)

# Broadcast formats start their clock anywhere; there is no zero to be faithful to.
_FREE_CLOCKS = ("mpegts", "mpeg", "mpegtsraw")


@dataclass(frozen=True, slots=True, kw_only=True)
class MuxReport:
    """What a finished file kept of its source, one line each."""

    kept: tuple[str, ...]
    """What is in the output."""
    dropped: tuple[str, ...]
    """What is not, and why."""


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
        job = _Muxing(paths, timeline, spec, part, muxer, dict(metadata or {}), comment, cut)
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


class _Muxing:
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

    def run(self, source_path: Path | RemoteFile | None) -> MuxReport:
        if source_path is None:
            self._write(None, None)
            self._check_picture(None)
            return MuxReport(kept=tuple(self._rounded()), dropped=())
        source, film = open_video(source_path, allow_truncated=True)
        with source:
            beside = self._write_what_goes(source_path, (source, film))
            self._check_picture(beside)
            beside.say_moved(source)
            if self._refused:
                text = f"{len(self._refused)} packets of sound or subtitles that are damaged"
                beside.dropped.append(f"{text} ({self._refused[0]})")
            with av.open(str(self._part.absolute()), metadata_errors="replace") as written:
                beside.check(written)
                beside.dropped += lost_metadata(source, written)
                beside.kept += self._moved(written) + self._rounded()
        return MuxReport(kept=tuple(beside.kept), dropped=tuple(beside.dropped))

    def _write_what_goes(
        self, source_path: Path | RemoteFile, opened: tuple[InputContainer, av.VideoStream]
    ) -> Passthrough:
        """Write the film; a stream that FFmpeg refuses in the end is left out, and nothing else.

        A render of days must not be lost to a track beside it.
        """
        left_out: dict[int, str] = {}
        with ExitStack() as reopened:
            while True:
                self._refused.clear()
                try:
                    return self._write(source_path, opened, left_out)
                except AV_ERRORS as error:
                    if not is_refusal(error):
                        raise
                    found = self._at_fault(source_path, opened[1], left_out, error)
                    if not found:
                        raise  # it is the picture
                    left_out |= found
                opened = open_video(source_path, allow_truncated=True)  # it was read to its end
                reopened.enter_context(opened[0])

    def _at_fault(
        self,
        source_path: Path | RemoteFile,
        film: av.VideoStream,
        left_out: dict[int, str],
        error: BaseException,
    ) -> dict[int, str]:
        """Return the streams that cannot be written, and why; each is tried alone.

        Where all can, only not together, those of the least important kind are returned.
        """
        source, _ = open_video(source_path, allow_truncated=True)
        with source:
            kinds = {s.index: s.type for s in source.streams if s.index != film.index}
        tried = [index for index in kinds if index not in left_out]
        found = {}
        for index in tried:
            others = {other: "" for other in kinds if other != index}
            why = self._refusal_alone(source_path, others)
            if why is not None:
                found[index] = why
        if found:
            return found
        for kind in ("data", "attachment", "subtitle", "video", "audio"):
            those = {index: reason(error) for index in tried if kinds[index] == kind}
            if those:
                return those
        return {}

    def _refusal_alone(
        self, source_path: Path | RemoteFile, left_out: dict[int, str]
    ) -> str | None:
        """Return why a stream cannot be written to its end; None if it can."""
        alone = self._part.with_name(self._part.name + ".alone")
        source, film = open_video(source_path, allow_truncated=True)
        try:
            with (
                source,
                av.open(
                    str(alone.absolute()),
                    "w",
                    format=self._muxer,
                    options=self._options((source, film)),
                ) as output,
            ):
                beside = add_streams(source, source_path, film.index, output, left_out)
                if not beside.pairs:
                    return None
                output.start_encoding()
                shift = self._shift(source)
                packets = beside.packets(source_path, source, shift, self._span())
                for packet in islice(packets, self.most_packets):
                    with suppress(*AV_ERRORS):  # a packet costs nothing but itself
                        output.mux(packet)
        except AV_ERRORS as error:
            if not is_refusal(error):
                raise
            return reason(error)
        finally:
            discard(alone)
        return None

    def _check_picture(self, beside: Passthrough | None) -> None:
        """Make sure that nothing FFmpeg refused was of the picture, or all of a track.

        Raises:
            VideoError: it was of the picture.
        """
        if not self._refused:
            return
        counts: Counter[int] = Counter()
        with av.open(str(self._part.absolute()), metadata_errors="replace") as written:
            for packet in written.demux():
                counts[packet.stream_index] += packet.size > 0
        if counts[0] != len(self._timeline.pts):
            raise VideoError(
                f"the joined file would have {counts[0]} of {len(self._timeline.pts)} frames; "
                "name an output in another container (.mkv, .mp4)"
            )
        if beside is not None:
            beside.check_counts(counts)

    def _rounded(self) -> list[str]:
        """Return a line if the container's clock is coarser than the film's."""
        if self._muxer in MATROSKA or self.most_packets is not None:
            return []
        scale, is_exact = mov_timescale(self._timeline)
        if is_exact:
            return []
        return [f"times, rounded to 1/{scale} s: a picture stays too long for a finer clock"]

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
        opened: tuple[InputContainer, av.VideoStream] | None,
        left_out: Mapping[int, str] | None = None,
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
                    beside = add_streams(source, source_path, film.index, output, left_out or {})
                    copy_metadata(source, film, output, picture)
                    copy_chapters(source, output, shift, (beside.kept, beside.dropped), span)
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
        is_said = CODECS[self._spec.codec].says_aspect or self._muxer not in MATROSKA
        return self._spec.sample_aspect_ratio != 1 and not is_said

    def _moved(self, written: InputContainer) -> list[str]:
        """Return a line if the muxer moved all times: AAC starts before 0, Matroska cannot."""
        stream = written.streams.video[0]
        first = next((p for p in written.demux(stream) if p.size), None)
        if first is None:
            return []
        wanted = self._timeline.pts[0] * self._timeline.time_base + self._moved_s
        moved = first.pts * stream.time_base - wanted
        if abs(moved) < Fraction(1, 1000):
            return []
        return [f"times, all moved by {float(moved):.3f} s: this container has none below 0"]

    def _options(self, opened: tuple[InputContainer, av.VideoStream] | None) -> dict[str, str]:
        # bitexact: no random ids, no version strings, so that the same input gives the same file.
        options = {"fflags": "+bitexact"}
        if self._muxer not in MATROSKA:
            options["movflags"] = "+faststart"
            names = {*self._metadata, *(opened[0].metadata if opened else ())}
            # Free names (ComfyUI's "workflow") need Apple's form of metadata, which all of FFmpeg
            # reads; without them the iTunes form does, which more players know.
            if {name.lower() for name in names} - ITUNES_KEYS - CONTAINER_KEYS:
                options["movflags"] += "+use_metadata_tags"
            scale, _ = mov_timescale(self._timeline)
            options["video_track_timescale"] = str(scale)
            # Edit lists count in the movie's clock: too coarse a one would move the first frame.
            options["movie_timescale"] = str(movie_timescale(scale, opened))
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
        tag = CODECS[spec.codec].mp4_tag
        if tag is not None and self._muxer not in MATROSKA:
            context.codec_tag = tag
        return picture

    def _span(self) -> Span | None:
        """Return the piece of the source's clock that belongs to the picture."""
        if self._cut == "none":
            return None
        times, tick = self._timeline, self._timeline.time_base
        start_s = times.pts[0] * tick if self._cut == "both" else None
        return Span(start_s=start_s, stop_s=times.end_pts * tick)

    def _shift(self, source: InputContainer) -> Fraction:
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
