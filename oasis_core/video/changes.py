"""Films that change in the middle: other sizes, other shapes of a pixel, another kind of light.

One film has one size, one shape of its pixels and one meaning of its colours. What is stored
otherwise (bits, chroma, matrix, range) is converted and comes out right.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np

from .errors import VideoError
from .info import ColorTags, VideoInfo, bit_depth_of

_LIGHT = {8: "linear light", 16: "PQ", 18: "HLG"}
_WIDE = {9: "BT.2020", 11: "P3", 12: "P3"}
_UNSPECIFIED = 2
_Said = tuple[Fraction, int, int]
"""Shape of pixels, transfer and primaries, as a decoder says."""
SAME_SHAPE = 0.02
"""Shapes of two pictures that differ by less are filled, not fitted: no bars of a few pixels."""


class ChangeError(VideoError):
    """A film goes on as another one, which a single result cannot show."""

    def __init__(self, fact: str, remedy: str, at_s: float) -> None:
        super().__init__(f"{fact}; {remedy}")
        self.fact = fact
        """What changes, and where."""
        self.at_s = at_s
        """When, in seconds after the film's first frame, for a `TimeWindow` to begin there."""

    def __reduce__(self) -> tuple[type, tuple[str, str, float]]:
        return type(self), (self.fact, str(self).removeprefix(f"{self.fact}; "), self.at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureKind:
    """What all frames of one film have in common."""

    width: int
    """Pixels of a row as stored, not turned."""
    height: int
    """Likewise of a column."""
    aspect: Fraction
    """Width over height of a stored pixel."""
    pixel_format: str
    """FFmpeg's name."""
    light: str
    """Kind of transfer: SDR, PQ, HLG or linear light."""
    gamut: str
    """Kind of primaries: those of HD video or wider ones."""

    @classmethod
    def of(
        cls, frame: av.VideoFrame, aspect: Fraction, *, transfer: int, primaries: int
    ) -> PictureKind:
        """Return the kind of a decoded frame.

        Args:
            frame: decoded.
            aspect: of its pixels.
            transfer: AVColorTransferCharacteristic.
            primaries: AVColorPrimaries.
        """
        return cls(
            width=frame.width,
            height=frame.height,
            aspect=aspect,
            pixel_format=frame.format.name,
            light=_LIGHT.get(transfer, "SDR"),
            gamut=_WIDE.get(primaries, "BT.709"),
        )

    def change_to(self, later: PictureKind) -> str:
        """Return what of a later picture one film cannot show, in words; "" for nothing."""
        words = []
        if (self.width, self.height) != (later.width, later.height):
            words.append(
                f"its size from {self.width}x{self.height} to {later.width}x{later.height}"
            )
        if self.aspect != later.aspect and not self.has_shape_of(later):
            words.append(f"its pixels' shape from {_ratio(self)} to {_ratio(later)}")
        old, new = (self.light, self.gamut), (later.light, later.gamut)
        if old != new:
            words.append(f"its colours from {' '.join(old)} to {' '.join(new)}")
        return " and ".join(words)

    def has_shape_of(self, other: PictureKind) -> bool:
        """Return whether both pictures are shown in the same shape."""
        return abs(float(self._shape / other._shape) - 1) < SAME_SHAPE

    @property
    def _shape(self) -> Fraction:
        return self.width * self.aspect / self.height


def _ratio(kind: PictureKind) -> str:
    return f"{kind.aspect.numerator}:{kind.aspect.denominator}"


def described_anew(
    info: VideoInfo, frame: av.VideoFrame, kind: PictureKind, first_aspect: Fraction
) -> VideoInfo:
    """Return the facts of a film whose part to do begins with another kind of picture.

    Args:
        info: as its first frame is.
        frame: the first one of the part.
        kind: of that frame.
        first_aspect: of the film's first frame, as its decoder says.
    """
    width, height, aspect = kind.width, kind.height, kind.aspect / first_aspect
    if info.rotation_deg in (90, 270):
        width, height, aspect = height, width, 1 / aspect
    color = ColorTags(
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        range=int(frame.color_range),
    )
    return replace(
        info,
        width=width,
        height=height,
        sample_aspect_ratio=info.sample_aspect_ratio * aspect,
        pixel_format=kind.pixel_format,
        bit_depth=bit_depth_of(frame.format),
        has_alpha=any(c.is_alpha for c in frame.format.components),
        color=color,
        is_interlaced=bool(frame.interlaced_frame),
    )


@dataclass(slots=True)
class _Coming:
    """What a decoder says since a packet, of frames that are still to come."""

    pts: int | None
    number: int
    said: _Said


class KindWatch:
    """Tells the kind of each decoded frame, whose own shape of pixels PyAV does not show.

    A decoder says what is new once it was given the packet that brings it, while frames of before
    may still be to come, with the new tags even: they are shown before that packet's.
    """

    def __init__(self) -> None:
        self._newest: _Said | None = None
        self._said: _Said = (Fraction(1), _UNSPECIFIED, _UNSPECIFIED)
        self._coming: deque[_Coming] = deque()
        self._num_packets = 0
        self._num_frames = 0

    def note(self, decoder: av.VideoCodecContext, packet: av.packet.Packet) -> None:
        """Look at a decoder that was just given a packet."""
        aspect = decoder.sample_aspect_ratio or Fraction(1)
        said = (aspect, int(decoder.color_trc), int(decoder.color_primaries))
        if self._newest is None:
            self._said = said
        elif said != self._newest:
            self._coming.append(_Coming(packet.pts, self._num_packets, said))
        self._newest = said
        self._num_packets += packet.size > 0

    def came(self, frame: av.VideoFrame) -> None:
        """Count a decoded frame: coded pictures without a time are told by their number."""
        for coming in self._coming:
            if coming.pts is None and self._num_frames >= coming.number:
                coming.pts = frame.pts
        self._num_frames += 1

    def of(self, frame: av.VideoFrame) -> PictureKind:
        """Return the kind of the next frame in the order of time."""
        while self._coming and (pts := self._coming[0].pts) is not None and frame.pts >= pts:
            self._said = self._coming.popleft().said
        return self.of_first(frame)

    def of_first(self, frame: av.VideoFrame) -> PictureKind:
        """Return the kind of the first frame, which is still to come."""
        aspect, transfer, primaries = self._said
        if not self._coming:  # else the frame may carry tags of what comes
            transfer = int(frame.color_trc) if transfer == _UNSPECIFIED else transfer
            primaries = int(frame.color_primaries) if primaries == _UNSPECIFIED else primaries
        return PictureKind.of(frame, aspect, transfer=transfer, primaries=primaries)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A frame that belongs to what is read, with its kind."""

    frame: av.VideoFrame
    kind: PictureKind
    is_context: bool
    begins: bool
    """Whether it is another kind of picture than the one before it."""


def without_strangers(
    frames: Iterator[tuple[av.VideoFrame, bool]],
    kind_of: Callable[[av.VideoFrame], PictureKind],
) -> Iterator[Judged]:
    """Yield frames with their kinds, but no context that is unlike the part it is context of.

    The first frame behind the part is yielded in any case: it tells how long the last one is shown.

    Args:
        frames: and whether each is context only.
        kind_of: returns the kind of the next frame.
    """
    before: list[tuple[av.VideoFrame, PictureKind]] = []
    last: PictureKind | None = None
    for frame, is_context in frames:
        kind = kind_of(frame)
        if last is None and is_context:
            before.append((frame, kind))
            continue
        if last is None:
            like = [(f, k) for f, k in before if not kind.change_to(k)]
            yield from (Judged(frame=f, kind=k, is_context=True, begins=False) for f, k in like)
            last = kind
        begins = bool(last.change_to(kind))
        yield Judged(frame=frame, kind=kind, is_context=is_context, begins=begins)
        if is_context and begins:
            return
        last = kind


def stop_at(path: object, change: str, number: int, at_s: float, start_s: float) -> ChangeError:
    """The sentence for a film that goes on as another one.

    Args:
        path: the film.
        change: in words.
        number: of the frame where it does, from the first that was asked for.
        at_s: when, in seconds after the film's first frame.
        start_s: where the part that was asked for begins, likewise.
    """
    at_s = split_s(at_s)
    return ChangeError(
        f"{str(path)!r} changes {change} at frame {number} ({at_s:.3f} s), and one result cannot "
        "show both",
        f"do the parts by themselves (the same command with --duration {at_s - start_s:.3f}, then "
        f"with --start {at_s:.3f}), or all with --on-change scale, which fits what comes later "
        "into the first size",
        at_s,
    )


def split_s(at_s: float) -> float:
    """Return a time in whole milliseconds that still parts a frame from the one before it."""
    return math.floor(at_s * 1000 + 1e-6) / 1000


def fitted(pixels: np.ndarray, kind: PictureKind, first: PictureKind) -> np.ndarray:
    """Return a picture as large as the film's first one, in its own shape, with black bars.

    Args:
        pixels: `h w c` uint8 or uint16 as stored, not turned.
        kind: of the picture.
        first: of the film's first one.

    Returns:
        `h w c` of the first one's size; the bars are 0, so transparent where it is alpha.
    """
    if kind.has_shape_of(first) and (kind.width, kind.height) == (first.width, first.height):
        return pixels
    import torch

    from .pixels import frame_to_tensor, resize, tensor_to_frame  # loads torch

    height, width = first.height, first.width
    if not kind.has_shape_of(first):
        ratio = kind._shape / first._shape
        if ratio > 1:
            height = max(1, round(height / ratio))
        else:
            width = max(1, round(width * ratio))
    video = resize(frame_to_tensor(pixels, torch.device("cpu")), height, width)
    inner = tensor_to_frame(video.contiguous(), pixels.dtype)
    if (height, width) == (first.height, first.width):
        return inner
    picture = np.zeros((first.height, first.width, pixels.shape[2]), pixels.dtype)
    top, left = (first.height - height) // 2, (first.width - width) // 2
    picture[top : top + height, left : left + width] = inner
    return picture


def in_depth(pixels: np.ndarray, bit_depth: int, *, dithers: bool = True) -> np.ndarray:
    """Return pixels as deep as the film's first picture: uint8 up to 8 bits, else uint16.

    Args:
        pixels: uint8 or uint16 of full scale.
        bit_depth: of the first picture.
        dithers: whether a ramp is to stay a ramp in 8 bits; of alpha no.
    """
    from .color import dither_to_8_bit, rescale

    if bit_depth > 8:
        return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * 257
    if pixels.dtype == np.uint8:
        return pixels
    return dither_to_8_bit(pixels) if dithers else rescale(pixels, 65535, 255).astype(np.uint8)
