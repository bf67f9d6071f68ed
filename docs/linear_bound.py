"""What a filter could win that knows the answer: a bound to read a model's gain against.

For each clip the linear filter of the low-quality pixels that is best on that very clip is fitted
to the original by least squares, for one frame and for three. `python docs/linear_bound.py CLIP...`
prints its gain in PSNR over the bicubic resize beside the bundled model's.
"""

from __future__ import annotations

import argparse
import statistics
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import oasis_core
from oasis_core.degradation import degrade
from oasis_core.evaluation.clips import read_clip

SCALE = 4
SIDE_PX, NUM_FRAMES = 256, 7
FILTER_PX = 9
# Keeps the equations solvable where neighbouring pixels are equal.
RIDGE = 1e-3


def psnr(video: Tensor, truth: Tensor) -> float:
    """Mean over frames, `t 3 h w`."""
    return float(-10 * (video.clamp(0, 1) - truth).square().mean((1, 2, 3)).log10().mean())


def best_linear(low: Tensor, resized: Tensor, truth: Tensor, num_frames: int) -> Tensor:
    """`resized` plus the fitted filter of `low`: one kernel per position within a pixel."""
    margin = FILTER_PX // 2
    patches = []
    for offset in range(-(num_frames // 2), num_frames // 2 + 1):
        index = (torch.arange(len(low)) + offset).clamp(0, len(low) - 1)
        padded = F.pad(low[index], (margin,) * 4, mode="replicate")
        patches.append(F.unfold(rearrange(padded, "t c h w -> (t c) 1 h w"), FILTER_PX))
    rows = rearrange(torch.cat(patches, 1), "b k p -> (b p) k").double()
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
    phases = "t c (h a) (w b) -> (t c h w) (a b)"
    wanted = rearrange(truth - resized, phases, a=SCALE, b=SCALE).double()
    normal = rows.T @ rows + RIDGE * torch.eye(rows.shape[1], dtype=rows.dtype)
    fitted = (rows @ torch.linalg.solve(normal, rows.T @ wanted)).float()
    sizes = {"t": len(low), "c": 3, "h": low.shape[2], "a": SCALE}
    return resized + rearrange(fitted, "(t c h w) (a b) -> t c (h a) (w b)", **sizes)


def main() -> None:
    """Print one line per clip and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--preset", default="consistent")
    arguments = parser.parse_args()
    upscaler = oasis_core.load("oasis-tiny", device="cpu")
    gains = []
    print(f"{'clip':24} bicubic  1 frame  3 frames  oasis-tiny")
    for path in arguments.clips:
        clip = read_clip(path, NUM_FRAMES, SCALE)
        top, left = ((length - SIDE_PX) // 2 for length in clip.shape[2:])
        truth = clip[:, :, top : top + SIDE_PX, left : left + SIDE_PX]
        seed = zlib.crc32(path.name.encode())
        low, _ = degrade(truth, preset=arguments.preset, scale=SCALE, seed=seed)
        resized = F.interpolate(low, size=truth.shape[2:], mode="bicubic", antialias=True)
        video = rearrange(low, "t c h w -> 1 c t h w")
        restored = rearrange(upscaler.upscale(video, scale=SCALE), "1 c t h w -> t c h w")
        candidates = (*(best_linear(low, resized, truth, n) for n in (1, 3)), restored)
        base = psnr(resized, truth)
        gains.append([psnr(video, truth) - base for video in candidates])
        print(f"{path.stem:24} {base:7.2f}" + "".join(f"{gain:+10.2f}" for gain in gains[-1]))
    means = [statistics.mean(column) for column in zip(*gains, strict=True)]
    print(f"{'mean':32}" + "".join(f"{gain:+10.2f}" for gain in means))


if __name__ == "__main__":
    main()
