"""What a finished file would keep of its source, found out by making a tiny one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ..remote import RemoteFile
from .film import write_film
from .info import VideoInfo
from .mux import MuxReport
from .piece import TimeWindow
from .reader import VideoFrame
from .spec import EncodeSpec

# Some muxers must have seen a packet of each stream: E-AC-3 in MP4.
_PACKETS = 2000


def trial_mux(
    source: Path | RemoteFile | None,
    info: VideoInfo,
    spec: EncodeSpec,
    suffix: str,
    *,
    window: TimeWindow | None = None,
) -> MuxReport:
    """Join one black picture with what the source has beside its own, and report as `mux` does.

    It is done in the system's folder for temporary files and leaves nothing there.

    Args:
        source: where sound and all else come from; None for none.
        info: of the source.
        spec: how the result would be encoded.
        suffix: ending of the result's name, which chooses the container.
        window: the piece to do; None is everything.

    Raises:
        VideoError: the streams of the source cannot be read.
    """
    start, stop = info.start_pts, float("inf")
    if window is not None:
        start, stop = window.ticks(info.start_pts, spec.time_base)
    length = max(1, round((info.duration_s or 0.0) / spec.time_base))
    last = int(min(stop, info.start_pts + length))
    black = np.zeros((spec.height, spec.width, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="oasis-trial-") as folder:
        return write_film(
            [VideoFrame(pixels=black, pts=start, duration=max(1, last - start))],
            Path(folder) / ("result" + suffix),
            spec,
            beside=source,
            cut="none" if window is None else "both",
            most_packets=_PACKETS,
        )
