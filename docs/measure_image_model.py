"""What the engine costs beside calling an image model on whole frames in a loop.

Run it as `python docs/measure_image_model.py MODEL.safetensors --size 320x180 --frames 8`; needs
the extra `image-models`. CPU time of this process, so that other programs count little; the two
take turns. Nothing is decoded or encoded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import spandrel
import torch

import oasis_core


def frames_of(width: int, height: int, num_frames: int) -> list[np.ndarray]:
    """Noise, `h w 3` uint8."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8)] * num_frames


def main() -> None:
    """Print seconds a frame and the share that the engine adds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    frames = frames_of(width, height, arguments.frames)
    descriptor = spandrel.ModelLoader().load_from_file(arguments.model).eval()
    upscaler = oasis_core.load(arguments.model, device="cpu", dtype="float32")

    def alone() -> None:
        for frame in frames:
            clip = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
            large = (descriptor(clip)[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
            large.contiguous().numpy()

    def engine(*, anchor: bool) -> None:
        options = {"scale": descriptor.scale, "color_anchor": anchor, "shots": False}
        for _ in upscaler.upscale_frames(frames, **options):
            pass

    ways: dict[str, Callable[[], None]] = {
        "model in a loop": alone,
        "engine": lambda: engine(anchor=False),
        "engine with colour anchor": lambda: engine(anchor=True),
    }
    best = dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way()  # once unmeasured: memory and kernels are made ready
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            best[name] = min(best[name], (time.process_time() - start) / len(frames))
    for name, seconds in best.items():
        share = seconds / best["model in a loop"] - 1
        print(f"{name}: {seconds:.3f} s of CPU a frame ({share:+.1%})")


if __name__ == "__main__":
    main()
