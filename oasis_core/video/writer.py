"""Encoding one segment into a small file of its own.

A segment file is Matroska with one liberty: its clock counts ticks of the source's time base and calls each a
millisecond. Matroska rounds times to milliseconds, so this is what keeps every PTS and duration exact in any
time base; `mux` undoes it. The first PTS is kept in the metadata, and times in the file start at 0.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from .color import BT709, FULL, LIMITED, RGB_MATRIX, FromRgb, guess_matrix, resolve_matrix
from .errors import AV_ERRORS, VideoError, write_error
from .info import UNSPECIFIED, ColorTags, VideoInfo

log = logging.getLogger(__name__)

SEGMENT_TAG = "OASIS_SEGMENT"
SEGMENT_TICK = Fraction(1, 1000)
SEGMENT_SUFFIX = ".mkv"

# Fixed, because x264 and x265 write different bits for different numbers of threads.
_NUM_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Codec:
    encoder: str
    crf: float | None
    preset: str | None
    depths: tuple[int, ...]
    options: dict[str, str] = field(default_factory=dict)


CODECS: dict[str, _Codec] = {
    "h264": _Codec(encoder="libx264", crf=16, preset="medium", depths=(8, 10)),
    "h265": _Codec(
        encoder="libx265",
        crf=18,
        preset="medium",
        depths=(8, 10, 12),
        # Closed groups: a segment must not refer to the one before it.
        options={"x265-params": f"log-level=none:pools={_NUM_THREADS}:frame-threads=2:open-gop=0"},
    ),
    "ffv1": _Codec(
        encoder="ffv1",
        crf=None,
        preset=None,
        depths=(8, 10, 12),
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSpec:
    """Everything that decides how pictures become bits; equal specs give joinable segments."""

    codec: str
    """h264, h265 or ffv1."""
    width: int
    """Pixels; odd sizes are kept (and written as 4:4:4, since 4:2:0 has only even ones)."""
    height: int
    """Pixels."""
    frame_rate: Fraction
    """Average frames per second: a hint for the encoder, the timestamps rule."""
    time_base: Fraction
    """Seconds per PTS unit."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width over height of one pixel."""
    color: ColorTags = ColorTags()
    """Tags to write and to convert with; an unspecified matrix is converted as players will guess it."""
    crf: float | None = None
    """Constant rate factor, lower is better; None is the codec's default. FFV1 is lossless."""
    preset: str | None = None
    """The encoder's speed preset; None is medium."""
    bit_depth: int = 8
    """8, 10 or 12 bits per component."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise VideoError(f"codec must be one of {', '.join(CODECS)}, got {self.codec!r}")
        depths = CODECS[self.codec].depths
        if self.bit_depth not in depths:
            raise VideoError(
                f"bit_depth for {self.codec} must be one of {', '.join(map(str, depths))}, got "
                f"{self.bit_depth}; h265 and ffv1 hold up to 12"
            )
        if self.width < 1 or self.height < 1:
            raise VideoError(f"size must be at least 1x1, got {self.width}x{self.height}")
        if self.crf is not None and not 0 <= self.crf <= 51:
            raise VideoError(f"crf must be from 0 to 51, got {self.crf}")

    @classmethod
    def from_source(
        cls,
        info: VideoInfo,
        *,
        codec: str,
        width: int,
        height: int,
        crf: float | None = None,
        preset: str | None = None,
        bit_depth: int | None = None,
    ) -> EncodeSpec:
        """Return the spec that keeps what the source has: timing, aspect, tags and bit depth.

        Args:
            info: the source.
            codec: h264, h265 or ffv1.
            width: of the output, pixels.
            height: likewise.
            crf: see the field.
            preset: see the field.
            bit_depth: None keeps the source's, as far as the codec can.
        """
        if codec not in CODECS:
            raise VideoError(f"codec must be one of {', '.join(CODECS)}, got {codec!r}")
        if bit_depth is None:
            fitting = [d for d in CODECS[codec].depths if d >= min(info.bit_depth, 12)]
            bit_depth = min(fitting, default=max(CODECS[codec].depths))
        return cls(
            codec=codec,
            width=width,
            height=height,
            frame_rate=info.frame_rate,
            time_base=info.time_base,
            sample_aspect_ratio=info.sample_aspect_ratio,
            color=_output_color(info, codec, width, height),
            crf=crf,
            preset=preset,
            bit_depth=bit_depth,
        )

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the format the encoder is fed."""
        deep = "" if self.bit_depth == 8 else f"{self.bit_depth}le"
        if self.codec == "ffv1":
            return f"gbrp{deep}" if deep else "bgr0"
        is_even = self.width % 2 == 0 and self.height % 2 == 0
        return ("yuv420p" if is_even else "yuv444p") + deep

    @property
    def written_color(self) -> ColorTags:
        """The tags that go into the file: RGB codecs have no YUV matrix, YUV ones need one."""
        tags = self.color
        if self.codec == "ffv1":
            matrix, color_range = RGB_MATRIX, FULL
        elif tags.matrix == RGB_MATRIX:
            matrix, color_range = BT709, LIMITED
        else:
            matrix, color_range = tags.matrix, tags.range
        return ColorTags(
            primaries=tags.primaries,
            transfer=tags.transfer,
            matrix=matrix,
            range=color_range,
            chroma_location=tags.chroma_location,
        )


