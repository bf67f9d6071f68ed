"""How pictures are to be encoded: codec, size, quality, depth, timing and colour tags."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

import av

from ..codecs import ALPHA_CODECS, CODECS, NUM_THREADS
from .color import BT709, FULL, LIMITED, RGB_MATRIX, guess_matrix
from .errors import AV_ERRORS, VideoError, reason
from .hdr import HdrMetadata
from .info import UNSPECIFIED, ColorTags, VideoInfo, bit_depth_of

MOST_TICKS = (1 << 31) - 1
"""FFmpeg's fractions are of 32-bit whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSpec:
    """Everything that decides how pictures become bits; equal specs give joinable segments."""

    codec: str
    """One of `CODECS`."""
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
    color: ColorTags = field(default_factory=ColorTags)
    """Tags to write and to convert with; for an unspecified matrix, the one players will guess."""
    crf: float | None = None
    """Constant rate factor or its like, lower is better; None is the codec's default."""
    preset: str | None = None
    """Speed of the encoder, or profile of ProRes, among the codec's; None is its default."""
    bit_depth: int = 8
    """Bits per component, among the codec's."""
    has_alpha: bool = False
    """Whether pictures have transparency."""
    pix_fmt: str | None = None
    """FFmpeg's pixel format, if a particular one is wanted; depth and alpha follow from it."""
    hdr: HdrMetadata = field(default_factory=HdrMetadata)
    """HDR10's static metadata to write."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise VideoError(f"codec must be one of {', '.join(CODECS)}, got {self.codec!r}")
        codec = CODECS[self.codec]
        if self.pix_fmt is None and self.bit_depth not in codec.depths:
            raise VideoError(
                f"bit_depth for {self.codec} must be one of {', '.join(map(str, codec.depths))}, "
                f"got {self.bit_depth}; h265 and ffv1 hold up to 12"
            )
        if self.pix_fmt is None and self.has_alpha and self.bit_depth not in codec.alpha_formats:
            raise VideoError(
                f"{self.codec} has no transparency; use one of {', '.join(ALPHA_CODECS)}"
            )
        if self.width < 1 or self.height < 1:
            raise VideoError(f"size must be at least 1x1, got {self.width}x{self.height}")
        if self.frame_rate <= 0 or self.time_base <= 0 or self.sample_aspect_ratio <= 0:
            raise VideoError(
                "frame_rate, time_base and sample_aspect_ratio must be positive, got "
                f"{self.frame_rate}, {self.time_base}, {self.sample_aspect_ratio}"
            )
        ratios = (rate.as_integer_ratio() for rate in (self.frame_rate, self.time_base))
        if max(map(max, ratios)) > MOST_TICKS:
            raise VideoError(
                f"frame_rate and time_base must be fractions of numbers up to {MOST_TICKS}, got "
                f"{self.frame_rate} and {self.time_base}; nearest_rate finds the frame rate that a "
                "number such as 29.97 stands for"
            )
        self._check_quality()

    def _check_quality(self) -> None:
        codec = CODECS[self.codec]
        # x264 would complain about an unknown one on the terminal, whatever the log level.
        if self.preset is not None and self.preset not in codec.presets:
            rule = f"one of {', '.join(codec.presets)}" if codec.presets else "left out"
            raise VideoError(f"preset for {self.codec} must be {rule}, got {self.preset!r}")
        if self.crf is None:
            return
        if codec.crf is None:
            remedy = "choose a profile with --preset" if codec.presets else "leave it out"
            raise VideoError(f"crf means nothing to {self.codec}, got {self.crf:g}; {remedy}")
        best, worst = codec.crf_range
        if not best <= self.crf <= worst:
            raise VideoError(
                f"crf must be from {best:g} to {worst:g} for {self.codec}, got {self.crf}"
            )

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
        pix_fmt: str | None = None,
    ) -> EncodeSpec:
        """Return the spec that keeps what the source has: timing, aspect, tags and bit depth.

        Args:
            info: the source.
            codec: one of `CODECS`.
            width: of the output, pixels.
            height: likewise.
            crf: see the field.
            preset: see the field.
            bit_depth: None keeps the source's, as far as the codec can.
            pix_fmt: see the field.
        """
        if codec not in CODECS:
            raise VideoError(f"codec must be one of {', '.join(CODECS)}, got {codec!r}")
        has_alpha = info.has_alpha and bool(CODECS[codec].alpha_formats)
        if pix_fmt is not None:
            bit_depth, has_alpha = _facts_of(pix_fmt)
        elif bit_depth is None:
            depths = CODECS[codec].depths
            bit_depth = min((d for d in depths if d >= info.bit_depth), default=max(depths))
        is_rgb = _is_rgb(pix_fmt) if pix_fmt else CODECS[codec].is_rgb
        return cls(
            codec=codec,
            width=width,
            height=height,
            frame_rate=info.frame_rate,
            time_base=info.time_base,
            sample_aspect_ratio=info.sample_aspect_ratio,
            color=_output_color(info, width, height, is_rgb=is_rgb),
            crf=crf,
            preset=preset,
            bit_depth=bit_depth,
            has_alpha=has_alpha,
            pix_fmt=pix_fmt,
            hdr=info.hdr,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EncodeSpec:
        """Return the spec that `to_json` described."""
        fractions = ("frame_rate", "time_base", "sample_aspect_ratio")
        hdr = {name: tuple(numbers) for name, numbers in values["hdr"].items()}
        plain = {name: Fraction(values[name]) for name in fractions}
        parts = {"color": ColorTags(**values["color"]), "hdr": HdrMetadata(**hdr)}
        return cls(**{**values, **plain, **parts})

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        values = asdict(self)
        values["hdr"] = {name: list(numbers) for name, numbers in values["hdr"].items()}
        return {k: str(v) if isinstance(v, Fraction) else v for k, v in values.items()}

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the format the encoder is fed."""
        if self.pix_fmt is not None:
            return self.pix_fmt
        codec = CODECS[self.codec]
        if self.has_alpha:
            return codec.alpha_formats[self.bit_depth]
        is_even = self.width % 2 == 0 and self.height % 2 == 0
        if self.bit_depth in codec.full_chroma_formats and (
            not is_even or self.preset in codec.full_chroma_presets
        ):
            return codec.full_chroma_formats[self.bit_depth]
        if self.bit_depth in codec.formats:
            return codec.formats[self.bit_depth]
        deep = "" if self.bit_depth == 8 else f"{self.bit_depth}le"
        return ("yuv420p" if is_even else "yuv444p") + deep

    @property
    def encoder_tick(self) -> Fraction:
        """Seconds per tick of the encoder's own clock."""
        return 1 / self.frame_rate if CODECS[self.codec].counts else self.time_base

    @property
    def written_color(self) -> ColorTags:
        """The tags that go into the file: RGB codecs have no YUV matrix, YUV ones need one."""
        tags = self.color
        if _is_rgb(self.pixel_format):
            matrix, color_range = RGB_MATRIX, FULL
        elif tags.matrix == RGB_MATRIX:
            matrix, color_range = BT709, LIMITED
        else:
            matrix, color_range = tags.matrix, tags.range
        if not CODECS[self.codec].full_range:
            color_range = LIMITED  # it is read as limited
        return replace(tags, matrix=matrix, range=color_range)


