"""Sheets of crops: what each method made of the same place, side by side, for the eye."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..extras import need
from .benchmark import ORIGINAL, ClipResult, Shown
from .html_report import crop_places
from .pictures import encode_picture, enlarge

CROP_PX = 128
ZOOM = 2
CAPTION_PX = 20
GAP_PX = 4


def write_sheet(folder: Path, result: ClipResult, shown: Shown) -> Path:
    """Write one sheet as PNG: a row per place, a column per method.

    Args:
        folder: Where; the name says degradation and clip.
        result: What was measured.
        shown: The pixels behind it.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    middle = result.num_frames // 2
    frames = {name: clip[middle] for name, clip in shown.methods.items()}
    if shown.truth is not None:
        frames[ORIGINAL] = shown.truth[middle]
    places = crop_places(frames, CROP_PX).values()
    some = next(iter(frames.values()))
    if shown.low is not None:
        low = enlarge(shown.low[min(middle, len(shown.low) - 1)], *some.shape[1:])
        frames = {"input": low, **frames}
    rows = [_captions(list(frames))]
    for top, left in places:
        row = []
        for frame in frames.values():
            crop = frame[:, top : top + CROP_PX, left : left + CROP_PX]
            row.append(_framed(enlarge(crop, *(ZOOM * n for n in crop.shape[1:]))))
        rows.append(torch.cat(row, dim=2))
    width = max(row.shape[2] for row in rows)
    padded = [torch.nn.functional.pad(row, (0, width - row.shape[2]), value=1.0) for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", f"{result.degradation}-{result.name}")
    path = folder / f"{name}.png"
    path.write_bytes(encode_picture(torch.cat(padded, dim=1)))
    return path


def _framed(image: Tensor) -> Tensor:
    return torch.nn.functional.pad(image.float().cpu(), (0, GAP_PX, 0, GAP_PX), value=1.0)


def _captions(names: list[str]) -> Tensor:
    """A line of text, a column's width for each name; `3 h w`."""
    need("PIL", extra="train", purpose="a sheet of crops")
    from PIL import Image, ImageDraw

    column = CROP_PX * ZOOM + GAP_PX
    picture = Image.new("RGB", (column * len(names), CAPTION_PX), "white")
    draw = ImageDraw.Draw(picture)
    for index, name in enumerate(names):
        draw.text((index * column + 3, 3), name, fill="black")
    return rearrange(torch.from_numpy(np.array(picture)), "h w c -> c h w").float() / 255
