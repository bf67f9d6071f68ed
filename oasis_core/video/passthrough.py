"""What travels beside the picture, copied bit by bit: sound, subtitles, chapters and more."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path

import av

from ..remote import RemoteError, RemoteFile
from .container_trial import refusal_of
from .containers import is_seekable, open_video
from .errors import AV_ERRORS, VideoError, reason
from .info import describe_stream, is_picture
from .subtitles import TEXT_CODECS, MovText

log = logging.getLogger(__name__)

# The muxer writes its own; a stale value would be a lie about the new picture.
CONTAINER_KEYS = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder"))
# What an MP4's iTunes metadata has a place for.
ITUNES_KEYS = frozenset(
    (
        "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre",
        "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id",
        "network", "keywords", "creation_time", "track", "disc", "hd_video", "media_type",
    )
)  # fmt: skip
_PICTURE_KEYS = ("rotate", "encoder", "duration", "bps", "number_of_", "_statistics", "source_id")
_SEEK_MARGIN_S = 5
_INTERLEAVING_S = 30
_NOT_IN_MOV = ("flac", "opus", "libopus", "truehd")
# FFmpeg's own guess for a number of channels, where a file says no more.
_LAYOUTS = {
    1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1",
}  # fmt: skip
_PICTURE_TYPES = {"png": ("png", "image/png"), "mjpeg": ("jpg", "image/jpeg")}


@dataclass(slots=True)
class Passthrough:
    """The streams of a source that are copied, and a line about each that is or is not."""

    pairs: dict[int, av.stream.Stream] = field(default_factory=dict)
    """Source stream index to output stream."""
    converted: dict[int, MovText] = field(default_factory=dict)
    """Source stream index to what turns its packets into the output's."""
    kept: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    steps: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Source stream index to the last packet's time and its distance from the one before."""
    is_strict: bool = False
    """Whether the container wants each packet of sound later than the one before it."""
    num_moved: Counter[int] = field(default_factory=Counter)
    """Source stream index to the number of its packets that went back in time."""

    def packets(
        self,
        path: Path | RemoteFile,
        source: av.container.InputContainer,
        shift: Fraction,
        span: Span | None = None,
    ) -> Iterator[av.packet.Packet]:
        """Yield the packets to copy, in the file's order, bound to their output streams.

        Args:
            path: the source, for messages.
            source: opened for this purpose.
            shift: seconds to add to every time.
            span: the piece to copy; None is everything.
        """
        streams = [source.streams[index] for index in self.pairs]
        if not streams:  # demux() of nothing means everything
            return
        try:
            if span is not None:
                span.seek(source)
            for packet in source.demux(streams):
                if packet.size == 0:
                    continue
                if packet.stream.type == "video":  # a cover picture has no time
                    packet.pts = packet.dts = 0
                elif not self._place(packet, shift):
                    self._leave_out(packet)
                    continue
                elif span is not None and not span.takes(packet):
                    if span.is_over(packet):
                        return
                    continue
                ticks = round(shift / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = packet.pts if packet.dts is None else packet.dts + ticks
                self._complete(packet)
                if packet.stream_index in self.converted:
                    packet = self.converted[packet.stream_index].convert(packet)
                    if packet is not None:
                        yield packet
                    continue
                packet.stream = self.pairs[packet.stream_index]
                yield packet
        except RemoteError as error:  # the network's fault, not the file's
            raise VideoError(str(error)) from error
        except AV_ERRORS as error:
            raise VideoError(
                f"the sound and subtitles of {str(path)!r} cannot be copied ({reason(error)}); "
                "the file may be damaged; `oasis export-partial` writes the film without them"
            ) from error

    def _place(self, packet: av.packet.Packet, shift: Fraction) -> bool:
        """Put sound without a time behind the packet before it; return whether it has one now."""
        if packet.pts is not None or packet.dts is not None:
            return True
        if packet.stream_index not in self.steps:
            return False
        last, step = self.steps[packet.stream_index]
        packet.pts = packet.dts = last + max(1, step) - round(shift / packet.time_base)
        return True

    def _leave_out(self, packet: av.packet.Packet) -> None:
        """Say once for each stream that a packet of it is not in the copy."""
        text = f"{describe_stream(packet.stream)}: its packets without a time"
        if text not in self.dropped:
            self.dropped.append(text)

    def _complete(self, packet: av.packet.Packet) -> None:
        """Keep times from going back, where muxers give up, and sound from lasting no time.

        MP4 plays nothing of a last packet without a duration.
        """
        if packet.stream.type == "video":
            return
        is_sound = packet.stream.type == "audio"
        last, step = self.steps.get(packet.stream_index, (packet.dts, 0))
        least = last
        if self.is_strict and is_sound and packet.stream_index in self.steps:
            least += ceil(self.pairs[packet.stream_index].time_base / packet.time_base)
        if packet.dts < least:
            self.num_moved[packet.stream_index] += 1
            packet.dts = least
            packet.pts = least if packet.pts is None else max(packet.pts, least)
        step = packet.dts - last or step
        self.steps[packet.stream_index] = (packet.dts, step)
        if is_sound and not packet.duration:
            packet.duration = step

    def say_moved(self, source: av.container.InputContainer) -> None:
        """Add a line for each stream whose times were put in order, after the last packet."""
        for index, count in sorted(self.num_moved.items()):
            name = describe_stream(source.streams[index])
            self.kept.append(f"{name}: {count} packets whose time went back, put behind the others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of the source's clock, in seconds."""

    start_s: Fraction | None
    """None: from the beginning, whatever comes before the picture included."""
    stop_s: Fraction
    """Packets that begin here or later are left out."""

    def seek(self, source: av.container.InputContainer) -> None:
        """Skip what lies well before the span, where the format has an index."""
        if self.start_s is not None and is_seekable(source) and self.start_s > _SEEK_MARGIN_S:
            source.seek(int((self.start_s - _SEEK_MARGIN_S) * av.time_base))

    def takes(self, packet: av.packet.Packet) -> bool:
        """Return whether a packet begins inside; subtitles only have to reach into it."""
        start = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
        if start >= self.stop_s:
            return False
        if self.start_s is None or start >= self.start_s:
            return True
        if packet.stream.type != "subtitle" or not packet.duration:
            return False
        late = round((self.start_s - start) / packet.time_base)
        if late >= packet.duration:
            return False
        packet.pts += late
        packet.dts = packet.pts
        packet.duration -= late
        return True

    def is_over(self, packet: av.packet.Packet) -> bool:
        """Return whether nothing inside can follow; streams may be interleaved loosely."""
        start = (packet.dts if packet.dts is not None else packet.pts) * packet.time_base
        return start > self.stop_s + _INTERLEAVING_S


def add_streams(
    source: av.container.InputContainer,
    path: Path | RemoteFile,
    film_index: int,
    output: av.container.OutputContainer,
) -> Passthrough:
    """Add an output stream for everything in the source that the output can hold.

    Args:
        source: the opened source.
        path: where it is.
        film_index: index of the stream that was replaced by our picture.
        output: opened for writing, its picture stream added, nothing written yet.
    """
    result = Passthrough(is_strict="matroska" not in output.format.name)
    # Attachments are written by Matroska in any order; sound first is what players expect.
    order = {"audio": 0, "subtitle": 1, "video": 2}
    for stream in sorted(source.streams, key=lambda s: (order.get(s.type, 3), s.index)):
        # An MP4's chapter titles are a data track too; they are written anew with the chapters.
        handler = stream.metadata.get("handler_name", "")
        if stream.index == film_index or (stream.type == "data" and handler == "SubtitleHandler"):
            continue
        name = describe_stream(stream)
        try:
            why = _add_stream(stream, path, output, result)
        except (*AV_ERRORS, AttributeError, TypeError, NotImplementedError) as error:
            log.debug("%s: %s", name, error)
            why = f"{_container_name(output)} cannot hold it; write to .mkv to keep it"
            if "matroska" in output.format.name:
                why = f"Matroska cannot hold it ({reason(error)})"
        if why:
            result.dropped.append(f"{name}: {why}")
        else:
            how = ", as mov_text" if stream.index in result.converted else ""
            result.kept.append(name + how)
    return result


def _add_stream(
    stream: av.stream.Stream,
    path: Path | RemoteFile,
    output: av.container.OutputContainer,
    result: Passthrough,
) -> str | None:
    """Add one stream; return why it cannot be, if so."""
    is_matroska = "matroska" in output.format.name
    if stream.type == "attachment":
        return _add_attachment(
            output, stream.metadata, getattr(stream, "data", b""), is_matroska=is_matroska
        )
    if stream.type == "video" and not is_picture(stream):
        return "only the first video track is upscaled, further ones are left out"
    if stream.type == "video" and is_matroska:
        codec = stream.codec_context.name if stream.codec_context else ""
        kind = _PICTURE_TYPES.get(codec)
        if kind is None:
            return "Matroska holds PNG and JPEG covers only"
        name = {"filename": f"cover.{kind[0]}", "mimetype": kind[1]}
        return _add_attachment(output, name, _picture_bytes(path, stream.index), is_matroska=True)
    if stream.type == "data" and is_matroska:
        return "Matroska has no data tracks"
    if stream.codec_context is None and stream.type != "data":
        return "this FFmpeg build does not know its codec"
    if stream.codec_context is None and int(av.__version__.partition(".")[0]) < 16:
        # It would end the process: PyAV's pull request 2013.
        return f"PyAV {av.__version__} cannot copy it; a newer one can"
    codec = stream.codec_context.name if stream.codec_context is not None else ""
    if output.format.name == "mov" and codec in _NOT_IN_MOV:
        # FFmpeg says so only when all else is done.
        return "MOV cannot hold it; write to .mkv or .mp4 to keep it"
    layout = None
    if stream.type == "audio" and stream.codec_context.layout.name.endswith(" channels"):
        # MP4 must say which speakers PCM is for, and FFmpeg fails at its very end if it cannot.
        layout = _LAYOUTS.get(stream.codec_context.layout.nb_channels)
        if layout is None and output.format.name == "mp4":
            return "it does not say which speakers it is for; write to .mkv or .mov to keep it"
    is_text = stream.type == "subtitle" and stream.codec_context.name in TEXT_CODECS
    if is_text and not is_matroska:
        text = result.converted[stream.index] = MovText(stream, output)
        copy = text.stream
    else:
        if why := refusal_of(stream, output.format.name):
            is_last = is_matroska or stream.type == "data"  # Matroska has no data tracks
            elsewhere = "" if is_last else "; write to .mkv to keep it"
            return f"{_container_name(output)} cannot hold it ({why}){elsewhere}"
        copy = output.add_stream_from_template(stream, opaque=True)
        if layout is not None:
            copy.codec_context.layout = layout
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition.value
    result.pairs[stream.index] = copy
    return None


def _add_attachment(
    output: av.container.OutputContainer,
    metadata: dict[str, str],
    data: bytes,
    *,
    is_matroska: bool,
) -> str | None:
    if not is_matroska:
        return f"{_container_name(output)} has no attachments; write to .mkv to keep it"
    if not hasattr(output, "add_attachment"):
        return f"PyAV {av.__version__} cannot write attachments; a newer one can"
    output.add_attachment(
        metadata.get("filename", "attachment"),
        metadata.get("mimetype", "application/octet-stream"),
        data,
    )
    return None


def _picture_bytes(path: Path | RemoteFile, index: int) -> bytes:
    """Return a cover picture's file; the source is opened again, its own reading has not begun."""
    source, _ = open_video(path, allow_truncated=True)
    with source:
        packets = source.demux(source.streams[index])
        return next((bytes(packet) for packet in packets if packet.size), b"")


def _container_name(output: av.container.OutputContainer) -> str:
    return {"matroska": "Matroska", "mov": "MOV"}.get(
        output.format.name, output.format.name.upper()
    )


def copy_metadata(
    source: av.container.InputContainer,
    film: av.VideoStream,
    output: av.container.OutputContainer,
    picture: av.VideoStream,
) -> None:
    """Copy the file's metadata and the film's own, without what is no longer true."""
    for key, value in source.metadata.items():
        if key.lower() not in CONTAINER_KEYS:
            output.metadata[key] = value
    picture.disposition = film.disposition.value
    for key, value in film.metadata.items():
        if not key.lower().startswith(_PICTURE_KEYS):
            picture.metadata[key] = value


def copy_chapters(
    source: av.container.InputContainer,
    output: av.container.OutputContainer,
    shift: Fraction,
    result: Passthrough,
    span: Span | None = None,
) -> None:
    """Copy the chapters where this PyAV can; say so where it cannot.

    Args:
        source: opened for reading.
        output: opened for writing, nothing written yet.
        shift: seconds to add to every time.
        result: gets the line.
        span: only chapters that reach into it, shortened to it; None is all.
    """
    if not hasattr(source, "chapters"):  # PyAV before 15; its dump of the file mentions them
        num_chapters = source.dumps_format().count("Chapter #")
        if num_chapters:
            result.dropped.append(
                f"{num_chapters} chapters: PyAV {av.__version__} cannot copy them; a newer one can"
            )
        return
    chapters = source.chapters()
    if not chapters:
        return
    kept = []
    for chapter in chapters:
        tick = chapter["time_base"]
        if span is not None:
            chapter["end"] = min(chapter["end"], int(span.stop_s / tick))
            if span.start_s is not None:
                chapter["start"] = max(chapter["start"], round(span.start_s / tick))
            if chapter["start"] >= chapter["end"]:
                continue
        chapter["start"] += round(shift / tick)
        chapter["end"] += round(shift / tick)
        kept.append(chapter)
    if kept:
        output.set_chapters(kept)
        result.kept.append(f"{len(kept)} chapters")


def lost_metadata(
    source: av.container.InputContainer, written: av.container.InputContainer
) -> list[str]:
    """Return a line for the metadata the container format did not take.

    Args:
        source: the opened source.
        written: the finished output, opened for reading.
    """
    have = {key.lower() for key in written.metadata}
    lost = [k for k in source.metadata if k.lower() not in have | CONTAINER_KEYS]
    if not lost:
        return []
    return [f"metadata {', '.join(sorted(lost))}: this container has no place for it"]
