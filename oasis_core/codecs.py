"""The codecs that can be written, and how each encoder wants to be told what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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

X264_AVX512_FLAGS = {f"avx512{part}" for part in ("f", "cd", "bw", "dq", "vl")}
"""What a processor must have for x264 to use its AVX-512 code."""

APPLE_H265 = "hvc1"
"""Tag of H.265 in MP4 and MOV; Apple's players refuse FFmpeg's default, hev1."""

_PRORES_PROFILES = ("proxy", "lt", "standard", "hq", "4444", "4444xq")


class Wanted(Protocol):
    """What a codec's own options may depend on; an `EncodeSpec` is one."""

    width: int
    """Pixels of a row."""
    preset: str | None
    """Speed or profile that was asked for; None: the codec's own."""
    hdr: Any
    """Static HDR metadata."""
    pixel_format: str
    """FFmpeg's name of the format the encoder is fed."""


CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""FFmpeg's muxer by file extension; the first that holds a codec is its usual one."""


def _no_options(_: Wanted) -> dict[str, str]:
    return {}


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
    counts: bool = False
    """Whether it is told the numbers of pictures, since it refuses times that others take."""
    full_chroma_formats: dict[int, str] = field(default_factory=dict)
    """Pixel format by bits with colours at full size, where it has one of its own: for odd sizes,
    and for `full_chroma_presets`."""
    full_chroma_presets: tuple[str, ...] = ()
    """Presets that mean full colours."""
    is_rgb: bool = False
    """Whether it stores RGB and no YUV, if no pixel format is asked for."""
    full_range: bool = True
    """Whether it can say that values go from 0 to their maximum; else they are limited."""
    mp4_tag: str | None = None
    """Its tag in MP4 and MOV, where FFmpeg's own is refused by players; None: FFmpeg's."""
    keeps_hdr: bool = False
    """Whether HDR10's static metadata is written with it here."""
    is_lossless: bool = False
    """Whether what is read is what was written."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options, always the same."""
    options_of: Callable[[Wanted], dict[str, str]] = _no_options
    """Further options that depend on what is wanted; they replace those of `options`."""
    needs: str = ""
    """What a hardware encoder needs besides the FFmpeg build."""
    takes_surfaces: bool = False
    """Whether it takes pictures that lie on the GPU only, which PyAV cannot put there."""

    @property
    def suffix(self) -> str:
        """Ending of a file that most programs open: .mp4, else .mov, else .mkv."""
        return next(s for s, muxer in CONTAINERS.items() if muxer in self.containers)


def is_x264_unrepeatable() -> bool:
    """Whether x264 would use AVX-512, with which its output differs from run to run.

    Measured (x264 of PyAV 14.2 and 18.1, 30 frames of 320x176, 40 runs): 10 and 19 different files;
    none with AVX2, nor without macroblock-tree. Remove this when the bundled x264 repeats itself.
    """
    with contextlib.suppress(OSError):  # quicker than loading torch, which refusals need not do
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if flags:
            return set(flags[1].split()) >= X264_AVX512_FLAGS
    import torch

    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def _x264_options(wanted: Wanted) -> dict[str, str]:
    from .video.hdr import x264_params

    params = "asm=AVX2" if is_x264_unrepeatable() else ""
    params = (params + x264_params(wanted.hdr)).removeprefix(":")
    return {"x264-params": params} if params else {}


# Closed groups: a segment must not refer to the one before it.
_X265_PARAMS = f"log-level=none:pools={NUM_THREADS}:frame-threads=2:open-gop=0"


def _x265_options(wanted: Wanted) -> dict[str, str]:
    from .video.hdr import x265_params

    params = _X265_PARAMS + x265_params(wanted.hdr)
    return {"x265-params": params + ":cutree=0" * (wanted.width < X265_LEAST_CUTREE_WIDTH)}


def _svtav1_options(wanted: Wanted) -> dict[str, str]:
    from .video.hdr import svtav1_params

    return {"svtav1-params": f"lp={NUM_THREADS}" + svtav1_params(wanted.hdr)}


def _prores_options(wanted: Wanted) -> dict[str, str]:
    name = wanted.preset or ("hq" if wanted.pixel_format == "yuv422p10le" else "4444")
    # By number: not every FFmpeg knows the names.
    return {"profile": str(_PRORES_PROFILES.index(name))}


def _hardware(kind: str, **traits: Any) -> dict[str, Codec]:
    """The codecs of one kind of hardware, by the names that users give.

    Args:
        kind: End of FFmpeg's names of its encoders.
        traits: What they share.
    """
    shared = {"formats": {8: "nv12", 10: "p010le"}, **traits}
    return {
        f"h264_{kind}": Codec(encoder=f"h264_{kind}", depths=(8,), **shared),
        f"h265_{kind}": Codec(encoder=f"hevc_{kind}", depths=(8, 10), mp4_tag=APPLE_H265, **shared),
        f"av1_{kind}": Codec(
            encoder=f"av1_{kind}",
            depths=(8, 10),
            containers=("mp4", "matroska", "webm"),
            says_aspect=False,
            **shared,
        ),
    }


