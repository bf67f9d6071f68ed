"""Make the README's pictures from the bundled clip and model.

Needs Pillow (extra `plot`); run it as `python docs/make_pictures.py [NAME=FILE]`, with another
upscaler to stand beside (docs/evaluation.md, "Peers").
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

import oasis_core
from oasis_core.checkpoint import read_header, resolve_model
from oasis_core.evaluation.peers import find_peers
from oasis_core.model.routing_picture import draw_routing
from oasis_core.video import VideoReader

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
SCALE = 4
# Frames read around a frame that is shown: as many as the model looks at.
AROUND = 2
CROP_PX = (200, 320)
# Frame of the clip, and the crop's top left corner in the enlarged picture.
VIEWS = ((18, (150, 330)), (18, (490, 80)), (54, (450, 160)))
MOVING_FRAMES, MOVING_FPS, MOVING_CROP_PX = range(6, 30), 12, (360, 480)
MOVING_TOP_LEFT = (140, 260)
GAP_PX = 4


def read_frames(first: int, last: int) -> Tensor:
    """Frames of the clip, `t 3 h w` in [0, 1]."""
    with VideoReader(CLIP) as reader:
        frames = [f.pixels for f in itertools.islice(reader, first, last + 1)]
    clip = torch.from_numpy(np.stack(frames)).float() / 255
    return rearrange(clip, "t h w c -> t c h w").contiguous()


def crop(clip: Tensor, top_left: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """A window of pictures `... h w`."""
    (top, left), (height, width) = top_left, size
    return clip[..., top : top + height, left : left + width]


def side_by_side(pictures: list[Tensor]) -> Tensor:
    """Pictures `... 3 h w` in a row, with a white gap."""
    gap = torch.ones(*pictures[0].shape[:-1], GAP_PX)
    pieces = [piece for picture in pictures for piece in (picture, gap)]
    return torch.cat(pieces[:-1], dim=-1)


def to_image(picture: Tensor) -> Image.Image:
    """A picture `3 h w` in [0, 1] for Pillow."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(rearrange(pixels, "c h w -> h w c").contiguous().numpy())


def methods() -> dict[str, oasis_core.VideoUpscaler]:
    """The model at both ends of its slider and as it comes."""
    details = {"faithful": 0.0, "as it comes": None, "vivid": 1.0}
    return {name: oasis_core.load(detail=detail) for name, detail in details.items()}


def enlarge(upscaler: oasis_core.VideoUpscaler, low: Tensor, strength: float = 1.0) -> Tensor:
    """A clip `t 3 h w` enlarged."""
    batch = rearrange(low, "t c h w -> 1 c t h w")
    large = upscaler.upscale(batch, scale=SCALE, strength=strength)
    return rearrange(large, "1 c t h w -> t c h w")


def write_still(texts: list[str]) -> None:
    """docs/hand_held.webp: a row per view; columns: bicubic, ours from faithful to vivid, peers."""
    upscalers = methods()
    peers = find_peers(texts, oasis_core.load)
    frames: dict[int, list[Tensor]] = {}
    for frame in {frame for frame, _ in VIEWS}:
        low = read_frames(frame - AROUND, frame + AROUND)
        some = next(iter(upscalers.values()))
        clips = [enlarge(some, low, 0.0), *(enlarge(u, low) for u in upscalers.values())]
        frames[frame] = [clip[AROUND] for clip in clips]
        one, size = low[AROUND : AROUND + 1], (low.shape[3] * SCALE, low.shape[2] * SCALE)
        frames[frame] += [peer.restore(one, size)[0] for peer in peers]
    rows = []
    for frame, top_left in VIEWS:
        rows.append(side_by_side([crop(p, top_left, CROP_PX) for p in frames[frame]]))
        rows.append(torch.ones(3, GAP_PX, rows[0].shape[2]))
    picture = to_image(torch.cat(rows[:-1], dim=1))
    picture.save(ROOT / "docs" / "hand_held.webp", quality=90, method=6)


def write_moving() -> None:
    """docs/hand_held_moving.webp: the bicubic resize and the model as it comes, side by side."""
    low = read_frames(MOVING_FRAMES[0], MOVING_FRAMES[-1])
    upscaler = oasis_core.load()
    pair = [enlarge(upscaler, low, strength) for strength in (0.0, 1.0)]
    clip = side_by_side([crop(clip, MOVING_TOP_LEFT, MOVING_CROP_PX) for clip in pair])
    first, *others = (to_image(frame) for frame in clip)
    path = ROOT / "docs" / "hand_held_moving.webp"
    options = {"duration": 1000 // MOVING_FPS, "loop": 0, "quality": 80, "method": 6}
    first.save(path, save_all=True, append_images=others, **options)


def main() -> None:
    """Write docs/hand_held.webp, docs/hand_held_moving.webp and docs/routing.png."""
    write_still(sys.argv[1:])
    write_moving()
    _, routing, _ = read_header(resolve_model("oasis-tiny"))
    draw_routing(routing).save(ROOT / "docs" / "routing.png")


if __name__ == "__main__":
    main()
