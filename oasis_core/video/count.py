"""How many frames a reader will hand out, told from packets and indexes without decoding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av

from ..remote import RemoteFile
from .clock import OneClock
from .containers import is_seekable, open_video
from .errors import AV_ERRORS, VideoError
from .fields import FieldPairs
from .info import VideoInfo
from .piece import TimeWindow, empty_piece

_SEEK_MARGIN_S = 1


def count_shown(
    path: Path | RemoteFile, info: VideoInfo, window: TimeWindow | None = None
) -> int | None:
    """The number of frames of a video file or of a piece of it, told without decoding.

    Args:
        path: The file.
        info: Facts of it.
        window: The piece; None is everything.

    Returns:
        Shown frames without context; None where the file's packets do not tell.

    Raises:
        VideoError: No frame begins in the piece.
    """
    if window is None:
        indexed = _indexed_frames(path)
        # What lies behind a URL is not read twice for a number.
        if indexed is not None or info.num_frames is not None or isinstance(path, RemoteFile):
            return info.num_frames if indexed is None else indexed
    try:
        return _count_packets(path, info, window)
    except VideoError:
        raise
    except AV_ERRORS:  # the reader will say what is wrong, and where
        return None


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


def _indexed_frames(path: Path | RemoteFile) -> int | None:
    """Return the shown frames of a complete MP4 or MOV index: edit lists hide some."""
    container, stream = open_video(path)
    with container:
        if "mov" not in container.format.name or not hasattr(stream, "index_entries"):
            return None
        if FieldPairs(stream).may_be:
            return None  # two entries may be one picture
        entries = stream.index_entries
        if not stream.frames or len(entries) != stream.frames:  # in fragments
            return None
        return sum(not entry.is_discard for entry in entries)


def _count_packets(
    path: Path | RemoteFile, info: VideoInfo, window: TimeWindow | None
) -> int | None:
    start, stop = -math.inf, math.inf
    container, stream = open_video(path)
    with container:
        if window is not None:
            start, stop = window.ticks(info.start_pts, info.time_base)
            _seek(container, stream, start, info)
        # AVI stores no times but the order of its packets, see `CodedTimes`.
        is_avi = container.format.name == "avi"
        count, last, fields = 0, None, FieldPairs(stream)
        for packet in OneClock(container, stream).packets():
            if not packet.size or packet.is_discard or fields.is_second(packet):
                continue
            time = packet.dts if is_avi or packet.pts is None else packet.pts
            if time is None:
                return None
            last = time if last is None else max(last, time)
            count += start <= time < stop
            if packet.dts is not None and packet.dts >= stop:
                break  # in decoding order: nothing shown earlier follows
    if not count and window is not None and last is not None and last < start:
        raise empty_piece(path, float((last - info.start_pts) * info.time_base), window)
    return count or None


def _seek(
    container: av.container.InputContainer, stream: av.VideoStream, start: int, info: VideoInfo
) -> None:
    target = start - round(_SEEK_MARGIN_S / info.time_base)
    if is_seekable(container) and target > info.start_pts:
        container.seek(target, stream=stream)
