"""End-to-end speed of a model against a plain convolutional network of the usual kind.

The yardstick has the shape of SRVGGNetCompact as used by realesr-general-x4v3 (64 features, 32
3x3 convolutions with PReLU, x4 pixel-shuffle, nearest-neighbour skip), with random weights: what
people without a GPU run today. Both go from decoded uint8 frames to uint8 frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..upscale import VideoUpscaler

YARDSTICK_SCALE = 4
YARDSTICK_FEATURES = 64
YARDSTICK_CONVS = 32


class CompactNet(nn.Module):
    """The yardstick, single-frame; `t 3 h w` to `t 3 4h 4w`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, YARDSTICK_FEATURES, 3, padding=1)]
        for _ in range(YARDSTICK_CONVS):
            layers += [nn.PReLU(YARDSTICK_FEATURES)]
            layers += [nn.Conv2d(YARDSTICK_FEATURES, YARDSTICK_FEATURES, 3, padding=1)]
        layers += [nn.PReLU(YARDSTICK_FEATURES)]
        layers += [nn.Conv2d(YARDSTICK_FEATURES, 3 * YARDSTICK_SCALE**2, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, clip: Tensor) -> Tensor:
        """Upscale `t 3 h w` fourfold."""
        residual = F.pixel_shuffle(self.layers(clip), YARDSTICK_SCALE)
        return residual + F.interpolate(clip, scale_factor=YARDSTICK_SCALE, mode="nearest")


def run_yardstick(network: CompactNet, frames: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Frames `h w 3` uint8 in, upscaled frames `h w 3` uint8 out."""
    device = next(network.parameters()).device
    results = []
    for frame in frames:
        clip = frame.to(device).permute(2, 0, 1)[None].to(dtype).div_(255)
        clip = clip.contiguous(memory_format=torch.channels_last)
        restored = network(clip).float().mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        results.append(restored[0].permute(1, 2, 0).contiguous().cpu())
    return results


def _fastest(function: Callable[[], object], num_runs: int) -> float:
    function()
    seconds = []
    for _ in range(num_runs):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@torch.inference_mode()
def bench_speed(
    upscaler: VideoUpscaler,
    run_model: Callable[[VideoUpscaler, list[Tensor], tuple[int, int]], object],
    *,
    size: tuple[int, int],
    num_frames: int,
    num_runs: int,
) -> dict[str, Any]:
    """Time the model and the yardstick in turn on the same random frames.

    Args:
        upscaler: The model, in the dtype under test.
        run_model: Upscales uint8 frames `h w 3` to a size with the upscaler.
        size: (width, height) of the result; the source is a quarter of it.
        num_frames: Frames of the clip.
        num_runs: Measured runs; the fastest counts.
    """
    width, height = (n // YARDSTICK_SCALE for n in size)
    generator = torch.Generator().manual_seed(0)
    frames = [
        torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
        for _ in range(num_frames)
    ]
    network = CompactNet().to(upscaler.device, upscaler.dtype, memory_format=torch.channels_last)
    model_s = _fastest(lambda: run_model(upscaler, frames, size), num_runs)
    yardstick_s = _fastest(lambda: run_yardstick(network, frames, upscaler.dtype), num_runs)
    return {
        "model": upscaler.name,
        "dtype": str(upscaler.dtype).removeprefix("torch."),
        "device": str(upscaler.device),
        "threads": torch.get_num_threads(),
        "size": list(size),
        "frames": num_frames,
        "model_s_per_frame": model_s / num_frames,
        "yardstick_s_per_frame": yardstick_s / num_frames,
        "speedup_over_yardstick": yardstick_s / model_s,
    }
