"""What travels beside the picture, copied bit by bit: sound, subtitles, chapters and more."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path

import av

from ..remote import RemoteError, RemoteFile
from .clock import OneClock
from .container_trial import refusal_of
from .containers import open_video
from .destination import MATROSKA
from .errors import AV_ERRORS, VideoError, reason
from .heif import may_be_photo, read_photo
from .info import describe_stream, is_picture
from .metadata import is_timecode
from .opus import OPUS_CODECS, OpusSound
from .span import Span
from .subtitles import TEXT_CODECS, MovText

log = logging.getLogger(__name__)

_NOT_IN_MOV = ("flac", "opus", "libopus", "truehd")
# FFmpeg's own guess for a number of channels, where a file says no more.
_LAYOUTS = {
    1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1",
}  # fmt: skip
_PICTURE_TYPES = {"png": ("png", "image/png"), "mjpeg": ("jpg", "image/jpeg")}


@dataclass(slots=True)
class Passthrough:
    """The streams of a source that are copied, and a line about each that is or is not."""

    film_index: int = 0
    """Index of the source's stream that our picture replaces."""
    pairs: dict[int, av.stream.Stream] = field(default_factory=dict)
    """Source stream index to output stream."""
    converted: dict[int, MovText] = field(default_factory=dict)
    """Source stream index to what turns its packets into the output's."""
    recoded: dict[int, OpusSound] = field(default_factory=dict)
    """Likewise of sound that is encoded anew."""
    names: dict[int, str] = field(default_factory=dict)
    """Source stream index to its line in `kept`."""
    kept: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    steps: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Source stream index to the last packet's time and its distance from the one before."""
    is_strict: bool = False
    """Whether the container wants each packet of sound later than the one before it."""
    adts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Source stream index to what the first AAC packet says of itself."""
    changed: set[int] = field(default_factory=set)
    """Indices of streams that go on otherwise."""
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
            clock = OneClock(source, source.streams[self.film_index], is_told=False)
            for packet in clock.packets(streams):
                if packet.size == 0 or packet.stream_index == self.film_index:
                    continue
                self._note_change(packet)
                if packet.stream.type == "video":  # a cover picture has no time
                    packet.pts = packet.dts = 0
                elif not self._place(packet, shift):
                    self._leave_out(packet)
                    continue
                elif span is not None and not span.takes(packet):
                    if span.is_over(packet):
                        break
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
                if packet.stream_index in self.recoded:
                    yield from self.recoded[packet.stream_index].convert(packet)
                    continue
                packet.stream = self.pairs[packet.stream_index]
                yield packet
            for sound in self.recoded.values():
                yield from sound.rest()
        except RemoteError as error:  # the network's fault, not the file's
            raise VideoError(str(error)) from error
        except AV_ERRORS as error:
            raise VideoError(
                f"the sound and subtitles of {str(path)!r} cannot be copied ({reason(error)}); "
                "the file may be damaged; `oasis export-partial` writes the film without them"
            ) from error

    def _note_change(self, packet: av.packet.Packet) -> None:
        """Say once for each AAC track that goes on otherwise: containers describe it once."""
        if packet.stream_index in self.changed or packet.stream.type != "audio":
            return
        if packet.stream.codec_context is None or packet.stream.codec_context.name != "aac":
            return
        head = bytes(packet)[:4]
        if len(head) < 4 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:  # no header of its own
            return
        kind = (head[2] & 0xFD, head[3] & 0xC0)
        if self.adts.setdefault(packet.stream_index, kind) != kind:
            self.changed.add(packet.stream_index)
            at_s = float((packet.pts or 0) * packet.time_base)
            self.dropped.append(
                f"{describe_stream(packet.stream)}: from {at_s:.3f} s on it has another number of "
                "channels or another rate, which the container says once for all; encode it again "
                "if it does not play"
            )

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

    def check(self, written: av.container.InputContainer) -> None:
        """Take back what was said of a track that cannot be read in the output.

        Args:
            written: the finished output, opened for reading.
        """
        for index, copy in self.pairs.items():
            there = next((s for s in written.streams if s.index == copy.index), None)
            is_known = there is not None and (there.type == "data" or there.codec_context)
            if not is_known:
                self._take_back(index, "it cannot be read in what FFmpeg wrote")

    def check_counts(self, counts: Mapping[int, int]) -> None:
        """Take back what was said of a track without a packet.

        Args:
            counts: the number of packets by index of the output's stream.
        """
        for index, copy in self.pairs.items():
            if index in self.steps and not counts.get(copy.index):
                self._take_back(index, "FFmpeg refused all of its packets")

    def _take_back(self, index: int, why: str) -> None:
        line = self.names.pop(index, None)
        if line in self.kept:
            self.kept.remove(line)
            self.dropped.append(f"{line}: {why}")

    def say_moved(self, source: av.container.InputContainer) -> None:
        """Add a line for each stream whose times were put in order, after the last packet."""
        for index, count in sorted(self.num_moved.items()):
            name = describe_stream(source.streams[index])
            self.kept.append(f"{name}: {count} packets whose time went back, put behind the others")


def add_streams(
    source: av.container.InputContainer,
    path: Path | RemoteFile,
    film_index: int,
    output: av.container.OutputContainer,
    left_out: Mapping[int, str],
) -> Passthrough:
    """Add an output stream for everything in the source that the output can hold.

    Args:
        source: the opened source.
        path: where it is.
        film_index: index of the stream that was replaced by our picture.
        output: opened for writing, its picture stream added, nothing written yet.
        left_out: indices of streams not to add, and why.
    """
    result = Passthrough(film_index=film_index, is_strict=output.format.name not in MATROSKA)
    # Of a HEIF file: its streams are parts of a picture.
    is_photo = may_be_photo(source) and read_photo(path) is not None
    # Attachments are written by Matroska in any order; sound first is what players expect.
    order = {"audio": 0, "subtitle": 1, "video": 2}
    for stream in sorted(source.streams, key=lambda s: (order.get(s.type, 3), s.index)):
        # An MP4's chapter titles are a data track too; they are written anew with the chapters.
        handler = stream.metadata.get("handler_name", "")
        if stream.index == film_index or (stream.type == "data" and handler == "SubtitleHandler"):
            continue
        if is_photo and stream.type == "video":
            continue
        name = describe_stream(stream)
        if stream.index in left_out:
            why = f"FFmpeg cannot write it ({left_out[stream.index]})"
            result.dropped.append(f"{name}: {why}")
            continue
        if is_timecode(stream):
            _note_timecode(stream, source.streams[film_index], result)
            continue
        try:
            why = _add_stream(stream, source, path, output, result)
        except (*AV_ERRORS, AttributeError, TypeError, NotImplementedError) as error:
            log.debug("%s: %s", name, error)
            why = f"{_container_name(output)} cannot hold it; write to .mkv to keep it"
            if output.format.name == "matroska":
                why = f"Matroska cannot hold it ({reason(error)})"
        if why:
            result.dropped.append(f"{name}: {why}")
        else:
            how = ", as mov_text" if stream.index in result.converted else ""
            how += ", as Opus" if stream.index in result.recoded else ""
            result.names[stream.index] = name + how
            result.kept.append(name + how)
    return result


def _note_timecode(stream: av.stream.Stream, film: av.VideoStream, result: Passthrough) -> None:
    code, name = stream.metadata["timecode"], describe_stream(stream)
    if film.metadata.get("timecode", code) == code:
        result.kept.append(f"{name}: timecode {code}, written anew")
    else:
        result.dropped.append(f"{name}: timecode {code}; the film has another")


def _add_stream(
    stream: av.stream.Stream,
    source: av.container.InputContainer,
    path: Path | RemoteFile,
    output: av.container.OutputContainer,
    result: Passthrough,
) -> str | None:
    """Add one stream; return why it cannot be, if so."""
    is_matroska = output.format.name == "matroska"
    if stream.type == "attachment":
        return _add_attachment(
            output, stream.metadata, getattr(stream, "data", b""), is_matroska=is_matroska
        )
    if stream.type == "video" and not is_picture(stream) and may_be_photo(source):
        return "only the pictures of the sequence are read, no still or transparency beside them"
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
    if output.format.name == "webm" and stream.type == "audio" and codec not in OPUS_CODECS:
        try:
            sound = result.recoded[stream.index] = OpusSound(stream, output)
        except NotImplementedError as error:
            return f"WebM holds Opus and Vorbis only ({error}); write to .mkv to keep it"
        copy = sound.stream
    elif is_text and output.format.name not in MATROSKA:
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
    return {"matroska": "Matroska", "mov": "MOV", "webm": "WebM"}.get(
        output.format.name, output.format.name.upper()
    )
