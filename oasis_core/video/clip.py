"""A clip in memory as a source like any file: frames with their rate, and the sound beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .color import RGB_MATRIX
from .containers import check_size
from .errors import VideoError
from .frame import VideoFrame
from .images import ImageReader
from .info import ColorTags, VideoInfo
from .piece import TimeWindow
from .rates import nearest_rate

if TYPE_CHECKING:
    from torch import Tensor

FULL_SCALE = 65535
PLAIN_RGB = ColorTags(matrix=RGB_MATRIX)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ClipSource:
    """Frames that are held in memory; wherever a source is named, one of these will do."""

    frames: Tensor
    """`t 3 h w`, floating point, in [0, 1]; what lies outside is limited."""
    frame_rate: Fraction
    """Frames per second; brought to the nearest that encoders take."""
    sound: Path | None = None
    """File whose sound belongs to the frames and begins with the first one."""
    alpha: Tensor | None = None
    """`t h w` in [0, 1], 0 is transparent."""
    color: ColorTags = PLAIN_RGB
    """What the numbers mean: light and primaries are kept, the matrix is that of a YUV result."""
    _digests: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or 0 in self.frames.shape:
            raise VideoError(
                "frames of a clip must be t 3 h w with at least one frame, got "
                f"{tuple(self.frames.shape)}"
            )
        object.__setattr__(self, "frame_rate", nearest_rate(self.frame_rate))

    def __str__(self) -> str:
        num_frames, _, height, width = self.frames.shape
        return f"{num_frames} frames of {width}x{height} in memory"

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self)

    @property
    def suffix(self) -> str:
        """It has no ending."""
        return ""

    def exists(self) -> bool:
        """It is here."""
        return True

    def absolute(self) -> ClipSource:
        """It is nowhere else."""
        return self

    def fingerprint(self, check: Callable[[], None] | None = None) -> dict[str, Any]:
        """What identifies it: a hash of every frame, and the rate.

        Args:
            check: called before each frame when it is computed; may raise to stop.
        """
        if not self._digests:
            import torch

            digest = hashlib.sha256(f"{self.frames.dtype}".encode())
            for index in range(len(self)):
                if check is not None:
                    check()
                for values in self._stored(index):
                    # Bytes and not numbers: NumPy has no bfloat16.
                    digest.update(values.cpu().contiguous().flatten().view(torch.uint8).numpy())
            self._digests.append(digest.hexdigest())
        return {
            "shape": list(self.frames.shape),
            "frame_rate": str(self.frame_rate),
            "sha256_of_frames": self._digests[0],
            # Only where it is said: runs on other clips are those they were.
            **({} if self.color == PLAIN_RGB else {"color": str(self.color)}),
        }

    def _stored(self, index: int) -> list[Tensor]:
        """Return a frame's colours `h w 3`, and its transparency `h w` if it has one."""
        planes = [self.frames[index].detach().permute(1, 2, 0)]
        return planes if self.alpha is None else [*planes, self.alpha[index].detach()]

    def pixels(self, index: int) -> list[np.ndarray]:
        """Return a frame's colours `h w 3`, and its transparency `h w` if it has one, as uint16.

        Raises:
            VideoError: it is not all numbers.
        """
        planes = [values.cpu().float().clamp(0, 1) for values in self._stored(index)]
        if any(values.sum().isnan() for values in planes):
            raise VideoError(
                f"frames must be finite, got NaN in frame {index}; the node or the code before "
                "produced it, often by running a model in a precision that it does not bear"
            )
        return [values.mul_(FULL_SCALE).round_().numpy().astype(np.uint16) for values in planes]


class ClipReader(ImageReader):
    """Reads a clip in memory frame by frame, 16 bits deep; otherwise like `ImageReader`.

    Args:
        clip: the frames.
        window: the piece to read; None is everything.
    """

    def __init__(self, clip: ClipSource, *, window: TimeWindow | None = None) -> None:
        self.clip = clip
        self.paths: Sequence[Any] = range(len(clip))
        self._window = window
        self.num_frames_read = 0
        self.info = _describe(clip)

    def _frame(self, index: int, *, is_context: bool) -> VideoFrame:
        pixels, *alpha = self.clip.pixels(index)
        return VideoFrame(
            pixels=np.ascontiguousarray(pixels),
            pts=index,
            duration=1,
            alpha=alpha[0] if alpha else None,
            is_context=is_context,
        )


def _describe(clip: ClipSource) -> VideoInfo:
    num_frames, _, height, width = clip.frames.shape
    check_size(clip, (width, height))
    return VideoInfo(
        path=clip,
        container="memory",
        codec="rawvideo",
        width=width,
        height=height,
        rotation_deg=0,
        is_mirrored=False,
        sample_aspect_ratio=Fraction(1),
        frame_rate=clip.frame_rate,
        time_base=1 / clip.frame_rate,
        start_pts=0,
        num_frames=num_frames,
        duration_s=float(num_frames / clip.frame_rate),
        pixel_format="gbrp16le" if clip.alpha is None else "gbrap16le",
        bit_depth=16,
        has_alpha=clip.alpha is not None,
        color=clip.color,
        is_interlaced=False,
        frame_times=tuple(range(num_frames)),
    )
