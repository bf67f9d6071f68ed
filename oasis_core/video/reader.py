"""Reading a film frame by frame, at flat memory, with nothing lost unsaid."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av

from ..remote import RemoteError, RemoteFile, as_source
from .alpha import decoder_with_alpha, has_clear_pixels
from .appended import film_behind
from .changes import KindWatch, PictureKind, described_anew, stop_at, without_strangers
from .clock import OneClock
from .coded_times import CodedTimes
from .containers import MAX_PIXELS, is_seekable, open_video
from .deinterlace import deinterlaced
from .errors import AV_ERRORS, VideoError, reason
from .fields import FieldPairs, step_of
from .frame import FrameMaker, VideoFrame
from .headers import HeaderWatch
from .heif import decode_photo, may_be_photo, read_photo
from .info import VideoInfo, describe, frame_rate_of, in_frames
from .mov_index import has_several_entries
from .orientation import orientation_of
from .piece import TimeWindow, empty_piece, frames_in
from .side_data import Carried, side_data_of

log = logging.getLogger(__name__)

# Codecs of which every packet is one shown picture, so that a missing one is a loss.
_ONE_PICTURE_PER_PACKET = (
    "h264", "hevc", "av1", "vp9", "mpeg4", "ffv1", "prores",
    "mjpeg", "mpeg1video", "mpeg2video", "libdav1d",
)  # fmt: skip
_MAX_WARNINGS = 5
# FFmpeg hands out the fields of H.265 one by one; those of H.264 and MPEG-2 it puts together.
_FIELDS = (
    "whole frames: each picture is one field of half the height (H.265 codes them so); put them "
    "together first"
)
_SEEK_MARGIN_S = 1


class VideoReader:
    """Decodes a film once, in presentation order.

    Every packet yields its frame: pictures the decoder had to conceal come out, are counted in
    `num_corrupt_frames` and said in a warning; where decoding stops, a `VideoError` names the
    frame.

    Args:
        path: the file, or its URL.
        allow_truncated: read what is there of a file that ends before its headers say.
        window: the piece to read; None is everything.
        deinterlace: make whole frames of fields.
        on_change: "stop" where the film goes on as one of another size, shape of pixels or kind of
            light, with a `ChangeError`; or "scale" what comes later to fit into the first picture.

    Raises:
        VideoError: the file cannot be used, or the window lies behind its end.
    """

    def __init__(
        self,
        path: str | Path | RemoteFile,
        *,
        allow_truncated: bool = False,
        window: TimeWindow | None = None,
        deinterlace: bool = False,
        on_change: str = "stop",
    ) -> None:
        self.path = as_source(path)
        self.num_corrupt_frames = 0
        """Frames so far that the decoder flagged as damaged."""
        self.num_frames_read = 0
        """Frames handed out so far."""
        self._allow_truncated = allow_truncated
        self._window = window
        self._deinterlace = deinterlace
        self._scales = on_change == "scale"
        self._is_told_interlaced = False
        self._iterated = False
        self._num_packets = 0
        self._num_shown_packets = 0
        self._num_decoded = 0
        self._last_pts: int | None = None
        self._num_moved = 0
        self._last_duration = 0
        self._container, self._stream = open_video(self.path, allow_truncated=allow_truncated)
        self._is_mov = "mov" in self._container.format.name
        try:
            rate = frame_rate_of(self._stream) * Fraction(self._stream.time_base)
            self._ticks_per_frame = max(1, round(1 / rate))
            self._photo = read_photo(self.path) if may_be_photo(self._container) else None
            is_made = self._photo is not None and self._photo.is_made_of_parts
            self._whole_photo = self._photo if is_made else None
            self._fields, self._kinds = FieldPairs(self._stream), KindWatch()
            self._headers = HeaderWatch(self._stream)
            self._decoder, lost_alpha = decoder_with_alpha(self._stream)
            self._decoded = self._decode()
            self._first = self._first_frame()
            carried = side_data_of(self._first, self._stream.codec_context.name)
            self._carried = Carried(carried, self._stream.codec_context.name)
            self._kind = self._kinds.of_first(self._first)
            whole = self._whole_photo
            turned = orientation_of(carried, self._first.rotation)
            self._orientation = turned if whole is None else whole.orientation
            self.info: VideoInfo = describe(
                self.path, self._container, self._stream, self._first, self._orientation, carried
            )
            self._behind = None
            if isinstance(self.path, Path):
                self._behind = film_behind(self.path, self.info.container)
            lost = (*lost_alpha, *((self._behind,) if self._behind else ()), *self.info.not_kept)
            self.info = replace(self.info, not_kept=lost)
            self._trust_first_picture()
            if self._photo is not None:
                lost = dict.fromkeys((*self.info.not_kept, *self._photo.losses))
                self.info = replace(self.info, other_streams=(), not_kept=tuple(lost))
            self._is_of_fields = self.info.is_interlaced and self.info.codec == "hevc"
            if self._is_of_fields:
                self.info = replace(self.info, not_kept=(*self.info.not_kept, _FIELDS))
            if self._fields.num_second:
                again, film = open_video(self.path, allow_truncated=True)
                with again:
                    self.info = in_frames(self.info, step_of(again, film))
            if self.info.codec == "gif":  # decoded with transparency, whether it has any or not
                self.info = replace(self.info, has_alpha=has_clear_pixels(self.path))
            self._maker = FrameMaker(self.info, self._orientation, self._kind)
            if not self.info.pixel_format.startswith("yuv"):
                self._maker.to_rgb(self._first)  # what cannot be converted is refused now
        except BaseException:
            self.close()
            raise
        self._say_what_is_lost()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; calling it twice is harmless."""
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every frame; a reader can be walked through once."""
        if self._iterated:
            raise ValueError("a VideoReader yields its frames once; open the file again")
        self._iterated = True
        return self._frames()

    def _first_frame(self) -> av.VideoFrame:
        try:
            frame = next(self._decoded, None)
        except VideoError as error:
            if self._stream.codec_context.width:
                raise
            raise VideoError(
                f"{str(self.path)!r} declares no picture size, or one larger than the "
                f"{MAX_PIXELS} pixels that can be read; scale or crop it first"
            ) from error
        if frame is None:
            raise VideoError(
                f"{str(self.path)!r} holds a video stream without a single readable frame; "
                "copy or download it again"
            )
        return frame

    def _trust_first_picture(self) -> None:
        """Take the shape of pixels from the first picture, where FFmpeg says that of the last."""
        aspect = self._kind.aspect
        is_said = (self._stream.sample_aspect_ratio or 1) == aspect
        if is_said or not self._is_mov or isinstance(self.path, RemoteFile):
            return
        if has_several_entries(self.path, self._stream.id):
            aspect = 1 / aspect if self._orientation.transpose else aspect
            self.info = replace(self.info, sample_aspect_ratio=aspect)

    def _say_what_is_new(self, frame: av.VideoFrame) -> None:
        """Say what begins to lie beside the pixels later than in the first picture."""
        for line in self._carried.new_in(frame):
            at = self._time(frame.pts)
            log.warning(
                "%s: from frame %d (%s) on: %s", self.path.name, self._num_decoded, at, line
            )

    def _say_what_is_lost(self) -> None:
        if self._behind:
            log.warning("%s: %s", self.path.name, self._behind)
        if self._is_of_fields:
            log.warning("%s: not kept: %s", self.path.name, _FIELDS)
            return
        if self.info.is_interlaced and not self._deinterlace:
            log.warning(
                "%s: the video is interlaced and is treated as progressive; use --deinterlace for "
                "clean edges",
                self.path.name,
            )

    def _frames(self) -> Iterator[VideoFrame]:
        """Hold each frame back until the next one tells how long it was shown."""
        held: VideoFrame | None = None
        for index, now in enumerate(without_strangers(self._wanted(), self._kind_of)):
            frame = now.frame
            if held is not None:
                yield self._handed_out(held, frame.pts - held.pts)
            if now.is_context and (self._window.context_frames == 0 or now.begins):
                return  # it has told how long the last one is shown
            if not index:
                self._begin_with(frame, now.kind)
            elif now.begins:
                self._go_on_with(frame, now.kind)
            self._say_interlaced(frame)
            held = self._maker(now, begins=now.begins and index > 0)
        if held is not None:
            yield self._handed_out(held, max(1, self._last_duration))

    def _kind_of(self, frame: av.VideoFrame) -> PictureKind:
        return self._kinds.of(frame)

    def _begin_with(self, frame: av.VideoFrame, kind: PictureKind) -> None:
        """Take the first frame asked for as the one that all others are to be like."""
        if self._kind.change_to(kind):
            self.info = described_anew(self.info, frame, kind, self._kind.aspect)
            self._kind = kind
            self._maker = FrameMaker(self.info, self._orientation, kind)

    def _go_on_with(self, frame: av.VideoFrame, kind: PictureKind) -> None:
        """Stop, or say that what comes is fitted."""
        change = self._kind.change_to(kind)
        at_s = float((frame.pts - self.info.start_pts) * self._stream.time_base)
        if change and not self._scales:
            start_s = 0.0 if self._window is None else self._window.start_s
            raise stop_at(self.path, change, self.num_frames_read, at_s, start_s)
        log.warning(
            "%s: at frame %d (%.3f s) the film changes %s",
            self.path.name, self.num_frames_read, at_s,
            f"{change}; fitted into the first size" if change else "back to what it was",
        )  # fmt: skip

    def _say_interlaced(self, frame: av.VideoFrame) -> None:
        """Say once that fields begin where the film began with whole frames."""
        is_new = frame.interlaced_frame and not self.info.is_interlaced
        if self._is_told_interlaced or self._deinterlace or self._is_of_fields or not is_new:
            return
        self._is_told_interlaced = True
        log.warning(
            "%s: from %s on the video is interlaced and is treated as progressive; use "
            "--deinterlace for clean edges", self.path.name, self._time(frame.pts),
        )  # fmt: skip

    def _wanted(self) -> Iterator[tuple[av.VideoFrame, bool]]:
        """Yield the frames asked for and whether they are context only."""
        first_pts = self._first.pts
        start, stop = 0, math.inf
        if self._window is not None:
            start, stop = self._window.ticks(first_pts, Fraction(self._stream.time_base))
            frames = self._frames_from(start)
        else:
            frames = chain([self._first], self._decoded)
        if self._deinterlace:
            frames = deinterlaced(frames, Fraction(self._stream.time_base))
        if self._window is None:
            yield from ((frame, False) for frame in frames)
            return
        num_inside = 0
        for frame, is_context in frames_in(frames, start, stop, self._window.context_frames):
            num_inside += not is_context
            yield frame, is_context
        if not num_inside:
            length = float((self._last_pts or 0) - first_pts) * float(self._stream.time_base)
            raise empty_piece(self.path, length, self._window)

    def _frames_from(self, start: int) -> Iterator[av.VideoFrame]:
        """Decode from a key frame before `start`, or from the beginning where none can be found.

        Pictures right after a key frame may refer to ones before it and come out broken; they are
        shown before the key frame, so before `start`.
        """
        lead = self._window.context_frames * self._ticks_per_frame
        target = start - lead - round(_SEEK_MARGIN_S / Fraction(self._stream.time_base))
        if not is_seekable(self._container) or target <= self._first.pts:
            return chain([self._first], self._decoded)
        self._container.seek(target, stream=self._stream)
        self._restart()
        first = next(self._decoded, None)
        if first is not None and first.pts <= target:
            return chain([first], self._decoded)
        self._container.close()
        self._container, self._stream = open_video(self.path, allow_truncated=self._allow_truncated)
        self._restart()
        return self._decoded

    def _restart(self) -> None:
        self._num_packets = self._num_shown_packets = self._num_decoded = 0
        self._last_pts = None
        self._fields, self._kinds = FieldPairs(self._stream), KindWatch()
        self._headers = HeaderWatch(self._stream)
        self._decoder, _ = decoder_with_alpha(self._stream)
        self._decoded = self._decode()

    def _handed_out(self, frame: VideoFrame, duration: int) -> VideoFrame:
        self.num_frames_read += 1
        return replace(frame, duration=duration)

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield decoded frames, each with a PTS, strictly increasing."""
        if self._whole_photo is not None:
            frame = decode_photo(self.path, self._container, self._whole_photo)
            frame.pts, frame.time_base = 0, self._stream.time_base
            self._last_pts, self._last_duration, self._num_decoded = 0, self._ticks_per_frame, 1
            yield frame
            return
        end_pts = self._claimed_end()
        times = CodedTimes(is_needed=self._container.format.name == "avi")
        packets = OneClock(self._container, self._stream).packets()
        while True:
            is_last = False
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                self._num_packets += packet.size > 0
                is_second = self._fields.is_second(packet)
                # What an edit list hides is decoded for reference only; players skip it too.
                is_shown = packet.size > 0 and not packet.is_discard and not is_second
                self._num_shown_packets += is_shown
                if not self._is_mov and packet.pts is not None and packet.duration:
                    end_pts = max(end_pts, packet.pts + packet.duration)
                frames = self._held_back(packet) + self._decoder.decode(packet)
                self._kinds.note(self._decoder, packet)
            except AV_ERRORS as error:
                frames, is_last = self._give_up(error), True
            times.note(packet if not is_last else None)
            for frame in frames:
                frame.pts = times.of(frame)
                self._stamp(frame)
                self._kinds.came(frame)
                self._note_damage(frame)
                if self._num_decoded:
                    self._say_what_is_new(frame)
                self._num_decoded += 1
                yield frame
            if is_last:
                break
        if self._last_pts is not None:
            remaining = end_pts - self._last_pts
            self._last_duration = remaining if remaining > 0 else self._ticks_per_frame
        self._check_count()

    def _held_back(self, packet: av.packet.Packet) -> list[av.VideoFrame]:
        """Return what the decoder would forget when another kind of picture comes."""
        if packet.has_sidedata("new_extradata") and not self._headers.is_read_by_decoder:
            frames = self._decoder.decode(None)
            self._decoder = self._headers.decoder_for(packet)
            return frames
        if not self._headers.brings_size(packet):
            return []
        frames = self._decoder.decode(None)
        self._decoder.flush_buffers()
        return frames

    def _give_up(self, error: BaseException) -> list[av.VideoFrame]:
        """Say where decoding stopped; return what the decoder still holds if that is to do."""
        if isinstance(error, RemoteError):  # the network's fault, not the file's
            raise VideoError(str(error)) from error
        where = "before its first frame"
        if self._num_decoded:
            where = f"after frame {self._num_decoded - 1} ({self._time(self._last_pts)})"
        text = f"{str(self.path)!r} cannot be decoded {where}: {reason(error)}"
        if not self._allow_truncated:
            raise VideoError(f"{text}; repair the file or cut it there") from error
        log.warning("%s; the rest is left out", text)
        try:
            return self._decoder.decode(None)
        except AV_ERRORS:
            return []

    def _claimed_end(self) -> int:
        """Return when the picture ends by an MP4's index; its packets' durations are no help.

        They are distances between decoding times, another thing with B-frames and a variable rate.
        """
        if not self._is_mov or self._stream.duration is None:
            return 0
        return (self._stream.start_time or 0) + self._stream.duration

    def _stamp(self, frame: av.VideoFrame) -> None:
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            last = self._last_pts
            pts = 0 if last is None else last + self._ticks_per_frame
            log.debug("frame %d has no timestamp; %d is made from the rate", self._num_decoded, pts)
        elif self._last_pts is not None and pts <= self._last_pts:
            self._num_moved += 1
            if self._num_moved <= _MAX_WARNINGS:
                log.warning(
                    "%s: frame %d goes back in time (%d after %d); moved to %d%s",
                    self.path.name, self._num_decoded, pts, self._last_pts, self._last_pts + 1,
                    "; more are not listed" if self._num_moved == _MAX_WARNINGS else "",
                )  # fmt: skip
            pts = self._last_pts + 1
        self._last_pts = frame.pts = pts

    def _note_damage(self, frame: av.VideoFrame) -> None:
        if not frame.is_corrupt:
            return
        self.num_corrupt_frames += 1
        if self.num_corrupt_frames <= _MAX_WARNINGS:
            log.warning(
                "%s: frame %d (%s) is damaged; the decoder's repair of it is used%s",
                self.path.name, self._num_decoded, self._time(frame.pts),
                "; more are only counted" if self.num_corrupt_frames == _MAX_WARNINGS else "",
            )  # fmt: skip

    def _check_count(self) -> None:
        """Say when fewer packets or pictures came than the file promised."""
        if self._window is not None:
            return
        claimed = self._stream.frames
        # What an edit list cuts away is not in FFmpeg's own index (which PyAV 14 does not show).
        claimed = min(claimed, len(getattr(self._stream, "index_entries", range(claimed))))
        if self._is_mov and self._num_packets < claimed:
            text = (
                f"{str(self.path)!r} is truncated: its index lists {claimed} frames but only "
                f"{self._num_packets} could be read"
            )
            if not self._allow_truncated:
                raise VideoError(f"{text}; copy or download it again")
            log.warning("%s", text)
        missing = self._num_shown_packets - self._num_decoded
        if missing > 0 and self._stream.codec_context.name in _ONE_PICTURE_PER_PACKET:
            log.warning(
                "%s: %d of %d coded pictures could not be decoded (most often at the start of a "
                "cut recording, where the picture they refer to is missing)",
                self.path.name, missing, self._num_shown_packets,
            )  # fmt: skip

    def _time(self, pts: int | None) -> str:
        seconds = 0.0 if pts is None else float(pts * self._stream.time_base)
        return f"{seconds:.3f} s"
