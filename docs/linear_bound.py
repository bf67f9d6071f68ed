"""What a filter could win that knows the answer: a bound to read a model's gain against.

For each clip the linear filter of the low-quality pixels that is best on that very clip is fitted
to the original by least squares, for one frame and for three. `python docs/linear_bound.py CLIP...`
prints its gain in PSNR over the bicubic resize beside the bundled model's, and then where in the
spectrum the squared error lies: frequencies are relative to the highest one that the grid of the
low-quality pixels can hold.
"""

from __future__ import annotations

import argparse
import math
import statistics
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import oasis_core
from oasis_core.degradation import degrade
from oasis_core.evaluation.clips import find_sources, middle_square, read_clip

SCALE = 4
SIDE_PX, NUM_FRAMES = 256, 7
FILTER_PX = 9
# Keeps the equations solvable where neighbouring pixels are equal.
RIDGE = 1e-3
BANDS = ((0, 0.25), (0.25, 0.5), (0.5, 1), (1, SCALE + 1))
"""Relative to the low-quality grid's highest frequency, the larger of both axes."""


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


def band_errors(video: Tensor, truth: Tensor) -> list[float]:
    """Mean squared error of `t 3 h w` in each band; they add up to the whole."""
    error = video.clamp(0, 1) - truth
    power = torch.fft.fft2(error, norm="ortho").abs().square().mean((0, 1)) / error[0, 0].numel()
    rows, columns = (torch.fft.fftfreq(n).abs() * 2 * SCALE for n in error.shape[2:])
    place = torch.maximum(rows[:, None], columns)
    return [float(power[(place >= low) & (place < high)].sum()) for low, high in BANDS]


def main() -> None:
    """Print one line per clip, the means, and the error by bands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--preset", default="consistent")
    arguments = parser.parse_args()
    upscaler = oasis_core.load("oasis-tiny", device="cpu")
    gains, shares = [], []
    print(f"{'clip':24} bicubic  1 frame  3 frames  oasis-tiny")
    for path in (source.truth for source in find_sources(arguments.clips)):
        truth = middle_square(read_clip(path, NUM_FRAMES, SCALE), SIDE_PX, path.name)
        seed = zlib.crc32(path.name.encode())
        low, _ = degrade(truth, preset=arguments.preset, scale=SCALE, seed=seed)
        resized = F.interpolate(low, size=truth.shape[2:], mode="bicubic", antialias=True)
        video = rearrange(low, "t c h w -> 1 c t h w")
        restored = rearrange(upscaler.upscale(video, scale=SCALE), "1 c t h w -> t c h w")
        candidates = (*(best_linear(low, resized, truth, n) for n in (1, 3)), restored)
        base = psnr(resized, truth)
        whole = sum(band_errors(resized, truth))
        shares.append([[e / whole for e in band_errors(x, truth)] for x in (resized, restored)])
        gains.append([psnr(video, truth) - base for video in candidates])
        print(f"{path.stem:24} {base:7.2f}" + "".join(f"{gain:+10.2f}" for gain in gains[-1]))
    means = [statistics.mean(column) for column in zip(*gains, strict=True)]
    print(f"{'mean':32}" + "".join(f"{gain:+10.2f}" for gain in means))
    for index, (low, high) in enumerate(BANDS):
        before, after = (statistics.mean(s[i][index] for s in shares) for i in (0, 1))
        print(
            f"error at {low} to {high}: {before:.3f} of the resize's, {after:.3f} with oasis-tiny"
        )
    beyond = statistics.mean(-10 * math.log10(resize[-1]) for resize, _ in shares)
    print(f"gain if all of it but the last were gone: {beyond:+.2f} dB")


if __name__ == "__main__":
    main()
