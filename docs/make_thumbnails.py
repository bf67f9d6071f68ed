"""Make the cards of the list of templates: what a workflow does to the bundled clip.

Needs Pillow (extra `plot`); run it as `python docs/make_thumbnails.py`. The cards of workflows
whose models are not bundled are cut from their pictures in docs/workflows.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

import oasis_core
from oasis_core.model.routing_picture import draw_routing
from oasis_core.video import VideoReader

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
CLIP = WORKFLOWS / "example_inputs" / "hand_held.mp4"
SIDE_PX = 400
SCALE = 4
FRAMES = 5
LINE = (255, 255, 255)
TILE_PX = 100
WITHOUT_MODEL = ("8 ", "9 ", "10 ", "11 ", "12 ")


def read_frames(first: int) -> Tensor:
    """Some frames of the clip, `1 3 t h w` in [0, 1]."""
    with VideoReader(CLIP) as reader:
        frames = [frame.pixels for frame in itertools.islice(reader, first, first + FRAMES)]
    return torch.from_numpy(np.stack(frames)).float().permute(3, 0, 1, 2)[None] / 255


def cut(clip: Tensor, top: int, left: int, side: int) -> Tensor:
    """The middle frame of a square of a clip, as `3 h w` of the card's size."""
    frame = clip[:, :, clip.shape[2] // 2, top : top + side, left : left + side]
    if side != SIDE_PX:
        frame = interpolate(frame, (SIDE_PX, SIDE_PX), mode="bicubic", antialias=True)
    return frame[0].clamp(0, 1)


def to_image(frame: Tensor) -> Image.Image:
    """A frame `3 h w` in [0, 1] for Pillow."""
    return Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy())


def split(before: Tensor, after: Tensor) -> Image.Image:
    """Left half before, right half after, with the line of the viewer between them."""
    half = SIDE_PX // 2
    card = to_image(torch.cat((before[..., :half], after[..., half:]), dim=-1))
    ImageDraw.Draw(card).line((half, 0, half, SIDE_PX), fill=LINE, width=3)
    return card


def tiled(frame: Tensor) -> Image.Image:
    """A frame with the borders of its tiles."""
    card = to_image(frame)
    draw = ImageDraw.Draw(card)
    for place in range(TILE_PX, SIDE_PX, TILE_PX):
        draw.line((place, 0, place, SIDE_PX), fill=LINE, width=2)
        draw.line((0, place, SIDE_PX, place), fill=LINE, width=2)
    return card


def cards() -> dict[str, Image.Image]:
    """A card by the number of each workflow whose model is bundled."""
    upscaler = oasis_core.load(device="cpu", dtype="float32")
    small = read_frames(16)
    large = upscaler.upscale(small, scale=SCALE)
    plain = upscaler.upscale(small, scale=SCALE, strength=0.0)
    restored = upscaler.upscale(small, scale=1)
    frames = small[0].transpose(0, 1).contiguous()
    damaged, _ = oasis_core.degrade(frames, preset="consistent", scale=2, seed=1)
    damaged = damaged.transpose(0, 1)[None]
    again = upscaler.upscale(damaged, scale=2)
    blurred = upscaler.upscale(damaged, scale=2, strength=0.0)
    light, _ = oasis_core.degrade(frames, preset="light", scale=1, seed=1)
    natural = upscaler.upscale(light.transpose(0, 1)[None], scale=1)
    # The line goes through the eye, so that both halves show the same kind of thing.
    face, eye, low = (60, 238, SIDE_PX), (150, 328, 220), (15, 60, 100)
    return {
        "1": split(cut(plain, *face), cut(large, *face)),
        "2": split(cut(plain, *eye), cut(large, *eye)),
        "3": split(cut(small, *low), cut(restored, *low)),
        "4": split(cut(blurred, *low), cut(again, *low)),
        "5": tiled(cut(large, *face)),
        "6": split(cut(small, *low), cut(natural, *low)),
        "7": _square(draw_routing(upscaler.restorer.routing)),
    }


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    corner = picture.convert("RGB").crop((0, 0, side, side))
    return corner.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def main() -> None:
    """Write a card beside each workflow."""
    made = cards()
    for path in WORKFLOWS.glob("*.json"):
        number = path.stem.split()[0]
        if path.name.startswith(WITHOUT_MODEL):
            graph = Image.open(ROOT / "docs" / "workflows" / f"{number}.webp").convert("RGB")
            card = _square(graph)
        else:
            card = made[number]
        card.save(path.with_suffix(".jpg"), quality=85)


if __name__ == "__main__":
    main()
