"""How pictures are to be encoded: codec, size, quality, depth, timing and colour tags."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

import av

from .color import BT709, FULL, LIMITED, RGB_MATRIX, guess_matrix
from .errors import AV_ERRORS, VideoError, reason
from .info import UNSPECIFIED, ColorTags, VideoInfo

# Fixed, because x264 and x265 write different bits for different numbers of threads.
_NUM_THREADS = 4

PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
"""From quick and large to slow and small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Codec:
    encoder: str
    crf: float | None
    preset: str | None
    depths: tuple[int, ...]
    reorders: bool = True
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
        reorders=False,
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
    color: ColorTags = field(default_factory=ColorTags)
    """Tags to write and to convert with; for an unspecified matrix, the one players will guess."""
    crf: float | None = None
    """Constant rate factor, lower is better; None is the codec's default. FFV1 is lossless."""
    preset: str | None = None
    """One of `PRESETS`; None is medium. FFV1 has none."""
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
        # x264 would complain about an unknown one on the terminal, whatever the log level.
        if self.preset is not None and self.preset not in PRESETS:
            raise VideoError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.frame_rate <= 0 or self.time_base <= 0 or self.sample_aspect_ratio <= 0:
            raise VideoError(
                "frame_rate, time_base and sample_aspect_ratio must be positive, got "
                f"{self.frame_rate}, {self.time_base}, {self.sample_aspect_ratio}"
            )
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
        return replace(tags, matrix=matrix, range=color_range)


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
    return replace(tags, matrix=matrix, range=color_range)


def _encoder_options(spec: EncodeSpec) -> dict[str, str]:
    codec = CODECS[spec.codec]
    options = {"threads": str(_NUM_THREADS), **codec.options}
    if codec.crf is not None:
        options["crf"] = f"{codec.crf if spec.crf is None else spec.crf:g}"
        options["preset"] = spec.preset or codec.preset
        if codec.encoder == "libx264" and is_x264_unrepeatable():
            options["x264-params"] = "asm=AVX2"
        # Silence puts 4:2:0 chroma to the left; other places are written down.
        if spec.color.chroma_location:
            options["chroma_sample_location"] = str(spec.color.chroma_location)
    return options


def is_x264_unrepeatable() -> bool:
    """Return whether x264 would use AVX-512, with which its output differs from run to run.

    Measured (x264 of PyAV 14.2 and 18.1, 30 frames of 320x176, 40 runs): 10 and 19 different files;
    none with AVX2, nor without macroblock-tree. Remove this when the bundled x264 repeats itself.
    """
    import torch

    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def check_encoder(spec: EncodeSpec) -> None:
    """Make sure that this FFmpeg build can encode by the spec, by opening the encoder once.

    Args:
        spec: what is to be written.

    Raises:
        VideoError: it cannot.
    """
    if CODECS[spec.codec].encoder not in av.codecs_available:
        have = [name for name, codec in CODECS.items() if codec.encoder in av.codecs_available]
        raise VideoError(
            f"this FFmpeg build (PyAV {av.__version__}) has no {CODECS[spec.codec].encoder} "
            f"encoder for {spec.codec}; it can write {', '.join(have) or 'none of the codecs'}"
        )
    formats = av.Codec(CODECS[spec.codec].encoder, "w").video_formats or ()
    if spec.pixel_format not in [f.name for f in formats]:
        raise VideoError(
            f"this FFmpeg build's {CODECS[spec.codec].encoder} cannot write {spec.pixel_format} "
            f"({spec.bit_depth} bits); use fewer bits or another codec"
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
    context.time_base = spec.time_base
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
    try:
        context.open()
    except AV_ERRORS as error:
        raise VideoError(
            f"{CODECS[spec.codec].encoder} cannot encode {spec.width}x{spec.height} pixels as "
            f"{spec.pixel_format} at {spec.frame_rate} frames per second ({reason(error)}); use "
            "another size or codec"
        ) from error
