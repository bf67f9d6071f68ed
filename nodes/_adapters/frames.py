"""IMAGE as the engine's video and back."""

from __future__ import annotations

import comfy.model_management
import torch
from torch import Tensor, nn


def check_images(images: Tensor) -> None:
    """Refuse what is no batch of colour images.

    Raises:
        ValueError: It is none.
    """
    if images.ndim != 4 or images.shape[-1] < 3 or 0 in images.shape:
        raise ValueError(
            "images must be a batch t h w c of at least one image with 3 channels, got shape "
            f"{tuple(images.shape)}; convert masks to images first"
        )


def to_video(images: Tensor, *, is_clip: bool = True) -> Tensor:
    """IMAGE as the engine's video.

    Args:
        images: `t h w c`, any floating point, 3 or more channels.
        is_clip: Whether the images are frames of one clip; else each is a clip of its own.

    Returns:
        `1 3 t h w`, or `t 3 1 h w` for stills: float32 in [0, 1].

    Raises:
        ValueError: It is not a batch of colour images, or some of it is no number.
    """
    from einops import rearrange

    check_images(images)
    pattern = "t h w c -> 1 c t h w" if is_clip else "t h w c -> t c 1 h w"
    video = images[..., :3].float().clamp(0, 1)
    if video.sum().isnan():
        frame = video.flatten(1).sum(1).isnan().nonzero()[0].item()
        raise ValueError(
            f"images must be finite, got NaN in frame {frame}; the node before produced it, often "
            "by running a model in a precision that it does not bear"
        )
    return rearrange(video, pattern)


def to_images(video: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The engine's video, clip or stills, as IMAGE `t h w c` on ComfyUI's device.

    Args:
        video: `1 3 t h w` or `t 3 1 h w`, float32 in [0, 1].
        alpha: `t 1 h w` of the source at any size, in [0, 1]; becomes the fourth channel.
    """
    from einops import rearrange

    images = rearrange(video, "b c t h w -> (b t) h w c")
    if alpha is not None:
        size = images.shape[1:3]
        enlarged = nn.functional.interpolate(alpha, size, mode="bicubic", antialias=True)
        enlarged = rearrange(enlarged.clamp(0, 1), "t c h w -> t h w c").to(images.device)
        images = torch.cat((images, enlarged), dim=-1)
    return images.contiguous().to(comfy.model_management.intermediate_device())


def alpha_of(images: Tensor) -> Tensor | None:
    """The alpha channel of IMAGE `t h w c` as `t 1 h w` float32 in [0, 1], if it has one."""
    if images.shape[-1] < 4:
        return None
    return images[..., 3].float().clamp(0, 1)[:, None]


def to_clip(images: Tensor) -> Tensor:
    """IMAGE `t h w c` as `1 c t h w` with all its channels and values as they are."""
    from einops import rearrange

    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be a batch t h w c, got shape {tuple(images.shape)}")
    return rearrange(images, "t h w c -> 1 c t h w")


def check_memory(num_frames: int, size: tuple[int, int], purpose: str = "hold the result") -> None:
    """Refuse, with numbers, a batch of images that main memory cannot hold.

    Args:
        num_frames: Images.
        size: (width, height) in pixels.
        purpose: What the memory is for.

    Raises:
        ValueError: It does not fit.
    """
    from ...oasis_core.upscale.memory import free_host_bytes

    # Twice: the engine's order of axes is not ComfyUI's, and both exist for a moment.
    needed, free = 2 * num_frames * 3 * 4 * size[0] * size[1], free_host_bytes()
    if needed > free:
        raise ValueError(
            f"main memory must {purpose} ({num_frames} frames of {size[0]}x{size[1]} need "
            f"{needed / 2**30:.1f} GiB), but {free / 2**30:.1f} GiB are free; use OASIS Upscale "
            "Video on a whole file, which streams at any length, or fewer frames, or a smaller "
            "scale"
        )
