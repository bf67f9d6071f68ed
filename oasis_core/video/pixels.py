"""Frames as arrays of integers and as tensors, and the plain resize.

The only module of this folder that loads torch; `video/__init__` does not import it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Frame = np.ndarray | Tensor
"""`h w 3` uint8 or uint16 array (full scale), or `3 h w` float tensor in [0, 1]."""

FULL_SCALE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
"""Largest value of each integer type, which stands for 1."""


def equal(first: Frame, second: Frame) -> bool:
    """Whether two frames are of one type and hold the same values."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        is_alike = type(first) is type(second) and first.dtype == second.dtype
        return is_alike and first.device == second.device and torch.equal(first, second)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    # Frames that differ mostly do so in a row of the middle.
    middle = len(first) // 2
    return np.array_equal(first[middle], second[middle]) and np.array_equal(first, second)


def frame_to_tensor(frame: Frame, device: torch.device) -> Tensor:
    """A frame as `1 3 h w` float32 in [0, 1]."""
    if isinstance(frame, Tensor):
        return frame.to(device, torch.float32)[None]
    full_scale = FULL_SCALE[frame.dtype]
    # Older torch has few operations for uint16.
    pixels = torch.from_numpy(frame if frame.dtype == np.uint8 else frame.astype(np.int32))
    planes = pixels.to(device).permute(2, 0, 1)[None]
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(full_scale)


@torch.inference_mode()
def tensor_to_frame(video: Tensor, dtype: np.dtype) -> np.ndarray:
    """A frame `3 h w` float32 in [0, 1] as `h w 3` integers of full scale; changes `video`."""
    planes = video.mul_(FULL_SCALE[np.dtype(dtype)]).round_().cpu().numpy().astype(dtype)
    # Stacking three planes is several times faster than permuting to pixels.
    return np.stack(tuple(planes), axis=-1)


def resize(video: Tensor, height: int, width: int) -> Tensor:
    """Resize `1 3 h w` to `3 height width` in [0, 1]: bicubic, antialiased.

    This alone is the result at strength 0.
    """
    if video.shape[2:] != (height, width):
        video = F.interpolate(video, (height, width), mode="bicubic", antialias=True)
        return video[0].clamp_(0, 1)
    return video[0].clamp(0, 1)
