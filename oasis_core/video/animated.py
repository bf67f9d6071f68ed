"""Animated WebP as a film, which FFmpeg's own reader refuses.

Each frame is a small WebP of its own that FFmpeg does decode; putting them on the canvas is done
here. GIF and animated PNG are read by FFmpeg.

Source: the WebP container specification (VP8X, ANIM, ANMF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import av
import numpy as np

from .alpha import alpha_of
from .color import PICTURE_COLORS, RGB_MATRIX, ToRgb
from .containers import check_file, check_size
from .errors import AV_ERRORS, VideoError, reason
from .frame import VideoFrame
from .info import ColorTags, VideoInfo
from .piece import TimeWindow, empty_piece

_TICK = Fraction(1, 1000)
_LEAST_MS = 10
_ALPHA = 0x10
_DISPOSE, _NO_BLEND = 1, 2
_PLACE = 16
"""Bytes before the picture in a frame's chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    offset: int
    """Of its picture's chunks in the file."""
    size: int
    left: int
    top: int
    width: int
    height: int
    pts: int
    duration: int
    flags: int


class AnimationReader:
    """Reads an animated WebP frame by frame; otherwise like `VideoReader`.

    Args:
        path: the file.
        window: the piece to read; None is everything.

    Raises:
        VideoError: the file cannot be used.
    """

    num_corrupt_frames = 0
    """Damaged frames are errors, never concealed."""

    def __init__(self, path: Path, *, window: TimeWindow | None = None) -> None:
        self.path = path
        self.num_frames_read = 0
        self._window = window
        size = check_file(path)
        self._file: BinaryIO = path.open("rb")
        try:
            self._flags, self._size, self._frames = _read_header(path, self._file, size)
            check_size(path, self._size)
        except BaseException:
            self.close()
            raise
        self.info = self._describe()

    def __enter__(self) -> AnimationReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _describe(self) -> VideoInfo:
        last = self._frames[-1]
        length = last.pts + last.duration
        return VideoInfo(
            path=self.path,
            container="webp",
            codec="webp",
            width=self._size[0],
            height=self._size[1],
            rotation_deg=0,
            is_mirrored=False,
            sample_aspect_ratio=Fraction(1),
            frame_rate=Fraction(len(self._frames) * 1000, length),
            time_base=_TICK,
            start_pts=0,
            num_frames=len(self._frames),
            duration_s=float(length * _TICK),
            pixel_format="argb" if self._flags & _ALPHA else "yuv420p",
            bit_depth=8,
            has_alpha=bool(self._flags & _ALPHA),
            color=ColorTags(matrix=RGB_MATRIX),
            is_interlaced=False,
            frame_times=tuple(frame.pts for frame in self._frames),
        )

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield every frame of the window, and those of its context."""
        start, stop, context = 0, float("inf"), 0
        if self._window is not None:
            start, stop = self._window.ticks(0, _TICK)
            context = self._window.context_frames
        times = self.info.frame_times
        inside = [index for index, time in enumerate(times) if start <= time < stop]
        if not inside:
            raise empty_piece(self.path, float(times[-1] * _TICK), self._window)
        for index, (frame, canvas) in enumerate(self._canvases()):
            if index > inside[-1] + context:
                return
            if index < inside[0] - context:
                continue
            self.num_frames_read += 1
            yield VideoFrame(
                pixels=canvas[..., :3].copy(),
                pts=frame.pts,
                duration=frame.duration,
                alpha=canvas[..., 3].copy() if self.info.has_alpha else None,
                is_context=not inside[0] <= index <= inside[-1],
            )

    def _canvases(self) -> Iterator[tuple[_Frame, np.ndarray]]:
        """Yield each frame with the canvas `h w 4` that it leaves; one array is reused."""
        width, height = self._size
        canvas = np.zeros((height, width, 4), np.uint8)
        for index, frame in enumerate(self._frames):
            area = canvas[
                frame.top : frame.top + frame.height, frame.left : frame.left + frame.width
            ]
            piece = self._decode(frame, index)[: area.shape[0], : area.shape[1]]
            area[...] = piece if frame.flags & _NO_BLEND else _over(piece, area)
            yield frame, canvas
            if frame.flags & _DISPOSE:
                area[...] = 0

    def _decode(self, frame: _Frame, index: int) -> np.ndarray:
        """Return one frame's own picture, `h w 4`."""
        self._file.seek(frame.offset)
        chunks = self._file.read(frame.size)
        sides = b"".join((side - 1).to_bytes(3, "little") for side in (frame.width, frame.height))
        head = b"VP8X" + struct.pack("<I", 10) + bytes((_ALPHA, 0, 0, 0)) + sides
        body = b"WEBP" + (head if chunks.startswith(b"ALPH") else b"") + chunks
        try:
            decoder = av.CodecContext.create("webp", "r")
            packet = av.Packet(b"RIFF" + struct.pack("<I", len(body)) + body)
            picture = (decoder.decode(packet) + decoder.decode(None))[0]
            if (picture.width, picture.height) != (frame.width, frame.height):
                raise ValueError("its size is not the declared one")
        except (*AV_ERRORS, IndexError) as error:
            raise VideoError(
                f"frame {index} of {str(self.path)!r} cannot be decoded ({reason(error)}); repair "
                "the file or copy it again"
            ) from error
        pixels = ToRgb(PICTURE_COLORS["webp"], "webp")(picture)  # frames differ in size
        alpha = np.full(pixels.shape[:2], 255, np.uint8)
        if any(component.is_alpha for component in picture.format.components):
            alpha = alpha_of(picture)
        return np.dstack((pixels, alpha))


