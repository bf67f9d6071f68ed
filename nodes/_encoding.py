"""Inputs about the encoder, in words where words will do."""

from __future__ import annotations

import av
from comfy_api.latest import io

from ._schema import CODECS, check_choice, widget

HARDWARE = {
    f"{codec}_{kind}": f"{encoder}_{kind}"
    for kind in ("nvenc", "qsv", "amf", "videotoolbox")
    for codec, encoder in (("h264", "h264"), ("h265", "hevc"), ("av1", "av1"))
}
"""Codec as the engine calls it -> FFmpeg's encoder."""
QUALITIES = {"visually lossless": 0, "high": 4, "good": 8, "small file": 12}
"""Word -> how far its number lies above the codec's default, where numbers go to 51."""
BY_QUALITY = -1.0
"""Value of crf that means: as the word says."""
BIT_DEPTHS = ("auto", "8", "10")


def codec_names() -> list[str]:
    """Codecs of this FFmpeg build; a hardware encoder may still find no hardware."""
    found = [name for name, encoder in HARDWARE.items() if encoder in av.codecs_available]
    return [*CODECS, *found]


def codec_input() -> io.Input:
    """How pictures become a file."""
    return widget(
        io.Combo.Input,
        "codec",
        options=codec_names(),
        default=CODECS[0],
        tooltip="h264 plays everywhere; h265 and av1 are smaller and slower; prores is for "
        "editing; ffv1 is lossless and very large. Names such as h264_nvenc encode on the GPU. "
        "Save Video puts everything into MP4: give prores and ffv1 a file_name here instead.",
    )


def quality_inputs() -> list[io.Input]:
    """How good the encoding is."""
    return [
        widget(
            io.Combo.Input,
            "quality",
            options=list(QUALITIES),
            default=next(iter(QUALITIES)),
            advanced=True,
            tooltip="Quality of the encoding: crf 16, 20, 24 and 28 for h264, and the like for "
            "others. Not used by prores and ffv1.",
        ),
        widget(
            io.Float.Input,
            "crf",
            default=BY_QUALITY,
            min=BY_QUALITY,
            max=63.0,
            step=1.0,
            advanced=True,
            tooltip="Constant rate factor of the encoder instead of quality: lower is better and "
            "larger. -1 follows quality. Not used by prores and ffv1.",
        ),
        widget(
            io.Combo.Input,
            "bit_depth",
            options=list(BIT_DEPTHS),
            default=BIT_DEPTHS[0],
            advanced=True,
            tooltip="Bits of each colour in the file. auto keeps those of the input, and of images "
            "what Create Video says; 10 has finer gradients, and browsers may not play it.",
        ),
    ]


def encoding(codec: str, quality: str, crf: float, bit_depth: str) -> dict[str, object]:
    """The engine's options for these inputs.

    Raises:
        ValueError: One of them is not offered.
    """
    from ..oasis_core.video import CODECS as KNOWN

    check_choice("codec", codec, codec_names())
    check_choice("quality", quality, tuple(QUALITIES))
    check_choice("bit_depth", bit_depth, BIT_DEPTHS)
    known = KNOWN[codec]
    number = None
    if known.crf is not None:
        number = crf
        if crf < 0:
            number = round(known.crf + QUALITIES[quality] * known.crf_range[1] / 51)
    depth = None if bit_depth == BIT_DEPTHS[0] else int(bit_depth)
    return {"codec": codec, "crf": number, "bit_depth": depth}
