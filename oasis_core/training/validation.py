"""Measuring a model while it trains: the gain over the plain resize on clips it never sees."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..degradation import degrade
from ..evaluation.clips import find_sources, middle_square, read_frames
from ..evaluation.metrics import psnr, to_uint8
from ..evaluation.pictures import encode_picture, strip
from .config import TrainingConfig

SCALE = 4
PRESETS = ("light", "consistent")
MAX_PICTURED_CLIPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationClip:
    """The middle of a clip, degraded and resized back; `t 3 s s` in [0, 1]."""

    name: str
    """File name."""
    preset: str
    """Degradation."""
    resized: Tensor
    """The model's input."""
    truth: Tensor
    """The original."""
    bicubic_db: float
    """PSNR of the input."""


def load_validation(config: TrainingConfig) -> list[ValidationClip]:
    """Degrade the middle of every validation clip, always alike.

    Raises:
        ValueError: A folder is missing or empty, or a clip is unreadable or too small.
    """
    clips = []
    sources = find_sources([Path(folder).expanduser() for folder in config.validation_dirs])
    for source in sources:
        clip = read_frames(source.truth, config.validation_frames)
        truth = middle_square(clip, config.validation_px, source.name)
        for preset in PRESETS:
            low, _ = degrade(
                truth, preset=preset, scale=SCALE, seed=zlib.crc32(source.name.encode())
            )
            resized = F.interpolate(low, size=truth.shape[2:], mode="bicubic", antialias=True)
            resized = to_uint8(resized)
            clips.append(
                ValidationClip(
                    name=source.name,
                    preset=preset,
                    resized=resized,
                    truth=truth,
                    bicubic_db=psnr(resized, truth),
                )
            )
    return clips


@torch.no_grad()
def restore(
    model: Callable[[Tensor], Tensor], clip: ValidationClip, device: torch.device
) -> Tensor:
    """What a model makes of a clip, `t 3 s s` in [0, 1]."""
    video = rearrange(clip.resized, "t c h w -> 1 c t h w").to(device)
    restored = (video + model(video).float()).cpu()
    return to_uint8(rearrange(restored, "1 c t h w -> t c h w"))


def gains(
    model: Callable[[Tensor], Tensor], clips: list[ValidationClip], device: torch.device
) -> dict[str, float]:
    """Mean PSNR over the resize in dB by degradation, and the least one of any clip."""
    found: dict[str, list[float]] = {preset: [] for preset in PRESETS}
    for clip in clips:
        gain = psnr(restore(model, clip, device), clip.truth) - clip.bicubic_db
        found[clip.preset].append(gain)
    values = {f"gain_{preset}_db": sum(v) / len(v) for preset, v in found.items()}
    return {**values, "least_gain_db": min(min(v) for v in found.values())}


def write_sample(
    folder: Path,
    name: str,
    model: Callable[[Tensor], Tensor],
    clips: list[ValidationClip],
    device: torch.device,
) -> Path:
    """A PNG with one line per clip: input, output, truth of the middle frame."""
    lines = []
    for clip in clips[:: max(1, len(clips) // MAX_PICTURED_CLIPS)][:MAX_PICTURED_CLIPS]:
        middle = len(clip.truth) // 2
        restored = restore(model, clip, device)
        lines.append(strip([clip.resized[middle], restored[middle], clip.truth[middle]]))
    path = folder / f"{name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_picture(torch.cat(lines, dim=1)))
    return path
