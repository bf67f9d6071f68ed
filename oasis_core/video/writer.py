"""Encoding one segment into a small file of its own.

A segment file is Matroska with one liberty: its clock counts ticks of the source's time base and
calls each a millisecond. Matroska rounds times to milliseconds, so this is what keeps every PTS and
duration exact in any time base; `mux` undoes it. The first PTS is kept in the metadata, and times
in the file start at 0.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from ..codecs import CODECS
from .color import FULL, FromRgb, resolve_matrix
from .errors import AV_ERRORS, VideoError, discard, write_error
from .spec import EncodeSpec, configure, open_encoder

log = logging.getLogger(__name__)

SEGMENT_TAG = "OASIS_SEGMENT"
SEGMENT_TICK = Fraction(1, 1000)
SEGMENT_SUFFIX = ".mkv"
_DTS_HEADROOM = 1 << 32


class SegmentWriter:
    """Encodes pictures into a segment file; it exists under its name only once it is complete.

    Args:
        path: the segment; it is written as `NAME.part`, synced, and renamed on a clean exit. After
            an exception nothing is left.
        spec: how to encode.

    Raises:
        VideoError: the encoder is missing or the file cannot be written.
    """

    def __init__(self, path: str | Path, spec: EncodeSpec) -> None:
        self.path = Path(path)
        self.spec = spec
        self.num_frames = 0
        """Frames written so far."""
        self._part = self.path.with_name(self.path.name + ".part")
        self._first_pts = 0
        self._last_pts = 0
        self._num_packets = 0
        self._durations: dict[int, int] = {}
        self._times: dict[int, int] = {}
        tags = spec.written_color
        self._from_rgb = FromRgb(
            width=spec.width,
            height=spec.height,
            pixel_format=spec.pixel_format,
            matrix=resolve_matrix(tags.matrix, spec.width, spec.height),
            is_full=tags.range == FULL,
            chroma_location=tags.chroma_location,
        )
        try:
            self._container = av.open(
                str(self._part.absolute()), "w", format="matroska", options={"fflags": "+bitexact"}
            )
            self._stream = self._new_stream()
        except AV_ERRORS as error:
            self.discard()
            if isinstance(error, VideoError):
                raise
            raise write_error(self.path, error) from error

    def _new_stream(self) -> av.VideoStream:
        spec = self.spec
        stream = self._container.add_stream(CODECS[spec.codec].encoder, rate=spec.frame_rate)
        stream.time_base = SEGMENT_TICK
        configure(stream.codec_context, spec)
        open_encoder(stream.codec_context, spec)
        return stream

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def write(
        self, pixels: np.ndarray, pts: int, duration: int, alpha: np.ndarray | None = None
    ) -> None:
        """Encode one picture.

        Args:
            pixels: `h w 3` RGB, uint8 over 0..255 or uint16 over 0..65535, of the spec's size.
            pts: when it is shown, in the spec's time base; larger than the one before.
            duration: how long, likewise.
            alpha: `h w` of the same type, 0 is transparent, if the spec has it; None is opaque.
        """
        expected = (self.spec.height, self.spec.width, 3)
        if pixels.shape != expected or pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"pixels must be {expected} uint8 or uint16, got {pixels.shape} {pixels.dtype}"
            )
        if self.num_frames == 0:
            self._first_pts = pts
            self._container.metadata[SEGMENT_TAG] = json.dumps(
                {"first_pts": pts, "time_base": str(self.spec.time_base)}
            )
        elif pts <= self._last_pts:
            raise ValueError(f"pts must increase, got {pts} after {self._last_pts}")
        self._last_pts = pts
        self._durations[pts] = max(1, duration)
        frame = self._from_rgb(pixels, alpha)
        frame.pts, frame.time_base = pts, self.spec.encoder_tick
        if CODECS[self.spec.codec].counts:
            frame.pts = self.num_frames
            self._times[frame.pts] = pts
        self._tag(frame)
        self._encode(frame)
        self.num_frames += 1

    def _tag(self, frame: av.VideoFrame) -> None:
        """Put the tags on the picture, too: ProRes writes those, and not the encoder's own."""
        tags = self.spec.written_color
        frame.colorspace, frame.color_range = tags.matrix, tags.range
        with suppress(AttributeError):  # PyAV before 16 cannot
            frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.pts = self._times.pop(packet.pts, packet.pts)
                packet.duration = self._durations.pop(packet.pts)
                packet.pts -= self._first_pts
                # The encoder's own is not to be relied on (x265 may give two pictures times that go
                # back), and Matroska stores none, so any increasing ones do; except for FFV1, which
                # older FFmpegs write the AVI way: by DTS.
                packet.dts = packet.pts
                if CODECS[self.spec.codec].reorders:
                    packet.dts = self._num_packets - _DTS_HEADROOM
                self._num_packets += 1
                packet.time_base = SEGMENT_TICK
                self._container.mux(packet)
        except AV_ERRORS as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Finish the file, sync it to the disk and give it its name."""
        if self.num_frames == 0:
            self.discard()
            raise ValueError(f"segment {str(self.path)!r} got no frames")
        try:
            self._encode(None)
            self._container.close()
            sync(self._part)
            self._part.replace(self.path)
        except AV_ERRORS as error:
            self.discard()
            if isinstance(error, VideoError):
                raise
            raise write_error(self.path, error) from error

    def discard(self) -> None:
        """Give the file up; nothing of it is left."""
        container = getattr(self, "_container", None)
        if container is not None:
            try:
                container.close()
            except AV_ERRORS as error:  # what made us discard it is being raised already
                log.debug("closing %s: %s", self._part, error)
        discard(self._part)


def sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk, so that a rename cannot outrun them.

    Args:
        path: a closed file.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that exists complete or not at all.

    Args:
        path: the file; an existing one is replaced.
        data: all of it.

    Raises:
        VideoError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
        sync(part)
        part.replace(path)
    except OSError as error:
        discard(part)
        raise write_error(path, error) from error


def give_name(path: Path, target: Path) -> None:
    """Give a finished file its final name; what is there under it is replaced.

    Args:
        path: The file.
        target: Its name from now on, on the same disk.

    Raises:
        VideoError: It cannot have it.
    """
    try:
        try:
            path.replace(target)
        except FileExistsError:  # some network drives; the journal still has the result
            target.unlink()
            path.replace(target)
    except OSError as error:
        raise write_error(target, error) from error
