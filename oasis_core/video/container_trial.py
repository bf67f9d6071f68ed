"""Whether a container takes a stream, found out by writing a header that nobody keeps."""

from __future__ import annotations

import os
from contextlib import suppress

import av

from .errors import AV_ERRORS, reason


def refusal_of(stream: av.stream.Stream, muxer: str) -> str | None:
    """Return why a container's header cannot name a stream; None if it can.

    A header that fails takes the whole file with it, so each stream is tried alone before.

    Args:
        stream: of an opened file.
        muxer: FFmpeg's name of the container.
    """
    trial = av.open(os.devnull, "w", format=muxer)
    try:
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()
    except AV_ERRORS as error:
        return reason(error)
    finally:
        with suppress(*AV_ERRORS):  # E-AC-3 in MP4: a packet must have been seen
            trial.close()
    return None
