"""From a low-quality clip to the clean latent, for those who decode or sample on themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..families.restorer import HasLatent, Place, Restorer
from ..geometry import next_valid_num_frames, round_up
from ..sizes import target_size
from ..video.pixels import resize
from .precision import arithmetic
from .progress import stage_of
from .segment import is_out_of_memory
from .tile_clips import LEAST_TILE_PX, TILE_GRID_PX, TiledClip, split_tiles, stitch_tiles

if TYPE_CHECKING:
    from .upscaler import VideoUpscaler

logger = logging.getLogger(__name__)

OVERLAP_PX = 64


def check_has_latent(restorer: Restorer) -> HasLatent:
    """The restorer as one with a latent.

    Raises:
        ValueError: It predicts none.
    """
    if not isinstance(restorer, HasLatent):
        raise ValueError(
            f"denoising to a latent needs a model of the oasis-1.3b family, which predicts Wan 2.1 "
            f"latents, got {restorer.traits.name}, which predicts none; upscale to images with it"
        )
    return restorer


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

    A tile that is not finite is repeated in float32; out of memory, the clip is in smaller tiles.

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
        ValueError: The model has no such latent, the size is out of range, the latent is not
            finite, or memory does not suffice for any tile.
    """
    restorer = check_has_latent(upscaler.restorer)
    upscaler.prepare()
    sides = target_size(video.shape[4], video.shape[3], scale=scale)
    width, height = (round_up(side, TILE_GRID_PX) for side in sides)
    on_stage, frames = stage_of(on_progress), []
    for index, frame in enumerate(video[0].unbind(1)):
        on_stage("resize", index, video.shape[2])
        frames.append(resize(frame[None], height, width))
    num_frames = next_valid_num_frames(len(frames), restorer.latent_stride[0])
    large = torch.stack(frames + frames[-1:] * (num_frames - len(frames)), dim=1)[None]
    side_px = max(LEAST_TILE_PX, tile_px or max(height, width))
    while True:
        tiles = split_tiles(large, tile_px=side_px, overlap_px=OVERLAP_PX, on_stage=on_stage)
        try:
            # Latent frames are fewer, so this goes past the check of `with_clips`.
            latents = _latents(upscaler, tiles, on_progress)
            return restorer.to_vae(stitch_tiles(replace(tiles, clips=latents)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Outside the handler: the exception's traceback holds the failed run's tensors.
        side_px = _smaller(side_px, max(height, width), reason, upscaler.device)


def _smaller(side_px: int, longest_px: int, reason: str, device: torch.device) -> int:
    side_px = min(side_px, longest_px) // 2
    if side_px < LEAST_TILE_PX:
        raise ValueError(
            f"memory must hold one tile of {2 * side_px} px, but it does not ({reason}); use fewer "
            "frames or a smaller scale"
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    logger.warning("out of memory (%s); repeating in tiles of %d px", reason, side_px)
    return side_px


def _latents(
    upscaler: VideoUpscaler,
    tiles: TiledClip,
    on_progress: Callable[[float, float], None] | None,
) -> tuple[Tensor, ...]:
    on_stage, latents = stage_of(on_progress), []
    for clip, (top, left) in zip(tiles.clips, tiles.places, strict=True):
        on_stage("model", len(latents), len(tiles.clips))
        place = Place(first_frame=0, top=top, left=left)
        latents.append(_finite_latent(upscaler, clip, place, len(latents)))
        if on_progress is not None:
            on_progress(len(latents), len(tiles.clips))
    return tuple(latents)


def _finite_latent(upscaler: VideoUpscaler, clip: Tensor, place: Place, number: int) -> Tensor:
    restorer, device = check_has_latent(upscaler.restorer), upscaler.device
    for is_repeated, dtype in enumerate((upscaler.dtype, torch.float32)):
        with arithmetic(upscaler.traits, device, dtype):
            latent = restorer.predict_latent(clip.to(device, dtype), place).float().cpu()
        if torch.isfinite(latent).all():
            return latent
        if not is_repeated:
            logger.warning("tile %d is not finite in %s; repeating in float32", number, dtype)
    raise ValueError(
        f"the latent must be finite, got NaN or infinity in tile {number} even in float32; the "
        "model's weights or this input are broken, check the model file"
    )