def _output_color(info: VideoInfo, codec: str, width: int, height: int) -> ColorTags:
    tags = info.color
    matrix = tags.matrix
    # An untagged SD picture enlarged to HD would be shown with HD's matrix: say which one it is.
    if matrix == UNSPECIFIED and codec != "ffv1":
        source = guess_matrix(info.width, info.height)
        matrix = UNSPECIFIED if source == guess_matrix(width, height) else source
    color_range = tags.range
    if color_range == 0 and info.pixel_format.startswith("yuvj"):
        color_range = FULL
    return ColorTags(
        primaries=tags.primaries,
        transfer=tags.transfer,
        matrix=matrix,
        range=color_range,
        chroma_location=tags.chroma_location,
    )


def _encoder_options(spec: EncodeSpec) -> dict[str, str]:
    codec = CODECS[spec.codec]
    options = {"threads": str(_NUM_THREADS), **codec.options}
    if codec.crf is not None:
        options["crf"] = f"{codec.crf if spec.crf is None else spec.crf:g}"
        options["preset"] = spec.preset or codec.preset
        # 4:2:0 chroma lies left, where both encoders' silence puts it; other places are written down.
        if spec.color.chroma_location:
            options["chroma_sample_location"] = str(spec.color.chroma_location)
    return options


def check_encoder(spec: EncodeSpec) -> None:
    """Raise a `VideoError` unless this FFmpeg build can encode by the spec.

    Args:
        spec: what is to be written.
    """
    if CODECS[spec.codec].encoder not in av.codecs_available:
        have = [name for name, codec in CODECS.items() if codec.encoder in av.codecs_available]
        raise VideoError(
            f"this FFmpeg build (PyAV {av.__version__}) has no {CODECS[spec.codec].encoder} encoder for "
            f"{spec.codec}; it can write {', '.join(have) or 'none of the known codecs'}"
        )
    formats = av.Codec(CODECS[spec.codec].encoder, "w").video_formats or ()
    if spec.pixel_format not in [f.name for f in formats]:
        raise VideoError(
            f"this FFmpeg build's {CODECS[spec.codec].encoder} cannot write {spec.pixel_format} "
            f"({spec.bit_depth} bits); use fewer bits or another codec"
        )


class SegmentWriter:
    """Encodes pictures into a segment file; it exists under its name only once it is complete.

    Args:
        path: the segment; it is written as `NAME.part`, synced, and renamed on a clean exit. After an
            exception nothing is left.
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
        self._durations: dict[int, int] = {}
        check_encoder(spec)
        if spec.pixel_format.startswith("yuv444p"):
            log.info(
                "%dx%d is odd, and 4:2:0 has only even sizes; writing 4:4:4",
                spec.width,
                spec.height,
            )
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
            self._discard()
            raise write_error(self.path, error) from error

    def _new_stream(self) -> av.VideoStream:
        spec, tags = self.spec, self.spec.written_color
        stream = self._container.add_stream(
            CODECS[spec.codec].encoder, rate=spec.frame_rate, options=_encoder_options(spec)
        )
        stream.time_base = SEGMENT_TICK
        context = stream.codec_context
        context.width, context.height = spec.width, spec.height
        context.pix_fmt = spec.pixel_format
        context.time_base = spec.time_base
        context.sample_aspect_ratio = spec.sample_aspect_ratio
        context.color_primaries = tags.primaries
        context.color_trc = tags.transfer
        context.colorspace = tags.matrix
        context.color_range = tags.range
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
            self._discard()

    def write(self, pixels: np.ndarray, pts: int, duration: int) -> None:
        """Encode one picture.

        Args:
            pixels: `h w 3` RGB, uint8 over 0..255 or uint16 over 0..65535, of the spec's size.
            pts: when it is shown, in the spec's time base; larger than the one before.
            duration: how long, likewise.
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
        frame = self._from_rgb(pixels)
        frame.pts, frame.time_base = pts, self.spec.time_base
        self._encode(frame)
        self.num_frames += 1

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.duration = self._durations.pop(packet.pts)
                packet.pts -= self._first_pts
                packet.dts -= self._first_pts
                packet.time_base = SEGMENT_TICK
                self._container.mux(packet)
        except AV_ERRORS as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Finish the file, sync it to the disk and give it its name."""
        if self.num_frames == 0:
            self._discard()
            raise ValueError(f"segment {str(self.path)!r} got no frames")
        try:
            self._encode(None)
            self._container.close()
            sync(self._part)
            self._part.replace(self.path)
        except AV_ERRORS as error:
            self._discard()
            if isinstance(error, VideoError):
                raise
            raise write_error(self.path, error) from error

    def _discard(self) -> None:
        container = getattr(self, "_container", None)
        if container is not None:
            try:
                container.close()
            except AV_ERRORS as error:  # what made us discard it is being raised already
                log.debug("closing %s: %s", self._part, error)
        self._part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk, so that a rename cannot outrun them.

    Args:
        path: a closed file.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())
