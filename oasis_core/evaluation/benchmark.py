"""Degrade sharp clips, restore them, compare with the truth and with the plain bicubic resize."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..degradation import degrade
from ..video import VideoReader
from .metrics import motion, psnr, ssim, to_uint8, warping_error

if TYPE_CHECKING:
    from ..upscale import VideoUpscaler

Method = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """Metrics of one clip for the plain resize and for the model."""

    name: str
    """File name."""
    degradation: str
    """Preset the clip was degraded with."""
    num_frames: int
    """Frames compared."""
    bicubic: Method
    """psnr_db, ssim and, where motion was estimated, warping_error (x 1000)."""
    model: Method
    """The same for the model."""

    @property
    def gain_db(self) -> float:
        """PSNR of the model over the bicubic resize in dB."""
        return self.model["psnr_db"] - self.bicubic["psnr_db"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "gain_db": self.gain_db}


def read_clip(path: Path, num_frames: int, multiple: int) -> Tensor:
    """The first frames of a file, cropped to a multiple; `t 3 h w` float32 in [0, 1]."""
    with VideoReader(path) as reader:
        frames = [frame.pixels for frame in itertools.islice(reader, num_frames)]
    full_scale = np.iinfo(frames[0].dtype).max
    clip = torch.from_numpy(np.stack(frames).astype(np.float32) / full_scale)
    height, width = (n // multiple * multiple for n in clip.shape[1:3])
    return rearrange(clip[:, :height, :width], "t h w c -> t c h w").contiguous()


def _measure(clip: Tensor, truth: Tensor, flows: list[tuple[Tensor, Tensor]] | None) -> Method:
    clip = to_uint8(clip)
    values = {"psnr_db": psnr(clip, truth), "ssim": ssim(clip, truth)}
    if flows:
        values["warping_error"] = warping_error(clip, flows)
    return values


def evaluate_clip(
    upscaler: VideoUpscaler,
    path: Path,
    *,
    degradations: Sequence[str],
    scale: int,
    num_frames: int,
    has_motion: bool = True,
) -> Iterator[ClipResult]:
    """Degrade one clip in several ways, upscale it and measure.

    The seed is the checksum of the file name, so every run degrades a file alike.

    Args:
        upscaler: The model under test.
        path: A sharp video or image.
        degradations: Degradation presets.
        scale: Whole upscaling factor.
        num_frames: Frames to use from the start of the clip.
        has_motion: Estimate motion and measure the warping error (needs scikit-image).

    Yields:
        One result per degradation.
    """
    truth = read_clip(path, num_frames, multiple=scale)
    flows = motion(truth) if has_motion and len(truth) > 1 else None
    size = (truth.shape[3], truth.shape[2])
    for degradation in degradations:
        degraded, _ = degrade(
            truth, preset=degradation, scale=scale, seed=zlib.crc32(path.name.encode())
        )
        low = rearrange(degraded, "t c h w -> 1 c t h w")
        results = {}
        for name, strength in (("bicubic", 0.0), ("model", 1.0)):
            restored = upscaler.upscale(low, size=size, strength=strength)
            results[name] = _measure(rearrange(restored, "1 c t h w -> t c h w"), truth, flows)
        yield ClipResult(name=path.name, degradation=degradation, num_frames=len(truth), **results)


def evaluate(
    upscaler: VideoUpscaler,
    paths: Sequence[Path],
    *,
    degradations: Sequence[str] = ("light", "consistent"),
    scale: int = 4,
    num_frames: int = 10,
    has_motion: bool = True,
    on_result: Callable[[ClipResult], None] | None = None,
) -> list[ClipResult]:
    """Run `evaluate_clip` over files, calling `on_result` after each result."""
    results = []
    for path in paths:
        for result in evaluate_clip(
            upscaler,
            path,
            degradations=degradations,
            scale=scale,
            num_frames=num_frames,
            has_motion=has_motion,
        ):
            results.append(result)
            if on_result:
                on_result(result)
    return results


def summarise(results: Sequence[ClipResult]) -> dict[str, dict[str, float]]:
    """Means per degradation: gain, smallest gain, SSIM difference, warping error ratio."""
    summary = {}
    for degradation in dict.fromkeys(result.degradation for result in results):
        chosen = [result for result in results if result.degradation == degradation]
        gains = [result.gain_db for result in chosen]
        row = {
            "num_clips": len(chosen),
            "bicubic_psnr_db": float(np.mean([r.bicubic["psnr_db"] for r in chosen])),
            "mean_gain_db": float(np.mean(gains)),
            "least_gain_db": float(np.min(gains)),
            "ssim_gain": float(np.mean([r.model["ssim"] - r.bicubic["ssim"] for r in chosen])),
        }
        moving = [r for r in chosen if "warping_error" in r.model]
        if moving:
            model, bicubic = (
                np.mean([getattr(r, name)["warping_error"] for r in moving])
                for name in ("model", "bicubic")
            )
            row["warping_error_ratio"] = float(model / max(bicubic, 1e-12))
        summary[degradation] = row
    return summary
