"""What is known about a video file before its frames are read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from .hdr import HdrMetadata, hdr_of
from .linear_light import is_float
from .orientation import Orientation
from .side_data import lines_about

if TYPE_CHECKING:
    import av

UNSPECIFIED = 2
"""FFmpeg's "unspecified" for primaries, transfer and matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorTags:
    """How numbers in the file mean colours, in FFmpeg's (that is ITU-T H.273's) code points."""

    primaries: int = UNSPECIFIED
    """AVColorPrimaries."""
    transfer: int = UNSPECIFIED
    """AVColorTransferCharacteristic."""
    matrix: int = UNSPECIFIED
    """AVColorSpace; 0 is RGB."""
    range: int = 0
    """AVColorRange: 0 unspecified, 1 limited (16 to 235), 2 full (0 to 255)."""
    chroma_location: int = 0
    """AVChromaLocation to write; 0 is left, where H.264 and H.265 put it. Not read from files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """A video file as `VideoReader` will deliver it: upright, in the stream's own time base."""

    path: Path
    """Where it is."""
    container: str
    """FFmpeg's name of the container format."""
    codec: str
    """FFmpeg's name of the video codec."""
    width: int
    """Pixels of an upright row; the sample aspect ratio is not applied."""
    height: int
    """Pixels of an upright column."""
    rotation_deg: int
    """Clockwise turn the reader applies: 0, 90, 180 or 270."""
    is_mirrored: bool
    """Whether the reader also mirrors."""
    sample_aspect_ratio: Fraction
    """Width over height of one upright pixel; 1 when the file does not say."""
    frame_rate: Fraction
    """Average frames per second."""
    time_base: Fraction
    """Seconds per PTS unit."""
    start_pts: int
    """PTS of the first frame."""
    num_frames: int | None
    """Frames the container claims to hold; None when it does not say."""
    duration_s: float | None
    """Length of the picture in seconds, as the container claims it."""
    pixel_format: str
    """FFmpeg's name of the stored pixel format."""
    bit_depth: int
    """Bits per component."""
    has_alpha: bool
    """Whether the stored pixels carry transparency."""
    color: ColorTags
    """As the file is tagged; nothing is guessed here."""
    is_interlaced: bool
    """Whether the first frame is flagged as interlaced."""
    hdr: HdrMetadata = field(default_factory=HdrMetadata)
    """HDR10's static metadata of the first frame."""
    is_linear: bool = False
    """Whether the samples are floating-point amounts of light, without an upper bound."""
    frame_times: tuple[int, ...] | None = None
    """PTS of every frame, where the file is small enough to list them; None elsewhere."""
    not_kept: tuple[str, ...] = ()
    """One line for each thing beside the pixels that no output has: captions, 3D marks, ..."""
    audio_streams: tuple[str, ...] = ()
    """One line each, for people: codec, language, title."""
    subtitle_streams: tuple[str, ...] = ()
    """Likewise."""
    other_streams: tuple[str, ...] = ()
    """Likewise: cover pictures, attachments, data, further video tracks."""


def is_picture(stream: av.stream.Stream) -> bool:
    """Return whether a video stream is a cover picture and not a film."""
    return bool(stream.disposition.value & 0x400)  # AV_DISPOSITION_ATTACHED_PIC


def describe_stream(stream: av.stream.Stream) -> str:
    """Return a stream in a few words: kind and index, codec, language, title."""
    codec = stream.codec_context.name if stream.codec_context else getattr(stream, "name", None)
    kind = "cover picture" if stream.type == "video" and is_picture(stream) else stream.type
    details = (codec, stream.metadata.get("language"), stream.metadata.get("title"))
    text = ", ".join(d for d in details if d and d != "und")
    return f"{kind} #{stream.index}" + (f" ({text})" if text else "")


