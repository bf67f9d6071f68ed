"""How many frames a reader will hand out, and what changes, told without decoding the film."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

from ..remote import RemoteFile
from .changes import KindWatch, PictureKind, described_anew, stop_at
from .clock import OneClock
from .containers import is_seekable, open_video
from .errors import AV_ERRORS, VideoError
from .fields import FieldPairs
from .headers import HeaderWatch
from .info import VideoInfo
from .mov_index import has_several_entries
from .piece import TimeWindow, empty_piece

_SEEK_MARGIN_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A place where a film goes on as another one."""

    what: str
    """In words: what of it one result cannot show."""
    number: int
    """Of the frame, counted from the first of the piece."""
    at_s: float
    """When, in seconds after the film's first frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What can be told of the frames to read before they are."""

    num_frames: int | None
    """Shown frames without context; None where the file's packets do not tell."""
    info: VideoInfo
    """Facts of the source, as its piece begins."""
    changes: tuple[Change, ...] = ()
    """Where the piece changes, as far as that was seen."""

    def refuse_changes(self, path: object, window: TimeWindow | None) -> None:
        """Raise the error with which a reader would stop, before the work.

        Args:
            path: What messages call the source.
            window: The piece; None is everything.

        Raises:
            ChangeError: There is a change.
        """
        for change in self.changes:
            start_s = 0.0 if window is None else window.start_s
            raise stop_at(path, change.what, change.number, change.at_s, start_s)


def survey_film(
    path: Path | RemoteFile, info: VideoInfo, window: TimeWindow | None = None
) -> Survey:
    """Look through a video file, or a piece of it, without decoding more than what looks new.

    Args:
        path: The file.
        info: Facts of it.
        window: The piece; None is everything.

    Raises:
        VideoError: No frame begins in the piece.
    """
    if window is None:
        indexed, may_change = _indexed(path)
        number = info.num_frames if indexed is None else indexed
        # What lies behind a URL is not read twice for a number.
        if isinstance(path, RemoteFile) or (number is not None and not may_change):
            return Survey(num_frames=number, info=info)
    try:
        return _survey_packets(path, info, window)
    except VideoError:
        raise
    except AV_ERRORS:  # the reader will say what is wrong, and where
        return Survey(num_frames=None, info=info)


def count_listed(path: Any, info: VideoInfo, window: TimeWindow | None) -> int:
    """The number of pictures, or of frames of which every time is known.

    Args:
        path: What messages call them.
        info: Facts of them.
        window: The piece; None is everything.

    Raises:
        VideoError: No frame begins in the piece.
    """
    times = range(info.num_frames) if info.frame_times is None else info.frame_times
    if window is None:
        return len(times)
    start, stop = window.ticks(0, info.time_base)
    inside = sum(start <= time < stop for time in times)
    if not inside:
        raise empty_piece(path, float(times[-1] * info.time_base), window)
    return inside


def _indexed(path: Path | RemoteFile) -> tuple[int | None, bool]:
    """Return the shown frames of a complete MP4 or MOV index (edit lists hide some).

    And whether the index of any film says that it may change.
    """
    container, stream = open_video(path)
    with container:
        may_change = HeaderWatch(stream).may_change
        if "mov" not in container.format.name or not hasattr(stream, "index_entries"):
            return None, may_change
        may_change |= isinstance(path, Path) and has_several_entries(path, stream.id)
        if FieldPairs(stream).may_be:
            return None, may_change  # two entries may be one picture
        entries = stream.index_entries
        if not stream.frames or len(entries) != stream.frames:  # in fragments
            return None, may_change
        return sum(not entry.is_discard for entry in entries), may_change


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """A picture with a new header, decoded by itself."""

    time: int
    number: int
    frame: av.VideoFrame
    kind: PictureKind


