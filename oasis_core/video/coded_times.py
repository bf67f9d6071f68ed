"""Times of pictures from a container that stores none."""

from __future__ import annotations

from collections import deque

import av


class CodedTimes:
    """Times of pictures from a container that stores none: AVI counts packets and nothing else.

    FFmpeg's guesses go back and forth where pictures are coded in another order than shown. The
    n-th shown picture gets the time of the n-th packet.

    Args:
        is_needed: Whether the container is one of these.
    """

    def __init__(self, *, is_needed: bool) -> None:
        self._is_needed = is_needed
        self._is_reordered: bool | None = None
        self._times: deque[int | None] = deque()

    def note(self, packet: av.packet.Packet | None) -> None:
        """Take the time of a packet that was decoded."""
        is_wanted = self._is_needed and self._is_reordered is not False
        if is_wanted and packet is not None and packet.size:
            self._times.append(packet.dts)

    def of(self, frame: av.VideoFrame) -> int | None:
        """Return the PTS of the next picture; its own where the container has such."""
        if not self._is_needed:
            return frame.pts
        if self._is_reordered is None:
            # The decoder held pictures back, so that it could put them in order.
            self._is_reordered = len(self._times) > 1
        time = frame.dts
        if self._is_reordered:
            time = self._times.popleft() if self._times else None
        return frame.pts if time is None else time
