"""End-to-end speed of a model against a plain convolutional network of the usual kind.

The yardstick has the shape of SRVGGNetCompact as used by realesr-general-x4v3 (64 features, 32
3x3 convolutions with PReLU, x4 pixel-shuffle, nearest-neighbour skip), with random weights: what
people without a GPU run today. Both go from decoded uint8 frames to uint8 frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import next_valid_num_frames
from ..model.timing import fastest
from ..upscale.precision import arithmetic
from ..video.pixels import frame_to_tensor, tensor_to_frame

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


def run_yardstick(
    network: CompactNet, frames: list[np.ndarray], dtype: torch.dtype
) -> list[np.ndarray]:
    """Upscale frames `h w 3` uint8 with the engine's own conversions."""
    device = next(network.parameters()).device
    results = []
    for frame in frames:
        clip = frame_to_tensor(frame, device).to(dtype, memory_format=torch.channels_last)
        results.append(tensor_to_frame(network(clip)[0].float().clamp_(0, 1), np.uint8))
    return results


def _random_frames(num_frames: int, width: int, height: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8))


def run_engine(
    upscaler: VideoUpscaler, frames: list[np.ndarray], size: tuple[int, int]
) -> list[np.ndarray]:
    """What a file goes through between decoder and encoder: segments, halo, anchor and all."""
    return list(upscaler.upscale_frames(frames, size=size, shots=False))


def _settings(upscaler: VideoUpscaler, size: tuple[int, int], num_frames: int) -> dict[str, Any]:
    return {
        "model": upscaler.name,
        "dtype": str(upscaler.dtype).removeprefix("torch."),
        "device": str(upscaler.device),
        "threads": torch.get_num_threads(),
        "size": list(size),
        "frames": num_frames,
    }


@torch.inference_mode()
def bench_speed(
    upscaler: VideoUpscaler, *, size: tuple[int, int], num_frames: int, num_runs: int
) -> dict[str, Any]:
    """Time the engine and the yardstick on the same random frames, in one process.

    Args:
        upscaler: The model, in the dtype under test; the yardstick runs in the same.
        size: (width, height) of the result; the source is a quarter of it.
        num_frames: Frames of the clip.
        num_runs: Measured runs; the fastest counts, since others only add the machine's noise.
    """
    width, height = (n // YARDSTICK_SCALE for n in size)
    frames = _random_frames(num_frames, width, height)
    network = CompactNet().to(upscaler.device, upscaler.dtype, memory_format=torch.channels_last)
    device, dtype = upscaler.device, upscaler.dtype
    model_s, _ = fastest(lambda: run_engine(upscaler, frames, size), device, num_runs)
    yardstick_s, _ = fastest(lambda: run_yardstick(network, frames, dtype), device, num_runs)
    return _settings(upscaler, size, num_frames) | {
        "model_s_per_frame": model_s / num_frames,
        "yardstick_s_per_frame": yardstick_s / num_frames,
        "speedup_over_yardstick": yardstick_s / model_s,
    }


@torch.inference_mode()
def bench_routing(
    upscaler: VideoUpscaler, *, size: tuple[int, int], num_frames: int, num_runs: int
) -> dict[str, Any]:
    """Time the model routed and with every head global, on the same tile.

    Args:
        upscaler: A model with its routing; it is left as it was.
        size: (width, height) of the tile in output pixels.
        num_frames: Frames of the tile.
        num_runs: Measured runs of each; the fastest counts.
    """
    stride_t, stride_h, stride_w = upscaler.traits.stride
    width, height = size[0] // stride_w * stride_w, size[1] // stride_h * stride_h
    num_frames = next_valid_num_frames(num_frames, stride_t)
    clip = torch.rand(1, 3, num_frames, height, width, device=upscaler.device)
    if upscaler.traits.arithmetic == "own":
        clip = clip.to(upscaler.dtype)
    attentions = [block.attention for block in upscaler.model.transformer.blocks]
    routed = [attention.counts for attention in attentions]

    def run() -> None:
        with arithmetic(upscaler.traits, upscaler.device, upscaler.dtype):
            upscaler.model(clip)

    try:
        routed_s, _ = fastest(run, upscaler.device, num_runs)
        for attention in attentions:
            attention.counts = (attention.num_heads, 0, 0)
        global_s, _ = fastest(run, upscaler.device, 1)
    finally:
        for attention, counts in zip(attentions, routed, strict=True):
            attention.counts = counts
    return _settings(upscaler, (width, height), num_frames) | {
        "routed_s_per_frame": routed_s / num_frames,
        "global_s_per_frame": global_s / num_frames,
        "speedup_over_global": global_s / routed_s,
    }