def _is_rgb(pixel_format: str) -> bool:
    return av.VideoFormat(pixel_format).is_rgb


def _facts_of(pixel_format: str) -> tuple[int, bool]:
    """Return bits and transparency of a pixel format that was asked for by name."""
    try:
        kind = av.VideoFormat(pixel_format)
    except ValueError as error:
        raise VideoError(
            f"pix_fmt must be a pixel format of FFmpeg, such as yuv420p10le, got {pixel_format!r}"
        ) from error
    if not kind.components or kind.has_palette:
        raise VideoError(f"pix_fmt {pixel_format!r} cannot be made here; use yuv or rgb formats")
    return bit_depth_of(kind), any(component.is_alpha for component in kind.components)


def _output_color(info: VideoInfo, width: int, height: int, *, is_rgb: bool) -> ColorTags:
    tags = info.color
    matrix = tags.matrix
    # An untagged SD picture enlarged to HD would be shown with HD's matrix: say which one it is.
    if matrix == UNSPECIFIED and not is_rgb:
        source = guess_matrix(info.width, info.height)
        matrix = UNSPECIFIED if source == guess_matrix(width, height) else source
    color_range = tags.range
    if color_range == 0 and info.pixel_format.startswith("yuvj"):
        color_range = FULL
    return replace(tags, matrix=matrix, range=color_range)


