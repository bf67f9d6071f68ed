"""Make the README's pictures from the bundled clip and model.

Needs the extra `plot`; run it as `python docs/make_pictures.py`.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange

import oasis_core
from oasis_core.checkpoint import read_header, resolve_model
from oasis_core.model.routing_picture import draw_routing
from oasis_core.video import VideoReader

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
SCALE = 4
SHOT_FRAMES = 36
CROP_PX = (270, 480)
# Frame of the clip, and the crop's top left corner in the enlarged picture.
VIEWS = ((18, (120, 250)), (18, (440, 60)), (54, (430, 120)))


def read_shot(index: int) -> torch.Tensor:
    """One shot of the clip, `1 3 t h w` in [0, 1]."""
    with VideoReader(CLIP) as reader:
        start = index * SHOT_FRAMES
        frames = [f.pixels for f in itertools.islice(reader, start, start + SHOT_FRAMES)]
    clip = torch.from_numpy(np.stack(frames)).float() / 255
    return rearrange(clip, "t h w c -> 1 c t h w").contiguous()


def main() -> None:
    """Write docs/hand_held.png and docs/routing.png."""
    upscaler = oasis_core.load()
    shots = [read_shot(index) for index in range(2)]
    enlarged = {
        strength: [upscaler.upscale(shot, scale=SCALE, strength=strength) for shot in shots]
        for strength in (0.0, 1.0)
    }
    rows = []
    for frame, (top, left) in VIEWS:
        shot, index = divmod(frame, SHOT_FRAMES)
        height, width = CROP_PX
        pair = [
            enlarged[strength][shot][0, :, index, top : top + height, left : left + width]
            for strength in (0.0, 1.0)
        ]
        rows.append(torch.cat(pair, dim=2))
    picture = rearrange(torch.cat(rows, dim=1), "c h w -> h w c").numpy()
    plt.imsave(ROOT / "docs" / "hand_held.png", picture)
    _, routing, _ = read_header(resolve_model("oasis-tiny"))
    draw_routing(routing).save(ROOT / "docs" / "routing.png")


if __name__ == "__main__":
    main()
