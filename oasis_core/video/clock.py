"""One clock for a film whose recording was joined or interrupted.

Recordings joined byte by byte, or interrupted and continued, begin to count anew somewhere in the
middle: earlier, at the same time, or much later. Players go on without a pause, and so does this:
from there on everything is moved by as much as the film needs to continue where it was. The times
of sound and subtitles move with the film's, so they stay in step with it.

What counts as a new clock:

* decoding times go back by more than `BACK_S`, and the next picture follows the new time;
* in broadcast formats they go forward by more than `AHEAD_S`, and neither the film nor any sound
  has packets in between, so that it is no still to which sound goes on. That much back is how a
  second recording looks that began more than a minute earlier, too: FFmpeg takes its times for
  those behind the wrap of a clock of 33 bits and adds 26.5 hours;
* in all other formats, which store pauses on purpose, they go forward by more than `MOST_S`.

A single packet with such a time, after which the clock is as before, is put where it belongs. True
wraps of a 33-bit clock are continued by FFmpeg itself and arrive here without a jump.

Source: FFmpeg's command, `ts_discontinuity_detect` in fftools/ffmpeg_demux.c (the three bounds).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av

log = logging.getLogger(__name__)

BACK_S = Fraction(1, 10)
AHEAD_S = Fraction(10)
MOST_S = Fraction(30 * 3600)
_WAIT_S = Fraction(5)
"""How far the film may go on before sound with a new clock is no longer held back for it."""
_MOST_HELD = 4096
_DISCONTINUOUS = 0x0200  # AVFMT_TS_DISCONT


def may_jump(container: av.container.InputContainer) -> bool:
    """Return whether a format's clock may begin anew, so that jumps forward are no pauses."""
    return bool(container.format.flags & _DISCONTINUOUS)


@dataclass(slots=True)
class _Track:
    """What was seen of a stream that has sound or the film."""

    epoch: int = 0
    """How many new clocks it has gone through."""
    end_s: Fraction | None = None
    """Decoding time, on the one clock, at which the next packet is expected."""
    last_s: Fraction | None = None
    """Of the last packet."""
    step_s: Fraction = Fraction(0)
    """How long a packet lasts."""
    held: list[av.packet.Packet] = field(default_factory=list)
    """Sound that jumped before the film did."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A new clock."""

    at_s: Fraction
    """When, on the one clock."""
    offset_s: Fraction
    """What is added to the times of its packets."""


