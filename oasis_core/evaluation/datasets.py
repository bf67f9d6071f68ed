"""Where the standard test sets keep their clips, so that a set's folder is all one has to name.

Sources: DOVE (github.com/zhengchen1999/DOVE, datasets/README.md) for GT, GT-Video, LQ, LQ-Video;
mmagic's dataset pages for UDM10, SPMCS, Vid4, REDS and VideoLQ; the sets' own archives otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .clips import ClipSource, EvaluationError


@dataclass(frozen=True, slots=True)
class Layout:
    """Where clips lie below a set's folder; `*` is the clip's name."""

    truth: str
    """Pattern of the originals; empty: there are none."""
    low: str
    """Pattern of the low-quality clips; empty: they are made from the originals."""
    clips: tuple[str, ...] = ()
    """Only these clips belong to the set; empty: all."""


_DOVE = (Layout("GT-Video/*", "LQ-Video/*"), Layout("GT/*", "LQ/*"))
_MMAGIC = (Layout("GT/*", "BDx4/*"), Layout("GT/*", "BIx4/*"))
_REDS4_CLIPS = ("000", "011", "015", "020")
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "udm10": (*_DOVE, *_MMAGIC, Layout("*/truth", "*/blur4"), Layout("GT/*", "")),
    "spmcs": (*_DOVE, *_MMAGIC, Layout("*/truth", "*/input4"), Layout("GT/*", "")),
    "youhq40": (*_DOVE, Layout("GT/*", ""), Layout("*", "")),
    "realvsr": (*_DOVE, Layout("GT_test/*", "LQ_test/*"), Layout("GT/*", "LR/*")),
    "mvsr4x": (*_DOVE, Layout("HR/*", "LR/*"), Layout("test/HR/*", "test/LR/*")),
    "videolq": (
        Layout("", "LQ-Video/*"),
        Layout("", "LQ/*"),
        Layout("", "Input/*"),
        Layout("", "*"),
    ),
    "reds4": (
        *_DOVE,
        Layout("GT/*", "sharp_bicubic/*", _REDS4_CLIPS),
        Layout("train_sharp/*", "train_sharp_bicubic/X4/*", _REDS4_CLIPS),
        Layout("GT/*", ""),
    ),
    "vid4": (*_DOVE, *_MMAGIC, Layout("*/truth", "*/blur4"), Layout("GT/*", "")),
}


def _is_clip(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir())


def _clips_of(root: Path, pattern: str) -> dict[str, Path]:
    """Clips that match a pattern, by the part that stood for `*`."""
    position = pattern.split("/").index("*") - len(pattern.split("/"))
    return {
        Path(path.parts[position]).stem if path.is_file() else path.parts[position]: path
        for path in sorted(root.glob(pattern))
        if _is_clip(path)
    }


def find_set(name: str, root: Path) -> list[ClipSource]:
    """The clips of a standard test set.

    Args:
        name: A key of `LAYOUTS`.
        root: The set's folder, in one of the layouts it is published in.

    Raises:
        EvaluationError: An unknown set, or a folder in no known layout.
    """
    if name not in LAYOUTS:
        raise EvaluationError(f"set must be one of {', '.join(LAYOUTS)}, got {name!r}")
    for layout in LAYOUTS[name]:
        sides = {
            side: _clips_of(root, pattern)
            for side, pattern in (("truth", layout.truth), ("low", layout.low))
            if pattern
        }
        if all(sides.values()):
            return _paired(name, layout, sides)
    tried = "; ".join(
        " and ".join(pattern for pattern in (layout.truth, layout.low) if pattern)
        for layout in LAYOUTS[name]
    )
    raise EvaluationError(
        f"{root} is in no known layout of {name}; looked for {tried} (videos or folders of "
        "pictures). Folders in another layout: --truth and --low"
    )


def _paired(name: str, layout: Layout, sides: dict[str, dict[str, Path]]) -> list[ClipSource]:
    first = next(iter(sides.values()))
    names = [clip for clip in sorted(first) if not layout.clips or clip in layout.clips]
    for clips in sides.values():
        if missing := sorted(set(names) - set(clips)):
            raise EvaluationError(
                f"{name} must have every clip as truth and as low-quality version; "
                f"{missing[0]!r} lacks one of them"
            )
    if not names:
        raise EvaluationError(f"{name} consists of clips {', '.join(layout.clips)}; none is there")
    return [
        ClipSource(name=clip, **{side: clips[clip] for side, clips in sides.items()})
        for clip in names
    ]
