"""A piece of a source's clock, for the packets that lie beside the picture."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

from .containers import is_seekable

_SEEK_MARGIN_S = 5
_INTERLEAVING_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of the source's clock, in seconds."""

    start_s: Fraction | None
    """None: from the beginning, whatever comes before the picture included."""
    stop_s: Fraction
    """Packets that begin here or later are left out."""

    def seek(self, source: av.container.InputContainer) -> None:
        """Skip what lies well before the span, where the format has an index."""
        if self.start_s is not None and is_seekable(source) and self.start_s > _SEEK_MARGIN_S:
            source.seek(int((self.start_s - _SEEK_MARGIN_S) * av.time_base))

    def takes(self, packet: av.packet.Packet) -> bool:
        """Return whether a packet begins inside; subtitles only have to reach into it."""
        start = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
        if start >= self.stop_s:
            return False
        if self.start_s is None or start >= self.start_s:
            return True
        if packet.stream.type != "subtitle" or not packet.duration:
            return False
        late = round((self.start_s - start) / packet.time_base)
        if late >= packet.duration:
            return False
        packet.pts += late
        packet.dts = packet.pts
        packet.duration -= late
        return True

    def is_over(self, packet: av.packet.Packet) -> bool:
        """Return whether nothing inside can follow; streams may be interleaved loosely."""
        start = (packet.dts if packet.dts is not None else packet.pts) * packet.time_base
        return start > self.stop_s + _INTERLEAVING_S
