"""From a low-quality clip to the clean latent, for those who decode or sample on themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry import next_valid_num_frames, round_up, target_size
from ..model.wan_vae import LATENT_CHANNELS, LATENT_MEAN, LATENT_STD
from ..video.pixels import resize
from .precision import arithmetic
from .tile_clips import LEAST_TILE_PX, TILE_GRID_PX, split_tiles, stitch_tiles

if TYPE_CHECKING:
    from .upscaler import VideoUpscaler

OVERLAP_PX = 64


def check_has_latent(model: torch.nn.Module) -> None:
    """Refuse models that predict no latent of the Wan 2.1 VAE.

    Raises:
        ValueError: It is one of those.
    """
    config = model.config
    if not config.is_latent or config.out_channels != LATENT_CHANNELS:
        raise ValueError(
            f"denoising to a latent needs a model of the oasis-1.3b family, which predicts Wan 2.1 "
            f"latents, got {config.name}, whose decoder is {config.decoder!r}; upscale to images "
            "with it"
        )


@torch.inference_mode()
def denoise_to_latent(
    upscaler: VideoUpscaler,
    video: Tensor,
    *,
    scale: float,
    tile_px: int | None = None,
    on_progress: Callable[[float, float], None] | None = None,
) -> Tensor:
    """Restore a clip and stop before the decoder.

    Args:
        upscaler: Model, device and arithmetic.
        video: `1 3 t h w`, float in [0, 1].
        scale: Factor for both sides; the result is rounded up to multiples of 16 pixels.
        tile_px: Side of a tile in output pixels; None takes whole frames.
        on_progress: Called with (tiles done, tiles in all); may raise to stop.

    Returns:
        `1 16 t' h' w'` float32 on the CPU, in the space of the VAE itself (not normalised), where
        t' = 1 + ceil((t - 1) / 4): the last frame is repeated up to 4k+1 frames; h' and w' are an
        eighth of the enlarged sides.

    Raises:
        ValueError: The model has no such latent, or the size is out of range.
    """
    model = upscaler.model
    check_has_latent(model)
    stride = model.config.stem_stride[0]
    sides = target_size(video.shape[4], video.shape[3], scale=scale)
    width, height = (round_up(side, TILE_GRID_PX) for side in sides)
    frames = [resize(frame[None], height, width) for frame in video[0].unbind(1)]
    frames += frames[-1:] * (next_valid_num_frames(len(frames), stride) - len(frames))
    large = torch.stack(frames, dim=1)[None]
    side_px = max(LEAST_TILE_PX, tile_px or max(height, width))
    tiles = split_tiles(large, tile_px=side_px, overlap_px=OVERLAP_PX)
    latents = []
    for clip in tiles.clips:
        source = clip.to(upscaler.device, upscaler.dtype)
        with arithmetic(upscaler.device, upscaler.dtype):
            latents.append(model.predict_latent(model.encode(source)).float().cpu())
        if on_progress is not None:
            on_progress(len(latents), len(tiles.clips))
    # Latent frames are fewer, so this goes past the check of `with_clips`.
    latent = stitch_tiles(replace(tiles, clips=tuple(latents)))
    mean, std = (latent.new_tensor(v).view(-1, 1, 1, 1) for v in (LATENT_MEAN, LATENT_STD))
    return latent * std + mean
