"""What `oasis info` says to people: rounded, in words; `--json` has everything as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..words import counted, one_of

# For machines, or longer than a screen.
_HIDDEN = ("config", "training", "footage", "initial")
_TAGS: dict[str, dict[int, str]] = {
    "primaries": {
        1: "BT.709",
        5: "BT.601 (625 lines)",
        6: "BT.601 (525 lines)",
        9: "BT.2020",
        11: "DCI-P3",
        12: "Display P3",
    },
    "transfer": {
        1: "BT.709",
        4: "gamma 2.2",
        6: "BT.601",
        8: "linear",
        13: "sRGB",
        14: "BT.2020",
        16: "PQ",
        18: "HLG",
    },
    "matrix": {0: "RGB", 1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"},
    "range": {1: "limited", 2: "full"},
    "chroma_location": {1: "left", 2: "centre", 3: "top left"},
}
"""Names of the numbers in ITU-T H.273, as FFmpeg counts them."""
_UNTAGGED = {"primaries": 2, "transfer": 2, "matrix": 2, "range": 0, "chroma_location": 0}
_METRICS = {
    "num_clips": "{:.0f} clips",
    "bicubic_psnr_db": "bicubic {:.2f} dB",
    "mean_gain_db": "mean gain {:+.2f} dB",
    "least_gain_db": "worst clip {:+.2f} dB",
    "ssim_gain": "SSIM {:+.3f}",
    "lpips": "LPIPS {:.3f}",
    "dists": "DISTS {:.3f}",
    "cvvdp": "ColorVideoVDP {:.2f}",
    "temporal_difference": "temporal error {:.1f}",
    "tlp": "tLP x100 {:.2f}",
}


def info_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """One line per fact, for people."""
    for key, value in facts.items():
        if key in _HIDDEN or value is None or value == {}:
            continue
        if key == "metrics" and isinstance(value, Mapping):
            yield from _metric_lines(value)
        elif key == "traits":
            yield f"works: {_traits_text(value)}"
        else:
            yield f"{key.replace('_', ' ')}: {_text(key, value)}"


def _text(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        if set(value) & set(_TAGS):
            return _color(value)
        return ", ".join(f"{_text('', v)} {k}" for k, v in value.items() if _is_plain(v)) or "-"
    if key == "parameters":
        return f"{value / 1e6:.2f} million"
    if key == "bytes":
        return f"{value / 1e6:,.1f} MB" if value >= 1e6 else f"{value:,} bytes"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ("x" if key == "window" else ", ").join(_text("", part) for part in value) or "none"
    # Where a developer kept a file helps nobody else.
    return re.sub(r" from \S*/\S*", "", str(value))


def _traits_text(traits: Mapping[str, Any]) -> str:
    """What an engine must know of a model, as a person says it."""
    scale, (frames, rows, columns) = traits["native_scale"], traits["stride"]
    parts = ["on the enlarged picture, at any scale"]
    if traits["reads"] == "source":
        parts = [f"on the source itself, {scale} times larger per side, resized to what is wanted"]
    parts.append("frame by frame" if traits["is_per_frame"] else "on several frames at once")
    if frames > 1:
        parts.append(f"clips of {frames}k+1 frames")
    if rows > 1 or columns > 1:
        parts.append(f"sides in steps of {rows}x{columns} px")
    if traits["lead_frames"]:
        parts.append(f"{counted(traits['lead_frames'], 'frame')} before each segment to begin with")
    if traits["halo_frames"]:
        parts.append(f"{counted(traits['halo_frames'], 'frame')} looked ahead")
    tiling = {"free": "tiles", "avoid": "whole frames where they fit, else tiles"}
    how = tiling.get(traits["tiling"])
    parts.append(f"{how} that share {traits['overlap_px']} px" if how else "never in tiles")
    parts.append(f"in {one_of(traits['dtypes'])}")
    return "; ".join(parts)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


def _color(tags: Mapping[str, Any]) -> str:
    """The tags of a film's colours by their names."""
    parts = []
    for tag, number in tags.items():
        if tag in _TAGS and number is not None and number != _UNTAGGED[tag]:
            name = _TAGS[tag].get(number, f"number {number}")
            parts.append(f"{tag.replace('_', ' ')} {name}")
    return ", ".join(parts) or "not tagged"


def _metric_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What was measured with these weights, a line for each degradation."""
    for name, row in metrics.items():
        if not isinstance(row, Mapping):
            continue
        if name == "settings":
            settings = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in row.items() if v)
            yield f"measured with: {settings}"
            continue
        parts = [text.format(row[key]) for key, text in _METRICS.items() if key in row]
        yield f"measured, {name}: {', '.join(parts)}"