def _survey_packets(path: Path | RemoteFile, info: VideoInfo, window: TimeWindow | None) -> Survey:
    start, stop = -math.inf, math.inf
    container, stream = open_video(path)
    with container:
        if window is not None:
            start, stop = window.ticks(info.start_pts, info.time_base)
            _seek(container, stream, start, info)
        # AVI stores no times but the order of its packets, see `CodedTimes`.
        is_avi = container.format.name == "avi"
        number = count = 0
        last, fields = None, FieldPairs(stream)
        headers, found = HeaderWatch(stream), []
        for packet in OneClock(container, stream).packets():
            if not packet.size or packet.is_discard or fields.is_second(packet):
                continue
            time = packet.dts if is_avi or packet.pts is None else packet.pts
            if headers.is_new(packet):
                at = info.start_pts + round(number / info.frame_rate / info.time_base)
                found += _decoded(packet, stream, headers, at if time is None else time, number)
            if time is None and window is not None:
                return Survey(num_frames=None, info=info)
            if time is None:  # made from the rate by the reader
                number += 1
                continue
            last = time if last is None else max(last, time)
            count += start <= time < stop
            number = count
            if packet.dts is not None and packet.dts >= stop:
                break  # in decoding order: nothing shown earlier follows
    if not count and window is not None and last is not None and last < start:
        raise empty_piece(path, float((last - info.start_pts) * info.time_base), window)
    if window is not None and found:
        info = _as_the_piece_begins(path, info, found, start)
    changes = _changes(found, start, stop, info)
    if window is None and info.container.endswith(("_pipe", "image2")):  # stills, one or more
        count = count or number
        info = replace(info, num_frames=count or None)
    return Survey(num_frames=count or None, info=info, changes=changes)


def _decoded(
    packet: av.packet.Packet,
    stream: av.VideoStream,
    headers: HeaderWatch,
    time: int,
    number: int,
) -> list[_Found]:
    """Return a key picture decoded alone; nothing where that fails, as the reader will say."""
    try:
        decoder = av.CodecContext.create(stream.codec_context.name, "r")
        decoder.thread_count = 1
        if headers.extradata:
            decoder.extradata = headers.extradata
        frame = next(iter([*decoder.decode(packet), *decoder.decode(None)]), None)
    except AV_ERRORS:
        return []
    if frame is None:
        return []
    watch = KindWatch()
    watch.note(decoder, packet)
    return [_Found(time=time, number=number, frame=frame, kind=watch.of_first(frame))]


def _as_the_piece_begins(
    path: Path | RemoteFile, info: VideoInfo, found: list[_Found], start: float
) -> VideoInfo:
    """Return the facts of a film as they are where the piece begins."""
    container, stream = open_video(path)
    with container:
        headers = HeaderWatch(stream)
        packets = (p for p in container.demux(stream) if headers.is_new(p))
        packet = next(packets, None)
        first = [] if packet is None else _decoded(packet, stream, headers, 0, 0)
    begin = next((f for f in reversed(found) if f.time <= start), found[0])
    if not first or not first[0].kind.change_to(begin.kind):
        return info
    return described_anew(info, begin.frame, begin.kind, first[0].kind.aspect)


def _changes(found: list[_Found], start: float, stop: float, info: VideoInfo) -> tuple[Change, ...]:
    """Return what changes inside the piece, against how it begins."""
    changes: list[Change] = []
    first = None
    for now in found:
        if first is None or now.time <= start:
            first = now
            continue
        what = first.kind.change_to(now.kind)
        if now.time < stop and what:
            at_s = float((now.time - info.start_pts) * info.time_base)
            changes.append(Change(what=what, number=now.number, at_s=at_s))
    return tuple(changes)


def _seek(
    container: av.container.InputContainer, stream: av.VideoStream, start: int, info: VideoInfo
) -> None:
    target = start - round(_SEEK_MARGIN_S / info.time_base)
    if is_seekable(container) and target > info.start_pts:
        container.seek(target, stream=stream)
