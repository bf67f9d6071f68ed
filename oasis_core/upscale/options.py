"""What a user may ask of a job from file to file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from ..geometry import plain_number
from ..video import Source, TimeWindow, VideoError, nearest_rate

HALO_FRAMES = 2
"""Frames read on both sides of a segment, unless the user or the model asks for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the user wants the result to be encoded; None leaves the choice."""

    codec: str | None = None
    """One of `oasis_core.video.CODECS`; None is "h264". For videos."""
    crf: float | None = None
    """Constant rate factor of the encoder, lower is better; None is the codec's default. For
    videos."""
    preset: str | None = None
    """Speed preset of the encoder; None is the codec's default. For videos."""
    bit_depth: int | None = None
    """Bits per component of the result; None keeps the source's. For videos."""
    pix_fmt: str | None = None
    """FFmpeg's pixel format of the result; None follows depth and transparency. For videos."""
    quality: int | None = None
    """1 to 100, higher is better; None is the default. For JPEG and WebP pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleOptions:
    """Every choice of `upscale_file` that is not about who wants to be told what."""

    scale: float | None = None
    """Factor for both sides; or `size`."""
    size: tuple[int, int] | None = None
    """Exact (width, height) in pixels."""
    strength: float = 1.0
    """Share of the model's work: 0 is the plain resize, 1 the full model."""
    color_anchor: bool = True
    """Keep the low frequencies of the input."""
    shots: bool = True
    """Find shot cuts and keep shots apart."""
    tile_px: int | None = None
    """Tile side in output pixels, instead of the planned one."""
    segment_frames: int | None = None
    """Frames per segment, instead of the planned number."""
    halo_frames: int = HALO_FRAMES
    """Frames read on both sides of a segment."""
    codec: str | None = None
    """One of `oasis_core.video.CODECS`; None is "h264"."""
    crf: float | None = None
    """Constant rate factor, lower is better; None is the codec's default."""
    preset: str | None = None
    """Speed preset of the encoder."""
    bit_depth: int | None = None
    """Bits per sample of the output; None keeps the source's."""
    pix_fmt: str | None = None
    """FFmpeg's pixel format of the output; None follows depth and transparency."""
    quality: int | None = None
    """1 to 100, of JPEG and WebP pictures."""
    start_s: float | None = None
    """Seconds after the first frame where the piece to do begins; None is the beginning."""
    duration_s: float | None = None
    """Its length in seconds; None is to the end. Sound and all else is cut with it."""
    deinterlace: bool = False
    """Make whole frames of fields."""
    fps: float | str | Fraction | None = None
    """Pictures per second, where the source is pictures."""
    compare: str | None = None
    """"side" or "split" also writes a comparison beside the result: plain resize and result."""
    metadata: bool = True
    """Write into the file's comment how it was made."""
    overwrite: bool = False
    """Replace an existing destination."""
    fresh: bool = False
    """Start over instead of continuing an unfinished run."""

    def __post_init__(self) -> None:
        # Journals are JSON, which knows no numbers of NumPy or torch.
        for field in fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, plain_number(value))
        if self.size is not None:
            object.__setattr__(self, "size", tuple(plain_number(side) for side in self.size))

    @property
    def encoding(self) -> Encoding:
        """The part that is about the encoder."""
        return Encoding(
            codec=self.codec,
            crf=self.crf,
            preset=self.preset,
            bit_depth=self.bit_depth,
            pix_fmt=self.pix_fmt,
            quality=self.quality,
        )

    @property
    def window(self) -> TimeWindow | None:
        """The piece to do; None is everything."""
        if self.start_s is None and self.duration_s is None:
            return None
        return TimeWindow(
            start_s=self.start_s or 0.0,
            duration_s=self.duration_s,
            context_frames=self.halo_frames,
        )

    @property
    def fixed_plan(self) -> dict[str, Any]:
        """Plan values that the user decided."""
        names = ("tile_px", "segment_frames", "halo_frames")
        return {name: getattr(self, name) for name in names}

    def frame_rate(self, source: Source) -> Fraction | None:
        """The rate that the user gave to pictures.

        Args:
            source: What it is for.

        Raises:
            VideoError: It is no rate, or the source is a film and has its own.
        """
        rate = rate_of(self.fps)
        if rate is not None and not source.pictures:
            raise VideoError(
                f"fps is for pictures that become a video, got {self.fps} for the video "
                f"{str(source)!r}, which has its own; leave it out"
            )
        return rate


def rate_of(text: float | str | Fraction | None) -> Fraction | None:
    """A frame rate as a fraction: 23.976 is 24000/1001, as broadcasters mean it.

    Raises:
        VideoError: It is not one.
    """
    return None if text is None else nearest_rate(text)
