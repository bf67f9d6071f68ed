"""What a film has before and after, read by FFmpeg alone and compared piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

ATTACHED = 0x400
_LEAST_PSNR_DB = 24.0
_COARSE_DB = 2.0
"""How much worse than FFmpeg's own 4:2:0 a picture may be whose colour that cannot hold."""


def facts(path: Path) -> dict[str, Any]:
    """Frames, times, tags and all else of a file."""
    with av.open(str(path.absolute()), metadata_errors="replace") as container:
        films = [s for s in container.streams.video if not s.disposition.value & ATTACHED]
        film = films[0]
        film.codec_context.thread_count = 1
        times, pictures, packets, is_clear = [], [], {}, False
        for packet in container.demux():
            stream = packet.stream
            if stream.index == film.index:
                for frame in packet.decode():
                    times.append(frame.pts if frame.pts is not None else frame.dts)
                    pictures.append(frame)
                    del pictures[1:-1]
                    is_clear = is_clear or _is_clear(frame, film.codec_context.name)
            elif packet.size:
                time = Fraction(packet.pts or 0) * (packet.time_base or 0)
                digest = hashlib.sha256(bytes(packet)).hexdigest()
                packets.setdefault(stream.index, []).append((time, digest))
        first = pictures[0]
        return {
            "num_frames": len(times),
            "times": [None if t is None else t * film.time_base for t in times],
            "size": (first.width, first.height),
            "aspect": Fraction(film.sample_aspect_ratio or 1),
            "is_rgb": first.format.is_rgb or first.format.name.startswith(("gray", "mono", "pal")),
            "has_alpha": is_clear,
            "bits": max(c.bits for c in first.format.components),
            "tags": (
                int(film.codec_context.color_primaries),
                int(film.codec_context.color_trc),
                int(film.codec_context.colorspace),
            ),
            "ends": [_rgb(pictures[0]), _rgb(pictures[-1])],
            "ends_in_420": [_rgb(_in_420(pictures[0])), _rgb(_in_420(pictures[-1]))],
            "languages": [s.metadata.get("language", "und") for s in container.streams.audio],
            "sounds": [packets.get(s.index, []) for s in container.streams.audio],
            "num_subtitles": len(container.streams.subtitles),
            "num_covers": len(container.streams.video) - len(films),
            "chapters": [c["metadata"] for c in container.chapters()],
            "metadata": {k.lower(): v for k, v in container.metadata.items()},
        }


def _is_clear(frame: av.VideoFrame, codec: str) -> bool:
    """Whether a picture has alpha; FFmpeg decodes all GIFs with it, so there it must be used."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    return codec != "gif" or frame.to_ndarray(format="rgba")[..., 3].min() < 255


def _in_420(frame: av.VideoFrame) -> av.VideoFrame:
    """A picture as FFmpeg itself makes 4:2:0 of it: what is noise to begin with loses much."""
    pixels = frame.to_ndarray(format="rgb24")
    return av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24").astype(np.int16)


def upright(pixels: np.ndarray, turn: Sequence[int] | None) -> np.ndarray:
    """A picture `h w 3` as a display matrix (a b c d, of -1, 0, 1) shows it."""
    if turn is None:
        return pixels
    a, b, c, d = turn
    if a == 0:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: d or 1, :: a or 1]


def differences(
    before: dict[str, Any],
    after: dict[str, Any],
    report: dict[str, Any],
    *,
    turn: Sequence[int] | None,
) -> list[str]:
    """What the output lacks without the report saying so."""
    is_turned = turn is not None and turn[0] == 0
    said, moved = " ".join(report["dropped"]), " ".join(report["kept"])
    found = []
    if after["num_frames"] != before["num_frames"]:
        found.append(f"{before['num_frames']} frames became {after['num_frames']}")
    # What FFmpeg reads as going back and forth, as B-frames in ASF, is put in order.
    elif _is_increasing(before["times"]) and (text := _times(before, after, moved)):
        found.append(text)
    size = before["size"][::-1] if is_turned else before["size"]
    if after["size"] != size:
        found.append(f"size {size} became {after['size']}")
    aspect = 1 / before["aspect"] if is_turned else before["aspect"]
    if after["aspect"] != aspect:
        found.append(f"sample aspect {aspect} became {after['aspect']}")
    if not before["is_rgb"]:
        for name, old, new in zip(
            ("primaries", "transfer", "matrix"), before["tags"], after["tags"], strict=True
        ):
            if old not in (0, 2, new):
                found.append(f"colour {name} {old} became {new}")
    if not before["has_alpha"] and before["num_frames"] == after["num_frames"]:
        found += _pictures(
            [upright(end, turn) for end in before["ends"]],
            [upright(end, turn) for end in before["ends_in_420"]],
            after["ends"],
        )
    if before["has_alpha"] and not after["has_alpha"] and "transparency" not in said:
        found.append("transparency lost")
    if after["bits"] < min(10, before["bits"]) and "bits" not in said:
        found.append(f"{before['bits']} bits became {after['bits']}")
    for index, sound in enumerate(before["sounds"]):
        if "sound" not in said and "audio" not in said and not _is_among(sound, after["sounds"]):
            found.append(f"sound {index} is lost or changed")
    lost = [text for text in before["languages"] if text not in (*after["languages"], "und")]
    if lost and "sound" not in said and "audio" not in said:
        found.append(f"languages {before['languages']} became {after['languages']}")
    for name in ("subtitle", "cover"):
        if after[f"num_{name}s"] < before[f"num_{name}s"] and name not in said:
            found.append(f"{name} lost")
    if after["chapters"] != before["chapters"] and "chapter" not in said:
        found.append(f"chapters {before['chapters']} became {after['chapters']}")
    for key in ("title", "workflow"):
        old = before["metadata"].get(key)
        if old is not None and after["metadata"].get(key) != old and key not in said:
            found.append(f"metadata {key} {old!r} became {after['metadata'].get(key)!r}")
    return found


def _is_increasing(times: Sequence[Fraction | None]) -> bool:
    return None not in times and all(a < b for a, b in pairwise(times))


def _times(before: dict[str, Any], after: dict[str, Any], said: str) -> str | None:
    moved = [new - old for old, new in zip(before["times"], after["times"], strict=True)]
    if max(moved) - min(moved) > Fraction(2, 1000):
        return f"times moved by {float(min(moved)):.4f} to {float(max(moved)):.4f} s"
    if abs(moved[0]) > Fraction(2, 1000) and "times" not in said:
        return f"all times moved by {float(moved[0]):.4f} s without a word"
    return None


def _pictures(
    before: Sequence[np.ndarray], in_420: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> list[str]:
    found = []
    for name, old, coarse, new in zip(("first", "last"), before, in_420, after, strict=True):
        least_db = min(_LEAST_PSNR_DB, _psnr_db(old, coarse) - _COARSE_DB)
        if (psnr_db := _psnr_db(old, new)) < least_db:
            found.append(f"the {name} picture differs: {psnr_db:.1f} dB")
    return found


def _psnr_db(old: np.ndarray, new: np.ndarray) -> float:
    if old.shape != new.shape:
        return 0.0
    error = float(np.square(old - new, dtype=np.float64).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _is_among(sound: list, others: list[list]) -> bool:
    # Other containers frame some codecs otherwise (AAC of a transport stream): same number then.
    return any([d for _, d in sound] == [d for _, d in other] for other in others) or len(
        sound
    ) in map(len, others)
