"""Frames into a finished film, in one call: encode them, then join them with what lies beside."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..remote import RemoteFile
from .mux import MuxReport, mux
from .rates import nearest_rate
from .reader import VideoFrame
from .spec import EncodeSpec
from .writer import SEGMENT_SUFFIX, SegmentWriter

if TYPE_CHECKING:
    from torch import Tensor


def write_film(
    frames: Iterable[VideoFrame],
    destination: Path,
    spec: EncodeSpec,
    *,
    beside: Path | RemoteFile | None = None,
    segment_frames: int | None = None,
    cut: str = "none",
    most_packets: int | None = None,
) -> MuxReport:
    """Encode frames and join them with sound and all else of another file.

    The pictures lie in a hidden folder beside the destination meanwhile; nothing of it is left.

    Args:
        frames: At least one, of the spec's size; their times are in its time base and increase.
        destination: The file; appears complete or not at all, an existing one is replaced.
        spec: How the pictures are encoded.
        beside: Where sound, subtitles and all else come from; None for none.
        segment_frames: Encode so many at a time, since the times of one segment are held in memory
            when it is joined; None: all as one.
        cut: As of `mux`.
        most_packets: Likewise.

    Returns:
        What of `beside` was kept and what was not.

    Raises:
        VideoError: A file cannot be read or written; the destination is as it was.
    """
    folder = destination.absolute().parent
    with tempfile.TemporaryDirectory(prefix=".oasis-", dir=folder) as place:
        paths = []
        for segment in _segments(frames, segment_frames):
            paths.append(Path(place) / f"{len(paths):06d}{SEGMENT_SUFFIX}")
            with SegmentWriter(paths[-1], spec) as writer:
                for frame in segment:
                    writer.write(frame.pixels, frame.pts, frame.duration, frame.alpha)
        return mux(paths, beside, destination, spec, cut=cut, most_packets=most_packets)


def _segments(
    frames: Iterable[VideoFrame], segment_frames: int | None
) -> Iterator[Iterable[VideoFrame]]:
    """Runs of so many frames, taken from the iterator one after another."""
    iterator = iter(frames)
    first = next(iterator, None)
    while first is not None:
        rest = None if segment_frames is None else segment_frames - 1
        yield itertools.chain([first], itertools.islice(iterator, rest))
        first = next(iterator, None)


def write_clip(
    clip: Tensor,
    frame_rate: Fraction,
    path: Path,
    *,
    codec: str,
    crf: float | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Encode frames in memory into a file without sound.

    Args:
        clip: `t 3 h w`, float in [0, 1].
        frame_rate: Frames per second.
        path: The file; appears complete or not at all.
        codec: One of `oasis_core.video.CODECS`.
        crf: Constant rate factor, lower is better; None is the codec's default.
        check: Called before each frame; may raise to stop.

    Raises:
        VideoError: The file cannot be written.
    """
    from .pixels import tensor_to_frame

    def frames() -> Iterator[VideoFrame]:
        for index, frame in enumerate(clip):
            if check is not None:
                check()
            pixels = tensor_to_frame(frame.clone(), np.uint8)
            yield VideoFrame(pixels=pixels, pts=index, duration=1)

    rate = nearest_rate(frame_rate)
    height, width = clip.shape[2:]
    spec = EncodeSpec(
        codec=codec, width=width, height=height, frame_rate=rate, time_base=1 / rate, crf=crf
    )
    write_film(frames(), path, spec)
