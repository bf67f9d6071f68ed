"""What OASIS Compare reads, and the files that its viewer plays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import Input
from torch import Tensor

from . import _adapters
from ._sources import opened

VIEWER_WIDTH_PX = 1920
"""Larger pictures are shown smaller: two side by side are what browsers decode without effort."""
VIEWER_CRF = 12.0
FULL_SCALE = {"uint8": 255, "uint16": 65535}


def read_clip(
    value: Tensor | Input.Video, max_frames: int, check: Callable[[], None]
) -> tuple[Tensor, Fraction | None]:
    """The first frames of an IMAGE or a VIDEO.

    Args:
        value: IMAGE `t h w c` or VIDEO; of a file no more is read than needed.
        max_frames: Frames taken.
        check: Called before each frame; may raise to stop.

    Returns:
        `t 3 h w` float32 in [0, 1], and the frame rate of a VIDEO.
    """
    if isinstance(value, Tensor):
        return _adapters.to_video(value[:max_frames], is_clip=False).squeeze(2), None
    from ..oasis_core.video import TimeWindow, open_source, probe

    with opened(value, check) as source:
        info = probe(source.place)
        window = TimeWindow(start_s=source.start_s or 0.0, duration_s=source.duration_s)
        expected = window.num_frames(info.num_frames, info.duration_s, info.frame_rate)
        num_frames = min(max_frames, expected)
        _adapters.check_memory(num_frames, source.size, "hold the frames to compare")
        frames = []
        with open_source(source.place, window=window) as reader:
            for frame in itertools.islice(reader, max_frames):
                check()
                frames.append(_planes(frame.pixels))
    return torch.stack(frames), info.frame_rate


def _planes(pixels: np.ndarray) -> Tensor:
    scale = FULL_SCALE[str(pixels.dtype)]
    return torch.from_numpy(pixels[..., :3].astype(np.float32) / scale).permute(2, 0, 1)


def clip_file(clip: Tensor, frame_rate: Fraction, name: str, check: Callable[[], None]) -> Path:
    """Encode frames into ComfyUI's temporary folder, under a name that their content decides.

    Args:
        clip: `t 3 h w`, float in [0, 1].
        frame_rate: Frames per second.
        name: What the file's name begins with.
        check: Called before each frame; may raise to stop.

    Returns:
        An H.264 file.
    """
    from ..oasis_core.video.film import write_clip

    digest = hashlib.sha256(f"{frame_rate} {tuple(clip.shape)}".encode())
    for frame in clip:
        check()
        digest.update((frame * 255).round().to(torch.uint8).numpy().tobytes())
    path = _adapters.temp_folder() / f"{name}_{digest.hexdigest()[:16]}.mp4"
    if not path.is_file():
        write_clip(clip, frame_rate, path, codec="h264", crf=VIEWER_CRF, check=check)
    return path


def viewer_facts(
    before: Tensor, after: Tensor, frame_rate: Fraction, check: Callable[[], None]
) -> dict[str, Any]:
    """What the viewer on the page needs: one file with both clips side by side, and its measures.

    One file, so that both halves always show the same frame.

    Args:
        before: `t 3 h w`, float in [0, 1].
        after: Like `before`.
        frame_rate: Frames per second.
        check: Called before each frame; may raise to stop.
    """
    from ..oasis_core.evaluation.clip_scores import resize_clip, side_by_side

    height, width = before.shape[2:]
    scale = min(1, VIEWER_WIDTH_PX / width)
    # Even sides: browsers play nothing but 4:2:0.
    size = tuple(max(2, round(side * scale) // 2 * 2) for side in (height, width))
    pair = side_by_side(resize_clip(before, size, check), resize_clip(after, size, check))
    path = clip_file(pair, frame_rate, "oasis_viewer", check)
    return {
        "filename": path.name,
        "subfolder": "",
        "type": "temp",
        "width": size[1],
        "height": size[0],
        "frames": len(before),
        "fps": float(frame_rate),
    }
