"""What a decoded frame carries beside its pixels."""

from __future__ import annotations

import logging

import av

log = logging.getLogger(__name__)


def side_data_of(frame: av.VideoFrame, name: str) -> bytes | None:
    """Return one kind of a frame's side data, if it has it.

    Args:
        frame: decoded.
        name: PyAV's name of the kind.
    """
    try:
        data = frame.side_data.get(name)
    except ValueError as error:  # PyAV 18.1 fails on all of it for one kind that it does not know
        log.debug("side data: %s", error)
        return None
    return None if data is None else bytes(data)
