"""Make hand_held.mp4, the bundled example: two shots, hand-held motion, small text, sound.

Needs the extra `evaluate`; run it as `python workflows/example_inputs/make_hand_held.py`.

Photographs: `chelsea` (Stefan van der Walt, CC0) and `coffee` (Rachel Michetti, Pikolo Espresso
Bar, CC0), from scikit-image's wheel. Everything else is made here, so the clip is free of others'
rights (CC0). The sharp clip is rendered at 1280x720 and then degraded by `oasis_core.degradation`.
"""

from __future__ import annotations

import math
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from oasis_core.degradation.degrading_files import degrade_file

WIDTH, HEIGHT, FPS, SAMPLE_RATE = 1280, 720, 24, 44_100
SHOT_FRAMES = 36
SHOTS = (
    (data.chelsea, 0.30, "OASIS 4x  -  the quick brown fox jumps over the lazy dog 0123456789"),
    (data.coffee, 0.40, "second shot  -  AaBbCcDdEe  (c) CC0  1/125 s  f/2.8  ISO 400"),
)
SEED = 4


def shaky_path(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random camera offsets (x, y in photo pixels, angle in radians) per frame."""
    time = np.arange(num_frames) / FPS
    path = np.zeros((num_frames, 3))
    for frequency in (0.4, 0.9, 2.3):
        phase = rng.uniform(0, 2 * math.pi, 3)
        path += np.sin(2 * math.pi * frequency * time[:, None] + phase) / frequency
    return path * np.array([4.0, 3.0, 0.004])


def render_shot(photo: np.ndarray, pixel_size: float, num_frames: int, seed: int) -> torch.Tensor:
    """A hand-held camera with a slow push-in over a photo; `t 3 h w` float in [0, 1]."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    _, _, photo_height, photo_width = image.shape
    path = shaky_path(num_frames, rng)
    y, x = torch.meshgrid(
        torch.arange(HEIGHT) - HEIGHT / 2 + 0.5,
        torch.arange(WIDTH) - WIDTH / 2 + 0.5,
        indexing="ij",
    )
    frames = []
    for index, (dx, dy, angle) in enumerate(path):
        zoom = pixel_size * (1 - 0.06 * index / num_frames)
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        px = photo_width / 2 + dx + cos * x - sin * y
        py = photo_height / 2 + dy + sin * x + cos * y
        grid = torch.stack([2 * px / photo_width - 1, 2 * py / photo_height - 1], dim=-1).float()
        frames.append(
            F.grid_sample(image, grid[None], mode="bicubic", align_corners=False)[0].clamp(0, 1)
        )
    return torch.stack(frames)


def draw_overlay(frame: np.ndarray, text: str, index: int) -> np.ndarray:
    """A caption that travels across the picture, 3 px a frame, and a fixed frame counter."""
    canvas = Image.fromarray(frame)
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rectangle((0, 620, WIDTH, 690), fill=(0, 0, 0, 110))
    draw.text((60 - 3 * index, 636), text, font=ImageFont.load_default(34), fill=(255, 255, 255))
    counter = f"frame {index:04d}"
    draw.text((1060, 28), counter, font=ImageFont.load_default(30), fill=(255, 230, 90))
    return np.asarray(canvas)


def melody(seconds: float) -> np.ndarray:
    """A few plucked notes, `1 n` int16."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros_like(time)
    for number, note in enumerate((0, 4, 7, 12, 7, 4, 0, 5, 9, 12)):
        since = time - number * 0.3
        pitch = 220 * 2 ** (note / 12)
        wave = np.sin(2 * math.pi * pitch * since) + 0.3 * np.sin(4 * math.pi * pitch * since)
        sound += np.where(since >= 0, wave * np.exp(-5 * np.clip(since, 0, None)), 0)
    return (np.clip(sound * 0.25, -1, 1) * 32_767).astype(np.int16)[None]


def write_sharp(path: Path) -> None:
    """Write the sharp clip, losslessly, with its sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE)
        audio.layout = "mono"
        for number, (photo, pixel_size, text) in enumerate(SHOTS):
            shot = render_shot(photo()[..., :3].copy(), pixel_size, SHOT_FRAMES, SEED + number)
            for index, image in enumerate(shot):
                pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
                frame = draw_overlay(pixels, text, number * SHOT_FRAMES + index)
                container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(
            melody(len(SHOTS) * SHOT_FRAMES / FPS), format="s16", layout="mono"
        )
        sound.sample_rate, sound.time_base, sound.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def main() -> None:
    """Render, degrade, write."""
    target = Path(__file__).with_name("hand_held.mp4")
    with tempfile.TemporaryDirectory() as folder:
        sharp = Path(folder) / "sharp.mkv"
        write_sharp(sharp)
        degrade_file(sharp, target, preset="consistent", scale=4, seed=SEED, overwrite=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