def _encoder_options(spec: EncodeSpec) -> dict[str, str]:
    codec = CODECS[spec.codec]
    options = {} if codec.needs else {"threads": str(NUM_THREADS)}
    options |= codec.options
    if codec.crf is not None:
        quality = f"{codec.crf if spec.crf is None else spec.crf:g}"
        options |= dict.fromkeys(codec.crf_options, quality)
    if codec.presets:
        options[codec.preset_option] = spec.preset or codec.preset or ""
    options |= codec.options_of(spec)
    # Silence puts 4:2:0 chroma to the left; other places are written down.
    if spec.color.chroma_location and codec.crf is not None:
        options["chroma_sample_location"] = str(spec.color.chroma_location)
    return options


def available_codecs() -> list[str]:
    """Return the codecs whose encoders this FFmpeg build has; hardware may still be missing."""
    usable = {name: codec for name, codec in CODECS.items() if not codec.takes_surfaces}
    return [name for name, codec in usable.items() if codec.encoder in av.codecs_available]


def check_encoder(spec: EncodeSpec) -> None:
    """Make sure that this FFmpeg build can encode by the spec, by opening the encoder once.

    Args:
        spec: what is to be written.

    Raises:
        VideoError: it cannot.
    """
    codec = CODECS[spec.codec]
    if codec.takes_surfaces:
        raise VideoError(
            f"{spec.codec} takes pictures that lie on the GPU, which PyAV {av.__version__} cannot "
            "put there; use h264_qsv on Intel, h264_amf on AMD (or their h265 and av1), or h264, "
            "h265 or av1 on the CPU"
        )
    if codec.encoder not in av.codecs_available:
        raise VideoError(
            f"this FFmpeg build (PyAV {av.__version__}) has no {codec.encoder} encoder for "
            f"{spec.codec}; it can write {', '.join(available_codecs()) or 'none of the codecs'}"
        )
    formats = [f.name for f in av.Codec(codec.encoder, "w").video_formats or ()]
    if spec.pixel_format not in formats:
        remedy = f"it can write {', '.join(formats)}" if spec.pix_fmt else "use another codec"
        raise VideoError(
            f"this FFmpeg build's {codec.encoder} cannot write {spec.pixel_format} "
            f"({spec.bit_depth} bits); {remedy}"
        )
    trial = av.CodecContext.create(CODECS[spec.codec].encoder, "w")
    configure(trial, spec)
    open_encoder(trial, spec)


def configure(context: av.VideoCodecContext, spec: EncodeSpec) -> None:
    """Set an encoder up, short of opening it.

    Args:
        context: of the spec's encoder.
        spec: what is to be written.
    """
    tags = spec.written_color
    context.width, context.height = spec.width, spec.height
    context.pix_fmt = spec.pixel_format
    context.time_base = spec.encoder_tick
    context.framerate = spec.frame_rate
    context.sample_aspect_ratio = spec.sample_aspect_ratio
    context.color_primaries = tags.primaries
    context.color_trc = tags.transfer
    context.colorspace = tags.matrix
    context.color_range = tags.range
    context.options = _encoder_options(spec)


def open_encoder(context: av.VideoCodecContext, spec: EncodeSpec) -> None:
    """Open an encoder, or say that it refuses the spec.

    Args:
        context: configured.
        spec: for the sentence.

    Raises:
        VideoError: the encoder refuses, most often because the picture is too small.
    """
    # SVT-AV1 would print its settings on the terminal; this is the only way to tell it not to.
    os.environ.setdefault("SVT_LOG", "1")
    try:
        context.open()
    except AV_ERRORS as error:
        if needs := CODECS[spec.codec].needs:
            raise VideoError(
                f"{spec.codec} could not be started ({reason(error)}): it needs {needs}; use h264, "
                "h265 or av1 to encode on the CPU"
            ) from error
        raise VideoError(
            f"{CODECS[spec.codec].encoder} cannot encode {spec.width}x{spec.height} pixels as "
            f"{spec.pixel_format} at {spec.frame_rate} frames per second ({reason(error)}); use "
            "another size or codec"
        ) from error
