"""The codecs that can be written, and how each encoder wants to be told what to do."""

from __future__ import annotations

from dataclasses import dataclass, field

PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
"""From quick and large to slow and small, for x264, x265 and Intel's encoders."""

# Fixed, because x264 and x265 write different bits for different numbers of threads.
NUM_THREADS = 4

X265_LEAST_CUTREE_WIDTH = 50
"""x265 4.2 writes past the end of its cutree arrays, into the heap of the process, where pictures
are narrower (measured with glibc's MALLOC_CHECK_ at every even width from 16 to 298: free() finds
the damage up to 48 and never above; without cutree never)."""

_PRORES_PROFILES = ("proxy", "lt", "standard", "hq", "4444", "4444xq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One way to encode a film."""

    encoder: str
    """FFmpeg's name."""
    depths: tuple[int, ...]
    """Bits per component it is used with."""
    containers: tuple[str, ...] = ("mp4", "mov", "matroska")
    """FFmpeg's muxers that hold it."""
    crf: float | None = None
    """Quality if none is asked for; None: the encoder has no such number."""
    crf_range: tuple[float, float] = (0, 51)
    """Best and worst quality number."""
    crf_options: tuple[str, ...] = ("crf",)
    """Options that take the number."""
    presets: tuple[str, ...] = ()
    """Speeds it knows; none: it has no such choice."""
    preset: str | None = None
    """Speed if none is asked for."""
    preset_option: str = "preset"
    """Option that takes it."""
    formats: dict[int, str] = field(default_factory=dict)
    """Pixel format by bits, where it is not planar 4:2:0."""
    alpha_formats: dict[int, str] = field(default_factory=dict)
    """Pixel format by bits with transparency; none: it has none."""
    says_aspect: bool = True
    """Whether its own bits say what shape a pixel has, so that any container will do."""
    reorders: bool = True
    """Whether pictures may be coded in another order than they are shown."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options."""
    needs: str = ""
    """What a hardware encoder needs besides the FFmpeg build."""
    takes_surfaces: bool = False
    """Whether it takes pictures that lie on the GPU only, which PyAV cannot put there."""


def _nvenc(encoder: str, depths: tuple[int, ...] = (8, 10)) -> Codec:
    return Codec(
        encoder=encoder,
        depths=depths,
        containers=("mp4", "matroska") if "av1" in encoder else ("mp4", "mov", "matroska"),
        says_aspect="av1" not in encoder,
        crf=19,
        crf_options=("cq",),
        presets=tuple(f"p{n}" for n in range(1, 8)),
        preset="p5",
        formats={10: "p010le"},
        options={"rc": "vbr", "b": "0", "forced-idr": "1"},
        needs="an NVIDIA GPU with a video encoder (data-centre cards such as H100 have none)",
    )


def _qsv(encoder: str, depths: tuple[int, ...] = (8, 10)) -> Codec:
    return Codec(
        encoder=encoder,
        depths=depths,
        containers=("mp4", "matroska") if "av1" in encoder else ("mp4", "mov", "matroska"),
        says_aspect="av1" not in encoder,
        crf=19,
        crf_range=(1, 51),
        crf_options=("global_quality",),
        presets=PRESETS[2:],
        preset="medium",
        formats={8: "nv12", 10: "p010le"},
        needs="an Intel GPU with Quick Sync and its driver",
    )


def _amf(encoder: str, depths: tuple[int, ...] = (8, 10)) -> Codec:
    return Codec(
        encoder=encoder,
        depths=depths,
        containers=("mp4", "matroska") if "av1" in encoder else ("mp4", "mov", "matroska"),
        says_aspect="av1" not in encoder,
        crf=19,
        crf_options=("qp_i", "qp_p"),
        presets=("speed", "balanced", "quality"),
        preset="quality",
        preset_option="quality",
        formats={8: "nv12", 10: "p010le"},
        options={"rc": "cqp"},
        needs="an AMD GPU and its driver",
    )


def _videotoolbox(encoder: str, depths: tuple[int, ...]) -> Codec:
    return Codec(
        encoder=encoder,
        depths=depths,
        formats={8: "nv12", 10: "p010le"},
        options={"b": "0", "flags": "+qscale", "global_quality": str(70 * 118)},
        needs="a Mac with Apple silicon",
    )


def _vaapi(encoder: str, depths: tuple[int, ...] = (8, 10)) -> Codec:
    return Codec(
        encoder=encoder,
        depths=depths,
        containers=("mp4", "matroska") if "av1" in encoder else ("mp4", "mov", "matroska"),
        says_aspect="av1" not in encoder,
        formats={8: "nv12", 10: "p010le"},
        needs="a GPU of Intel or AMD under Linux",
        takes_surfaces=True,
    )


CODECS: dict[str, Codec] = {
    "h264": Codec(encoder="libx264", crf=16, preset="medium", presets=PRESETS, depths=(8, 10)),
    "h265": Codec(
        encoder="libx265",
        crf=18,
        preset="medium",
        presets=PRESETS,
        depths=(8, 10, 12),
        # Closed groups: a segment must not refer to the one before it.
        options={"x265-params": f"log-level=none:pools={NUM_THREADS}:frame-threads=2:open-gop=0"},
    ),
    "av1": Codec(
        encoder="libsvtav1",
        containers=("mp4", "matroska"),
        crf=22,
        crf_range=(0, 63),
        preset="8",
        presets=tuple(str(n) for n in range(14)),
        depths=(8, 10),
        says_aspect=False,
        reorders=False,  # what is not shown travels inside the next shown picture's packet
        options={"svtav1-params": f"lp={NUM_THREADS}"},
    ),
    "prores": Codec(
        encoder="prores_ks",
        containers=("mov", "matroska"),
        depths=(10,),
        presets=_PRORES_PROFILES,
        preset_option="profile",
        formats={10: "yuv422p10le"},
        alpha_formats={10: "yuva444p10le"},
        says_aspect=False,
        reorders=False,
        options={"vendor": "apl0"},
    ),
    "ffv1": Codec(
        encoder="ffv1",
        containers=("matroska",),
        depths=(8, 10, 12, 16),
        formats={8: "bgr0", 10: "gbrp10le", 12: "gbrp12le", 16: "gbrp16le"},
        alpha_formats={8: "bgra", 10: "gbrap10le", 12: "gbrap12le", 16: "gbrap16le"},
        says_aspect=False,
        reorders=False,
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"},
    ),
    "h264_nvenc": _nvenc("h264_nvenc", (8,)),
    "h265_nvenc": _nvenc("hevc_nvenc"),
    "av1_nvenc": _nvenc("av1_nvenc"),
    "h264_qsv": _qsv("h264_qsv", (8,)),
    "h265_qsv": _qsv("hevc_qsv"),
    "av1_qsv": _qsv("av1_qsv"),
    "h264_amf": _amf("h264_amf", (8,)),
    "h265_amf": _amf("hevc_amf"),
    "av1_amf": _amf("av1_amf"),
    "h264_videotoolbox": _videotoolbox("h264_videotoolbox", (8,)),
    "h265_videotoolbox": _videotoolbox("hevc_videotoolbox", (8, 10)),
    "h264_vaapi": _vaapi("h264_vaapi", (8,)),
    "h265_vaapi": _vaapi("hevc_vaapi"),
    "av1_vaapi": _vaapi("av1_vaapi"),
}
"""Every codec by the name that users give."""

ALPHA_CODECS = tuple(name for name, codec in CODECS.items() if codec.alpha_formats)
"""Codecs that keep transparency."""
HDR_CODECS = ("h264", "h265", "av1")
"""Codecs that keep HDR10's static metadata here."""