def frame_rate_of(stream: av.VideoStream) -> Fraction:
    """Return the average frame rate, falling back to FFmpeg's guesses, then to 25."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < rate <= 1000:
            return Fraction(rate)
    return Fraction(25)


def _claimed_frames(stream: av.VideoStream) -> int | None:
    if stream.frames > 0:
        return stream.frames
    # Matroska: mkvmerge's statistics tags, possibly with a language suffix.
    for key, value in stream.metadata.items():
        if key.upper().startswith("NUMBER_OF_FRAMES") and value.strip().isdigit():
            return int(value)
    return None


def bit_depth_of(pixel_format: av.VideoFormat) -> int:
    """Return the bits of the deepest component; floating-point formats count as 16."""
    if pixel_format.has_palette:
        return 8
    return min(16, max(component.bits for component in pixel_format.components))


def describe(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    first_frame: av.VideoFrame,
    orientation: Orientation,
    side_data: dict[str, bytes],
) -> VideoInfo:
    """Return the facts about an opened file whose first frame was decoded.

    Args:
        path: the file.
        container: opened for reading.
        stream: its film.
        first_frame: the first decoded frame, with a PTS.
        orientation: what makes its pixels upright.
        side_data: of that frame.
    """
    context = stream.codec_context
    width, height = first_frame.width, first_frame.height
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if orientation.transpose:
        width, height, aspect = height, width, 1 / aspect
    duration_s = None
    if stream.duration is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / 1_000_000
    others = [s for s in container.streams if s.index != stream.index]
    return VideoInfo(
        path=path,
        container=container.format.name,
        codec=context.name,
        width=width,
        height=height,
        rotation_deg=orientation.rotation_deg,
        is_mirrored=orientation.is_mirrored,
        sample_aspect_ratio=Fraction(aspect),
        frame_rate=frame_rate_of(stream),
        time_base=Fraction(stream.time_base),
        start_pts=first_frame.pts,
        num_frames=_claimed_frames(stream),
        duration_s=duration_s,
        pixel_format=first_frame.format.name,
        bit_depth=bit_depth_of(first_frame.format),
        has_alpha=any(c.is_alpha for c in first_frame.format.components),
        color=_color_of(context, first_frame),
        is_interlaced=bool(first_frame.interlaced_frame),
        hdr=hdr_of(side_data),
        not_kept=_limits(first_frame) + tuple(dict.fromkeys(lines_about(side_data).values())),
        audio_streams=tuple(describe_stream(s) for s in others if s.type == "audio"),
        subtitle_streams=tuple(describe_stream(s) for s in others if s.type == "subtitle"),
        other_streams=tuple(
            describe_stream(s) for s in others if s.type not in ("audio", "subtitle")
        ),
    )


def in_frames(info: VideoInfo, step_s: Fraction | None) -> VideoInfo:
    """Return the facts of a film whose index counts fields, with its frames instead.

    Args:
        info: as the container has it.
        step_s: seconds from one picture to the next; None where that is not known.
    """
    rate = info.frame_rate
    if step_s is not None and step_s > 0 and rate * step_s > Fraction(3, 2):
        rate /= 2
    return replace(info, frame_rate=rate, num_frames=None)


def _limits(frame: av.VideoFrame) -> tuple[str, ...]:
    """Return a line for what the frames of a film lose by being read as coded values."""
    if not is_float(frame.format):
        return ()
    return (f"samples below 0 and above 1 ({frame.format.name}): limited, a film is read as coded",)


def _color_of(context: av.VideoCodecContext, frame: av.VideoFrame) -> ColorTags:
    # A decoded frame knows matrix and range best: the bitstream may say more.
    if frame.format.name.startswith("xyz"):  # swscale turns it into BT.709's red, green and blue
        return ColorTags(primaries=1, transfer=1)

    def known(value: int, unknown: int, fallback: int) -> int:
        return int(fallback) if value == unknown else int(value)

    return ColorTags(
        primaries=int(context.color_primaries),
        transfer=int(context.color_trc),
        matrix=known(frame.colorspace, UNSPECIFIED, context.colorspace),
        range=known(frame.color_range, 0, context.color_range),
    )
