"""What a user may ask of a job from file to file, each option said once.

A field of `UpscaleOptions` says what it is to Python; what stands beside it says how the shell
spells it, whether ComfyUI's nodes show it, and whether it tells unfinished runs apart. The shell's
arguments, their conversion, the nodes' inputs and the journals' identity are made of this.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from .choices import COMPARISONS, ON_CHANGE
from .codecs import CODECS
from .geometry import plain_number
from .option_kinds import (
    FILE,
    MACHINE,
    PICTURE,
    PIECE,
    RUN,
    USUAL,
    Argument,
    Option,
    Widget,
    option,
)
from .sizes import wanted_size
from .words import read_grain, read_size, read_target, read_time

if TYPE_CHECKING:
    from .video import Source, TimeWindow

HALO_FRAMES = 2
"""Frames read on both sides of a segment, unless the user or the model asks for others."""


def _read_path(text: str) -> Any:
    from .remote import as_source

    return as_source(text)


def _mask_fingerprint(mask: Any) -> dict[str, Any]:
    from .finish.mask import fingerprint_of

    return fingerprint_of(mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How the user wants the result to be encoded; None leaves the choice."""

    codec: str | None = option(
        None,
        shell=Argument(
            heading=USUAL,
            choices=tuple(CODECS),
            metavar="CODEC",
            help=f"h264 (default), {', '.join([*CODECS][1:])}",
        ),
    )
    """One of `oasis_core.video.CODECS`; None is "h264". For videos."""
    crf: float | None = option(
        None,
        shell=Argument(heading=USUAL, read=float, help="quality of the encoder; lower is better"),
    )
    """Constant rate factor of the encoder, lower is better; None is the codec's default. For
    videos."""
    preset: str | None = option(
        None,
        shell=Argument(heading=FILE, help="speed of the encoder, like fast; profile of ProRes"),
    )
    """Speed preset of the encoder; None is the codec's default. For videos."""
    bit_depth: int | None = option(None)
    """Bits per component of the result; None keeps the source's. For videos."""
    pix_fmt: str | None = option(
        None,
        shell=Argument(heading=FILE, metavar="FORMAT", help="FFmpeg's name, like yuv444p10le"),
    )
    """FFmpeg's pixel format of the result; None follows depth and transparency. For videos."""
    quality: int | None = option(
        None,
        shell=Argument(heading=FILE, read=int, help="of JPEG and WebP, 1 to 100 (default 95)"),
    )
    """1 to 100, higher is better; None is the default. For JPEG and WebP pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleOptions(Encoding):
    """Every choice of `upscale_file` that is not about who wants to be told what."""

    scale: float | None = option(
        None,
        shell=Argument(
            heading=USUAL,
            read=float,
            help="factor for both sides (default 4, or an image model's own; 1 restores)",
        ),
    )
    """Factor for both sides; or `size`; or `fit`."""
    size: tuple[int, int] | str | None = option(
        None,
        shell=Argument(
            heading=USUAL,
            read=read_target,
            metavar="SIZE",
            help="of the result: WxH exactly, or its shorter side: 720p, 1080p, 1440p, 4k",
        ),
    )
    """Exact (width, height) in pixels, or a name of `choices.SHORT_SIDES_PX` for the shorter
    side."""
    fit: tuple[int, int] | None = option(
        None,
        shell=Argument(
            heading=USUAL,
            read=read_size,
            metavar="WxH",
            help="the largest size of the source's shape inside a box",
        ),
        node=Widget(
            tooltip="The largest size of the picture's shape inside a box, such as 1920x1080, in "
            "place of target and scale. Empty: no box.",
        ),
    )
    """(width, height) in pixels of a box that the result fills while it keeps its shape."""
    max_side: int | None = option(
        None,
        shell=Argument(
            heading=PICTURE, read=int, metavar="PX", help="longest side of the result at most"
        ),
        node=Widget(
            low=0,
            high=32768,
            step=2,
            tooltip="The longer side of the result is at most so many pixels; its shape stays. 0: "
            "no limit.",
        ),
    )
    """Greatest length of the result's longer side in pixels; None sets no limit."""
    even: bool = option(
        False,
        shell=Argument(
            heading=PICTURE,
            switches_to=True,
            help="make odd sides of the result even, one pixel less, so that every player takes it",
        ),
        node=Widget(
            tooltip="Make odd sides of the result even, by one pixel less. Video of odd sides has "
            "full colour resolution (4:4:4), which many players do not show.",
        ),
    )
    """Whether odd sides of the result become even, which 4:2:0 video needs."""
    strength: float = option(
        1.0,
        identity="always",
        shell=Argument(heading=USUAL, read=float, help="0: plain resize ... 1: the model in full"),
        node=Widget(
            low=0.0,
            high=1.0,
            step=0.05,
            is_advanced=False,
            is_later=False,
            tooltip="Share of the model's work: 0 is the plain resize, 1 the full model. Lower it "
            "when the result looks too sharp or invented.",
        ),
    )
    """Share of the model's work: 0 is the plain resize, 1 the full model."""
    color_anchor: bool = option(
        True,
        identity="always",
        shell=Argument(
            heading=PICTURE, words={"on": True, "off": False}, help="keep the source's colours"
        ),
        node=Widget(
            is_later=False,
            tooltip="Keep colours and brightness of the input: only detail may change.",
        ),
    )
    """Whether the low frequencies of the input are kept."""
    steady: float = option(
        0.0,
        identity="when set",
        shell=Argument(
            heading=PICTURE,
            read=float,
            metavar="0..1",
            help="take flicker out: average along motion, 7 frames around",
        ),
        node=Widget(
            low=0.0,
            high=1.0,
            step=0.05,
            tooltip="Takes flicker and shimmer out: how much of the average of each picture with "
            "the frames around, moved to where it is and only where they show the same. 0 leaves "
            "it out; 1 is steadiest. Best with image upscalers.",
        ),
    )
    """How much of the average along motion is taken, which takes flicker out: 0 is none of it."""
    shots: bool = option(
        True,
        identity="always",
        shell=Argument(
            heading=PICTURE,
            words={"auto": True, "off": False},
            help="find cuts and keep shots apart",
        ),
        node=Widget(
            is_later=False,
            tooltip="Find cuts and never mix frames of different shots. Off treats everything as "
            "one shot.",
        ),
    )
    """Whether shot cuts are found and shots kept apart."""
    grain: float | str | None = option(
        None,
        identity="when set",
        shell=Argument(
            heading=PICTURE,
            read=read_grain,
            metavar="0..1|auto",
            help="lay film grain on the result: an amount, or auto, the source's own",
        ),
        node=Widget(
            choices=("off", "auto", "0.1", "0.2", "0.3", "0.4", "0.5", "0.75", "1"),
            tooltip="Film grain laid on the finished pictures, new in every frame. auto measures "
            "the grain of the video and gives the result as much; a number is an amount of a "
            "print's grain, higher is stronger. off lays none.",
        ),
    )
    """Film grain on the result: 0 to 1, or "auto" for the source's own; None is none."""
    grain_seed: int = option(0, identity="when set")
    """Another seed is another grain of the same kind."""
    mask: Any = option(  # noqa: RUF009 (makes a field)
        None,
        identity="when set",
        identify=_mask_fingerprint,
        shell=Argument(
            heading=PICTURE,
            read=_read_path,
            metavar="FILE",
            help="picture, in_%%05d.png or film: black keeps the plain resize, white is the model",
        ),
        node=Widget(
            socket="MASK",
            tooltip="Where the model's work counts: 0 is the plain resize, 1 the model, soft edges "
            "mix both. One mask holds for all frames, or there is one for each; any size.",
        ),
    )
    """Where the model's work counts: a picture, a sequence or a film, or `t h w` in [0, 1]; 0 is
    the plain resize, 1 the model. One picture holds for all frames; None is 1 everywhere."""
    tile_px: int | None = option(
        None,
        identity="always",
        shell=Argument(
            heading=MACHINE,
            flag="--tile",
            read=int,
            metavar="PX",
            help="tile side in output pixels",
        ),
        node=Widget(
            low=0,
            high=8192,
            step=32,
            is_later=False,
            tooltip="Side of a tile in output pixels; 0 lets free memory decide. Smaller needs "
            "less memory and takes longer.",
        ),
    )
    """Tile side in output pixels, instead of the planned one."""
    segment_frames: int | None = option(
        None,
        identity="always",
        shell=Argument(
            heading=MACHINE,
            flag="--segment",
            read=int,
            metavar="FRAMES",
            help="frames worked on at once",
        ),
        node=Widget(
            low=0,
            high=1024,
            is_later=False,
            tooltip="Frames upscaled together; 0 lets free memory decide. More needs more memory "
            "and wastes less on the frames that neighbouring segments share.",
        ),
    )
    """Frames per segment, instead of the planned number."""
    halo_frames: int = option(HALO_FRAMES, identity="always")
    """Frames read on both sides of a segment."""
    deinterlace: bool = option(
        False,
        shell=Argument(heading=PICTURE, switches_to=True, help="make whole frames of fields"),
        node=Widget(
            nodes=("video",),
            tooltip="Make whole frames of the fields of interlaced video, such as old broadcasts "
            "and tapes, before upscaling. Leave it off for all other video.",
        ),
    )
    """Whether whole frames are made of fields."""
    on_change: str = option(
        "stop",
        shell=Argument(
            heading=PICTURE,
            choices=ON_CHANGE,
            help="where the film goes on in another size or shape: stop (default), or fit the rest "
            "into the first",
        ),
        node=Widget(
            nodes=("video",),
            choices=ON_CHANGE,
            tooltip="What to do where a recording goes on in another size, shape of pixels or kind "
            "of light: stop and say where, or scale what comes later to fit into the first "
            "picture, with black bars where shapes differ.",
        ),
    )
    """Where the source goes on in another size, shape of pixels or kind of light: "stop", with what
    comes before done, or "scale" what comes later to fit into the first."""
    start_s: float | None = option(
        None,
        shell=Argument(
            heading=PIECE,
            flag="--start",
            read=read_time,
            metavar="TIME",
            help="begin here, not at 0",
        ),
    )
    """Seconds after the first frame where the piece to do begins; None is the beginning."""
    duration_s: float | None = option(
        None,
        shell=Argument(
            heading=PIECE,
            flag="--duration",
            read=read_time,
            metavar="TIME",
            help="stop after so much",
        ),
    )
    """Length of the piece in seconds; None is to the end. Sound and all else is cut with it."""
    compare: str | None = option(
        None,
        shell=Argument(
            heading=PIECE,
            choices=COMPARISONS,
            bare="side",
            help="also write NAME.compare.mp4 (or pictures): plain resize and result",
        ),
    )
    """"side" or "split" also writes a comparison beside the result: plain resize and result."""
    fps: float | str | Fraction | None = option(  # noqa: RUF009 (makes a field)
        None,
        shell=Argument(
            heading=PIECE, metavar="RATE", help="of pictures that become a video: 24, 23.976"
        ),
    )
    """Pictures per second, where the source is pictures."""
    metadata: bool = option(
        True,
        shell=Argument(
            heading=FILE,
            flag="--no-metadata",
            switches_to=False,
            help="do not note in the file how it was made",
        ),
    )
    """Whether to write into the file's comment how it was made."""
    overwrite: bool = option(
        False, shell=Argument(heading=USUAL, switches_to=True, help="replace DST if it exists")
    )
    """Whether an existing destination is replaced."""
    fresh: bool = option(
        False,
        shell=Argument(
            heading=RUN,
            switches_to=True,
            help="forget an interrupted run instead of continuing it",
        ),
    )
    """Whether to start over instead of continuing an unfinished run."""

    def __post_init__(self) -> None:
        # Journals are JSON, which knows no numbers of NumPy or torch.
        for option_field in fields(self):
            value = getattr(self, option_field.name)
            object.__setattr__(self, option_field.name, plain_number(value))
        object.__setattr__(self, "grain", read_grain(self.grain))
        if self.mask is not None:
            from .finish.mask import Mask

            object.__setattr__(self, "mask", Mask.of(self.mask))
        for name in ("size", "fit"):
            sides = getattr(self, name)
            if sides is not None and not isinstance(sides, str):
                object.__setattr__(self, name, tuple(plain_number(side) for side in sides))
        if self.on_change not in ON_CHANGE:
            raise ValueError(
                f"on_change must be one of {', '.join(ON_CHANGE)}, got {self.on_change!r}"
            )

    @property
    def encoding(self) -> Encoding:
        """The part that is about the encoder."""
        return Encoding(**{part.name: getattr(self, part.name) for part in fields(Encoding)})

    @property
    def window(self) -> TimeWindow | None:
        """The piece to do; None is everything."""
        from .video import TimeWindow

        if self.start_s is None and self.duration_s is None:
            return None
        return TimeWindow(
            start_s=self.start_s or 0.0,
            duration_s=self.duration_s,
            context_frames=self.halo_frames,
        )

    def target_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a source of this size in pixels.

        Raises:
            ValueError: See `oasis_core.sizes.wanted_size`.
        """
        return wanted_size(
            width,
            height,
            scale=self.scale,
            size=self.size,
            fit=self.fit,
            max_side=self.max_side,
            even=self.even,
        )

    @property
    def fixed_plan(self) -> dict[str, Any]:
        """Plan values that the user decided, by their names; None where nobody did."""
        names = ("tile_px", "segment_frames", "halo_frames")
        return {name: getattr(self, name) for name in names}

    def identity(self, kind: Literal["always", "when set"]) -> dict[str, Any]:
        """What journals say of the options that tell unfinished runs apart, as JSON values.

        Args:
            kind: "always" for those that every journal has; "when set" for the others, which are
                there where they are not at their default.
        """
        return {
            choice.name: choice.identify(getattr(self, choice.name))
            for choice in OPTIONS.values()
            if choice.identity == kind
            and (kind == "always" or getattr(self, choice.name) != choice.default)
        }

    def frame_rate(self, source: Source) -> Fraction | None:
        """The rate that the user gave to pictures.

        Args:
            source: What it is for.

        Raises:
            VideoError: It is no rate, or the source is a film and has its own.
        """
        from .video import VideoError

        rate = rate_of(self.fps)
        if rate is not None and not source.pictures:
            raise VideoError(
                f"fps is for pictures that become a video, got {self.fps} for the video "
                f"{str(source)!r}, which has its own; leave it out"
            )
        return rate


OPTIONS: dict[str, Option] = {
    part.name: Option(name=part.name, default=part.default, **part.metadata)
    for part in fields(UpscaleOptions)
}
"""Every option by its name, in the order in which the shell's help lists those of a heading."""


def rate_of(text: float | str | Fraction | None) -> Fraction | None:
    """A frame rate as a fraction: 23.976 is 24000/1001, as broadcasters mean it.

    Raises:
        VideoError: It is not one.
    """
    from .video import nearest_rate

    return None if text is None else nearest_rate(text)
