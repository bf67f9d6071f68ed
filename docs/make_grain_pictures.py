"""Makes docs/grain.webp and docs/mask.webp from the bundled clip, made grainy for it.

python docs/make_grain_pictures.py
"""

from pathlib import Path

import numpy as np
import torch

import oasis_core
from oasis_core.finish.grain import Grain, GrainLayer, GrainProfile
from oasis_core.video import open_source
from oasis_core.video.image_writer import ImageEncoder, ImageSpec
from oasis_core.video.pixels import frame_to_tensor

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
FRAMES, CROP = 6, (slice(40, 136), slice(60, 188))
GRAIN = GrainProfile(
    sigma=(0.03,) * 11, size_px=(0.5, 0.5), color=(0.2, 0.2), color_size_px=(0.6, 0.6)
)


def grainy() -> torch.Tensor:
    """The first frames of the clip with grain, `1 3 t h w`."""
    layer, frames = GrainLayer(Grain(profile=GRAIN, seed=77), CPU), []
    with open_source(ROOT / "workflows" / "example_inputs" / "hand_held.mp4") as reader:
        for number, frame in zip(range(FRAMES), reader, strict=False):
            picture = frame_to_tensor(frame.pixels, CPU)[0, :, CROP[0], CROP[1]].clone()
            layer.lay_(picture, number)
            frames.append((picture * 255).round() / 255)
    return torch.stack(frames, dim=1)[None]


def save(path: Path, rows: list[list[torch.Tensor]]) -> None:
    """Write pictures `3 h w` as one, with white lines between them."""
    lines = []
    for row in rows:
        edge = torch.ones(3, row[0].shape[1], 4)
        lines.append(torch.cat([part for picture in row for part in (picture, edge)][:-1], dim=2))
    edge = torch.ones(3, 4, lines[0].shape[2])
    whole = torch.cat([part for line in lines for part in (line, edge)][:-1], dim=1)
    pixels = (whole * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    height, width = pixels.shape[:2]
    spec = ImageSpec(suffix=".webp", width=width, height=height, quality=88)
    path.write_bytes(ImageEncoder(spec).encode(np.ascontiguousarray(pixels)))


def main() -> None:
    """Make both pictures."""
    video, upscaler = grainy(), oasis_core.load("oasis-tiny", "cpu", "float32")
    plain, model, grained = (
        upscaler.upscale(video, scale=2, **options)[0]
        for options in ({"strength": 0}, {}, {"grain": "auto"})
    )
    rows = [[result[:, number] for result in (plain, model, grained)] for number in (2, 3)]
    changes = [
        (0.5 + 2 * (result[:, 3] - result[:, 2])).clamp(0, 1) for result in (plain, model, grained)
    ]
    save(ROOT / "docs" / "grain.webp", [*rows, changes])
    across = torch.linspace(-1, 2, model.shape[3]).clamp(0, 1)
    mask = across.expand(1, *model.shape[2:])
    masked = upscaler.upscale(video, scale=2, mask=mask)[0]
    shown = [plain[:, 2], model[:, 2], mask.expand(3, -1, -1), masked[:, 2]]
    save(ROOT / "docs" / "mask.webp", [shown[:2], shown[2:]])


if __name__ == "__main__":
    main()