_NVENC = _hardware(
    "nvenc",
    crf=19,
    crf_options=("cq",),
    presets=tuple(f"p{n}" for n in range(1, 8)),
    preset="p5",
    formats={10: "p010le"},
    options={"rc": "vbr", "b": "0", "forced-idr": "1"},
    needs="an NVIDIA GPU with a video encoder (data-centre cards such as H100 have none)",
)
_QSV = _hardware(
    "qsv",
    crf=19,
    crf_range=(1, 51),
    crf_options=("global_quality",),
    presets=PRESETS[2:],
    preset="medium",
    needs="an Intel GPU with Quick Sync and its driver",
)
_AMF = _hardware(
    "amf",
    crf=19,
    crf_options=("qp_i", "qp_p"),
    presets=("speed", "balanced", "quality"),
    preset="quality",
    preset_option="quality",
    options={"rc": "cqp"},
    needs="an AMD GPU and its driver",
)
_VIDEOTOOLBOX = _hardware(
    "videotoolbox",
    options={"b": "0", "flags": "+qscale", "global_quality": str(70 * 118)},
    needs="a Mac with Apple silicon",
)
del _VIDEOTOOLBOX["av1_videotoolbox"]  # Apple's chips decode it only
_VAAPI = _hardware("vaapi", needs="a GPU of Intel or AMD under Linux", takes_surfaces=True)


CODECS: dict[str, Codec] = {
    "h264": Codec(
        encoder="libx264",
        crf=16,
        preset="medium",
        presets=PRESETS,
        depths=(8, 10),
        keeps_hdr=True,
        options_of=_x264_options,
    ),
    "h265": Codec(
        encoder="libx265",
        crf=18,
        preset="medium",
        presets=PRESETS,
        depths=(8, 10, 12),
        mp4_tag=APPLE_H265,
        keeps_hdr=True,
        options_of=_x265_options,
    ),
    "av1": Codec(
        encoder="libsvtav1",
        containers=("mp4", "matroska", "webm"),
        crf=22,
        crf_range=(0, 63),
        preset="8",
        presets=tuple(str(n) for n in range(14)),
        depths=(8, 10),
        says_aspect=False,
        reorders=False,  # what is not shown travels inside the next shown picture's packet
        keeps_hdr=True,
        options_of=_svtav1_options,
    ),
    "prores": Codec(
        encoder="prores_ks",
        containers=("mov", "matroska"),
        depths=(10,),
        presets=_PRORES_PROFILES,
        preset_option="profile",
        formats={10: "yuv422p10le"},
        alpha_formats={10: "yuva444p10le"},
        full_chroma_formats={10: "yuv444p10le"},
        full_chroma_presets=("4444", "4444xq"),
        full_range=False,
        says_aspect=False,
        reorders=False,
        options={"vendor": "apl0"},
        options_of=_prores_options,
    ),
    "ffv1": Codec(
        encoder="ffv1",
        containers=("matroska",),
        depths=(8, 10, 12, 16),
        formats={8: "bgr0", 10: "gbrp10le", 12: "gbrp12le", 16: "gbrp16le"},
        alpha_formats={8: "bgra", 10: "gbrap10le", 12: "gbrap12le", 16: "gbrap16le"},
        says_aspect=False,
        reorders=False,
        is_rgb=True,
        is_lossless=True,
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"},
    ),
    "vp9": Codec(
        encoder="libvpx-vp9",
        containers=("webm", "mp4", "matroska"),
        crf=18,
        crf_range=(0, 63),
        preset="3",
        presets=tuple(str(n) for n in range(9)),
        preset_option="cpu-used",
        depths=(8,),
        says_aspect=False,
        reorders=False,  # what is not shown travels inside the next shown picture's packet
        counts=True,  # libvpx 1.16 refuses times that are no whole numbers of 100 ns
        # Tiles and not rows of blocks are shared out: these give the same bits on any processor.
        options={"b": "0", "deadline": "good", "row-mt": "0", "tile-columns": "2"},
    ),
    **_NVENC,
    **_QSV,
    **_AMF,
    **_VIDEOTOOLBOX,
    **_VAAPI,
}
"""Every codec by the name that users give."""

ALPHA_CODECS = tuple(name for name, codec in CODECS.items() if codec.alpha_formats)
"""Codecs that keep transparency."""
HDR_CODECS = tuple(name for name, codec in CODECS.items() if codec.keeps_hdr)
"""Codecs that keep HDR10's static metadata here."""
