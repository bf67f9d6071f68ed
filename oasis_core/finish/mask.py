"""Where in the picture the model's work counts: 0 is the plain resize, 1 the model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..video import Source, TimeWindow, VideoError
from ..video.pixels import FULL_SCALE
from ..words import counted

NEAR_END = 1.5 / 255
"""What lies as near to 0 or 1 is that: codecs and resizes leave a step beside it."""
CELL_PX = 8
"""Side of the squares in which a picture's mask is known to be 0 or not."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask:
    """A mask, as somebody named it and, once it is fitted to a film, as that film's."""

    source: Source | None = None
    """Files that hold it: a picture, a sequence or a film."""
    values: Tensor | None = None
    """`t h w` in [0, 1], where it is held in memory."""
    window: TimeWindow | None = None
    """The piece of the film; None is everything."""
    frame_rate: Fraction | None = None
    """Of the film, for pictures of a mask."""
    is_still: bool = True
    """Whether one picture holds for the whole film."""

    @classmethod
    def of(cls, name: str | os.PathLike[str] | Tensor | Mask) -> Mask:
        """Find out what a name stands for.

        Args:
            name: A picture, `mask_%05d.png`, a folder of pictures or a film, white where the model
                counts; or `t h w` (or `h w`) floating point in [0, 1].

        Raises:
            ValueError: A tensor is no mask.
            VideoError: The name means nothing.
        """
        if isinstance(name, Mask):
            return name
        if not isinstance(name, Tensor):
            source = Source.resolve(name)
            if source.is_missing():
                raise VideoError(f"the mask {str(source)!r} does not exist; check the name")
            return cls(source=source, is_still=len(source.pictures) == 1)
        values = name[None] if name.ndim == 2 else name
        if values.ndim != 3 or 0 in values.shape or not values.is_floating_point():
            raise ValueError(
                "mask must be t h w with no empty axis, floating point in [0, 1], got "
                f"{tuple(name.shape)} {name.dtype}"
            )
        if not torch.isfinite(values).all():
            raise ValueError("mask must be finite, got NaN or infinity")
        return cls(values=values.detach().cpu().float(), is_still=len(values) == 1)

    def __str__(self) -> str:
        return repr(str(self.source)) if self.source is not None else "in memory"

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the content in journals, as JSON values."""
        if self.source is not None:
            return self.source.fingerprint()
        digest = hashlib.sha256(self.values.contiguous().numpy().tobytes()).hexdigest()
        return {"shape": list(self.values.shape), "sha256": digest}

    def fitted(
        self, num_frames: int | None, *, window: TimeWindow | None = None, rate: Fraction
    ) -> Mask:
        """The mask of a film, checked against it.

        Args:
            num_frames: Of the film, or of the piece of it, if known.
            window: The piece to do; None is everything.
            rate: Frames of the film per second.

        Raises:
            ValueError: It has another number of frames, or is 0 everywhere.
            VideoError: It cannot be read.
        """
        mask = self
        if self.source is None:
            length = len(self.values)
        elif self.is_still:
            length = 1
        else:
            window = None if window is None else replace(window, context_frames=0)
            is_pictures = bool(self.source.pictures)
            mask = replace(self, window=window, frame_rate=rate if is_pictures else None)
            info = self.source.probe(frame_rate=mask.frame_rate)
            length = self.source.count(info, window)
            if length == 1 and window is None:
                mask = replace(mask, is_still=True)
        if num_frames is not None and length not in (None, 1, num_frames):
            raise ValueError(
                f"the mask {self} must have one picture or as many as the film, which has "
                f"{counted(num_frames, 'frame')}, got {length}; cut or extend the mask"
            )
        if mask.is_still and not any(bool(picture.any()) for picture in mask.pictures()):
            raise ValueError(
                f"the mask {self} is black everywhere, so that the model would do nothing; it must "
                "be white where the model is to work"
            )
        return mask

    def pictures(self) -> Iterator[np.ndarray]:
        """The mask's pictures in order, `h w` uint8 or float32, values near an end being it.

        Raises:
            VideoError: It cannot be read.
        """
        if self.source is None:
            for values in self.values:
                yield _at_ends(values.clamp(0, 1)).numpy()
            return
        options = {} if self.frame_rate is None else {"frame_rate": self.frame_rate}
        with self.source.open(window=self.window, **options) as reader:
            for frame in reader:
                grey = frame.pixels.mean(axis=2, dtype=np.float32)
                values = torch.from_numpy(grey / FULL_SCALE[frame.pixels.dtype])
                values = _at_ends(values).mul_(255)
                is_deep = frame.pixels.dtype != np.uint8
                # A film's masks are held for a segment: a byte for each pixel has to do.
                yield (values / 255).numpy() if is_deep else values.round_().byte().numpy()

    def absolute(self) -> Mask:
        """The same mask under names that do not depend on the current folder."""
        return self if self.source is None else replace(self, source=self.source.absolute())


def _at_ends(values: Tensor) -> Tensor:
    """Values near 0 or 1 made exactly that."""
    values = torch.where(values <= NEAR_END, 0.0, values)
    return torch.where(values >= 1 - NEAR_END, 1.0, values)


class MaskFrames:
    """The masks of a film's frames at the size of the result.

    Frames are asked for in about their order; those before the last `forget` are gone, and are read
    again from the beginning if they are needed after all.

    Args:
        mask: Fitted to the film.
        height: Of the result, pixels.
        width: Likewise.
        device: Where they are wanted.
    """

    def __init__(self, mask: Mask, height: int, width: int, device: torch.device) -> None:
        self._mask, self._size, self._device = mask, (height, width), device
        self._held: dict[int, np.ndarray] = {}
        self._kept_from = 0
        self._reading: Iterator[np.ndarray] = iter(())
        self._next: int | None = None
        self._large: tuple[int, Tensor | None] = (-1, None)

    def forget(self, before: int) -> None:
        """Let go of masks of frames with lower numbers."""
        if not self._mask.is_still:
            self._kept_from = before
            self._held = {number: held for number, held in self._held.items() if number >= before}

    def at(self, number: int, *, is_wanted: bool = True) -> Tensor:
        """The mask of a frame.

        Args:
            number: Of the frame in the job.
            is_wanted: Whether the frame is one of the result. Others, before the first and behind
                the last, are only looked at and may have the mask of the nearest.

        Returns:
            `h w` float32 in [0, 1]; belongs to this object.

        Raises:
            VideoError: The mask cannot be read, or has no picture for a frame of the result.
        """
        number = 0 if self._mask.is_still else max(0, number)
        if self._large[0] == number:
            return self._large[1]
        native = self._native(number)
        if native is None:
            if is_wanted or not self._held:
                raise VideoError(
                    f"the mask {self._mask} ends before frame {number} of the film; it must have "
                    "one picture or as many as the film"
                )
            return self.at(max(self._held))
        values = torch.from_numpy(native).to(self._device)
        values = values.float() / 255 if values.dtype == torch.uint8 else values
        if tuple(values.shape) != self._size:
            larger = values[None, None]
            values = F.interpolate(larger, self._size, mode="bilinear", antialias=True)[0, 0]
            values = _at_ends(values.clamp_(0, 1))
        self._large = (number, values)
        return values

    def cells(self, numbers: range) -> Tensor:
        """In which squares of `CELL_PX` the mask of any of some frames is not 0, `h' w'` bool."""
        found = None
        for number in numbers:
            values = self.at(number, is_wanted=False)[None, None]
            most = F.max_pool2d(values, CELL_PX, ceil_mode=True)[0, 0] > 0
            found = most if found is None else found | most
            if self._mask.is_still:
                break
        return found

    def _native(self, number: int) -> np.ndarray | None:
        """A picture as the mask holds it; None behind its last one."""
        if number in self._held:
            return self._held[number]
        if self._next is None or number < self._next:
            self._reading, self._next = self._mask.pictures(), 0
        while self._next <= number:
            picture = next(self._reading, None)
            if picture is None:
                return None
            if self._next >= self._kept_from or self._next == number:
                self._held[self._next] = picture
            self._next += 1
        return self._held[number]


def inside(cells: Tensor, rows: slice, columns: slice) -> bool:
    """Whether a part of the picture has any square in which the mask is not 0.

    Args:
        cells: From `MaskFrames.cells`.
        rows: In pixels.
        columns: Likewise.
    """
    down = slice(max(0, rows.start) // CELL_PX, -(-rows.stop // CELL_PX))
    across = slice(max(0, columns.start) // CELL_PX, -(-columns.stop // CELL_PX))
    return bool(cells[down, across].any())


def fingerprint_of(mask: str | os.PathLike[str] | Tensor | Mask) -> dict[str, Any]:
    """What a journal says of a mask that a user named."""
    return Mask.of(mask).fingerprint()