def _over(piece: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Lay a picture `h w 4` of straight alpha over another, rounded."""
    cover = piece[..., 3:].astype(np.float32) / 255
    rest = below[..., 3:].astype(np.float32) / 255 * (1 - cover)
    total = cover + rest
    color = piece[..., :3] * cover + below[..., :3] * rest
    color /= np.maximum(total, np.float32(1e-6))
    return np.rint(np.concatenate((color, total * 255), axis=-1)).astype(np.uint8)


def _read_header(
    path: Path, file: BinaryIO, size: int
) -> tuple[int, tuple[int, int], list[_Frame]]:
    """Return the flags, the canvas's (width, height) and where every frame lies."""
    head = file.read(30)
    declared = struct.unpack_from("<I", head, 4)[0] + 8
    if declared > size:
        raise VideoError(
            f"{str(path)!r} is truncated: its headers declare {declared:,} bytes but it has "
            f"{size:,}; copy or download it again"
        )
    flags, width, height = head[20], _number(head, 24) + 1, _number(head, 27) + 1
    frames: list[_Frame] = []
    place, time = 30, 0
    while place + 8 <= declared:
        file.seek(place)
        chunk = file.read(8 + _PLACE)
        name, length = struct.unpack_from("<4sI", chunk)
        if name == b"ANMF" and length > _PLACE and len(chunk) == 8 + _PLACE:
            frames.append(_frame_of(chunk[8:], place + 8 + _PLACE, length - _PLACE, time))
            time += frames[-1].duration
        place += 8 + length + length % 2
    if not frames:
        raise VideoError(f"{str(path)!r} holds no frame; copy or download it again")
    return flags, (width, height), frames


def _frame_of(head: bytes, offset: int, size: int, time: int) -> _Frame:
    return _Frame(
        offset=offset,
        size=size,
        left=2 * _number(head, 0),
        top=2 * _number(head, 3),
        width=_number(head, 6) + 1,
        height=_number(head, 9) + 1,
        pts=time,
        duration=_shown_ms(_number(head, 12)),
        flags=head[15],
    )


def _shown_ms(stored: int) -> int:
    """Return how long a frame is shown: browsers take 10 ms and less for a tenth of a second."""
    return stored if stored > _LEAST_MS else 100


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 3], "little")