class OneClock:
    """Puts the packets of a file on one clock.

    Args:
        container: opened, at its beginning or just after a seek.
        film: the stream that decides.
        is_told: whether a new clock is said in a warning.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        film: av.VideoStream,
        *,
        is_told: bool = True,
    ) -> None:
        self.jumps: list[Jump] = []
        """All so far."""
        self._container = container
        self._is_told = is_told
        self._may_jump = may_jump(container)
        self._is_program = container.format.name == "mpeg"
        self._index = film.index
        self._film = _Track()
        self._film_stream = film
        self._sound: dict[int, _Track] = {}
        self._pts_end_s: Fraction | None = None
        self._late_s = Fraction(0)

    def packets(self, others: Sequence[av.stream.Stream] = ()) -> Iterator[av.packet.Packet]:
        """Yield the film's packets and those of other streams, in the file's order, all moved.

        Of the empty ones, which flush decoders, only the film's is yielded.

        Args:
            others: streams wanted beside the film.
        """
        wanted = {self._index, *(stream.index for stream in others)}
        # The same packets decide, whatever is wanted: then all who read a file agree.
        witnesses = self._container.streams.audio if self._may_jump else ()
        streams = {s.index: s for s in (self._film_stream, *witnesses, *others)}
        for packet in self._moved(self._container.demux(list(streams.values()))):
            if packet.stream.index in wanted:
                yield packet

    def _moved(self, packets: Iterator[av.packet.Packet]) -> Iterator[av.packet.Packet]:
        suspect: av.packet.Packet | None = None
        waiting: list[av.packet.Packet] = []
        for packet in packets:
            is_film = packet.stream.index == self._index  # empty packets say 0 themselves
            if suspect is None and is_film:
                if packet.size and self._is_odd(packet):
                    suspect = packet
                    continue
                self._place(packet, self._offset_s)
                yield packet
                yield from self._overdue()
            elif suspect is None:
                yield from self._beside(packet)
            elif not is_film:
                waiting.append(packet)
            else:
                yield from self._judged(suspect, packet if packet.size else None, waiting)
                suspect, waiting = None, []
                self._place(packet, self._offset_s)
                yield packet
        if suspect is not None:
            yield from self._judged(suspect, None, waiting)
        for track in self._sound.values():
            yield from self._release(track)

    @property
    def _offset_s(self) -> Fraction:
        return self._offset_of(len(self.jumps))

    def _offset_of(self, epoch: int) -> Fraction:
        return self.jumps[epoch - 1].offset_s if epoch else Fraction(0)

    def _place(self, packet: av.packet.Packet, offset_s: Fraction) -> None:
        """Move a packet of the film, and note where it ends."""
        if not packet.size:
            return
        _move(packet, offset_s)
        self._film.epoch = len(self.jumps)
        if self._is_program and packet.dts is not None and packet.pts is not None:
            # FFmpeg shows the last picture of a program stream when the next one is decoded, which
            # may be by another clock.
            late_s = (packet.pts - packet.dts) * packet.time_base
            if not -BACK_S <= late_s <= AHEAD_S:
                packet.pts = packet.dts + round(self._late_s / packet.time_base)
            else:
                self._late_s = late_s
        # Pictures without a decoding time are reordered: their time says nothing about the next.
        _note_end(self._film, packet.dts, packet)
        if packet.pts is not None:
            end_s = packet.pts * packet.time_base + self._film.step_s
            self._pts_end_s = end_s if self._pts_end_s is None else max(self._pts_end_s, end_s)

    def _is_odd(self, packet: av.packet.Packet) -> bool:
        """Whether a packet of the film, not moved yet, may be the first of a new clock."""
        if packet.dts is None or self._film.end_s is None:
            return False
        time_s = packet.dts * packet.time_base + self._offset_s
        # Not before its end: durations are those of what is shown, in another order.
        return not self._film.last_s - BACK_S <= time_s <= self._film.end_s + AHEAD_S

    def _judged(
        self,
        packet: av.packet.Packet,
        following: av.packet.Packet | None,
        waiting: list[av.packet.Packet],
    ) -> Iterator[av.packet.Packet]:
        """Yield a packet that jumps, with what came between it and the film's next one."""
        tick, end_s = packet.time_base, self._film.end_s
        time_s = packet.dts * tick + self._offset_s
        step_s = None
        if following is not None and following.dts is not None:
            step_s = (following.dts - packet.dts) * tick
        if time_s < self._film.last_s:
            is_new = step_s is not None and step_s >= 0 and time_s + step_s < self._film.last_s
            is_lone = not is_new
        else:
            is_lone = step_s is not None and step_s < -BACK_S
            ends = [t.end_s for t in self._sound.values() if t.epoch == len(self.jumps)]
            seen_s = max([end_s, *(end for end in ends if end is not None)])
            limit_s = AHEAD_S if self._may_jump else MOST_S
            is_new = not is_lone and time_s - seen_s > limit_s
        offset_s = self._offset_s
        if is_new:
            self._begin(packet)
            offset_s = self._offset_s
        elif is_lone:
            offset_s = end_s - packet.dts * tick
        self._place(packet, offset_s)
        yield packet
        if is_new:
            for track in self._sound.values():
                yield from self._release(track)
        for other in waiting:
            yield from self._beside(other)

    def _begin(self, packet: av.packet.Packet) -> None:
        """Take a packet of the film for the first of a new clock."""
        tick = packet.time_base
        offset_s = self._film.end_s - packet.dts * tick
        if packet.pts is not None and self._pts_end_s is not None:
            # A picture may be missing before, so that the last one is shown later than expected.
            offset_s = max(offset_s, self._pts_end_s - packet.pts * tick)
        offset_s = round(offset_s / tick) * tick
        at_s, jump_s = packet.dts * tick + offset_s, self._offset_s - offset_s
        log.log(
            logging.WARNING if self._is_told else logging.DEBUG,
            "the clock of the recording begins anew at %.3f s (it jumps by %+.3f s); picture and "
            "sound go on without a pause",
            float(at_s), float(jump_s),
        )  # fmt: skip
        self.jumps.append(Jump(at_s, offset_s))

    def _beside(self, packet: av.packet.Packet) -> Iterator[av.packet.Packet]:
        """Move a packet that is not the film's by the offset of the clock it belongs to."""
        if not packet.size:
            return
        if _time(packet) is None:
            yield packet
            return
        if packet.stream.type != "audio":
            _move(packet, self._offset_of(self._epoch_near_film(packet)))
            yield packet
            return
        track = self._sound.setdefault(packet.stream_index, _Track(epoch=len(self.jumps)))
        epoch = self._epoch_of_sound(packet, track)
        if epoch is None:
            track.held.append(packet)
            if len(track.held) > _MOST_HELD:
                yield from self._release(track)
            return
        yield from self._release(track)
        track.epoch = epoch
        _move(packet, self._offset_of(epoch))
        _note_end(track, _time(packet), packet)
        yield packet

    def _epoch_of_sound(self, packet: av.packet.Packet, track: _Track) -> int | None:
        """Return the clock that a packet of sound belongs to; None to wait for the film's."""
        if track.end_s is None:
            return len(self.jumps)
        raw_s = _time(packet) * packet.time_base
        epochs = range(track.epoch, len(self.jumps) + 1)
        off = {e: raw_s + self._offset_of(e) - track.end_s for e in epochs}
        best = min(epochs, key=lambda e: (abs(off[e]), -e))
        is_back = off[best] + track.end_s < track.last_s - BACK_S
        is_odd = is_back or (off[best] > AHEAD_S and self._may_jump)
        return None if is_odd and best == len(self.jumps) else best

    def _epoch_near_film(self, packet: av.packet.Packet) -> int:
        """Return the clock of a packet of a stream with pauses, such as subtitles."""
        last = len(self.jumps)
        if not last or self._film.end_s is None:
            return last
        raw_s = _time(packet) * packet.time_base
        return min(
            (last, last - 1), key=lambda e: abs(raw_s + self._offset_of(e) - self._film.end_s)
        )

    def _overdue(self) -> Iterator[av.packet.Packet]:
        """Release sound whose own clock has jumped, and not the film's."""
        for track in self._sound.values():
            if track.held and (self._film.end_s or 0) > track.end_s + _WAIT_S:
                yield from self._release(track)

    def _release(self, track: _Track) -> Iterator[av.packet.Packet]:
        """Yield sound that was held back, on the newest clock."""
        held, track.held = track.held, []
        for packet in held:
            track.epoch = len(self.jumps)
            _move(packet, self._offset_s)
            _note_end(track, _time(packet), packet)
            yield packet


def _time(packet: av.packet.Packet) -> int | None:
    return packet.pts if packet.dts is None else packet.dts


def _note_end(track: _Track, time: int | None, packet: av.packet.Packet) -> None:
    if time is None:
        return
    time_s = time * packet.time_base
    if packet.duration:
        track.step_s = packet.duration * packet.time_base
    elif track.last_s is not None and time_s > track.last_s:
        track.step_s = time_s - track.last_s
    track.last_s = time_s
    track.end_s = max(track.end_s or time_s, time_s + track.step_s)


def _move(packet: av.packet.Packet, offset_s: Fraction) -> None:
    ticks = round(offset_s / packet.time_base)
    if not ticks:
        return
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks
