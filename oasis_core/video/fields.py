"""Pictures that are coded as two fields in two packets, so that packets are no count of pictures.

Source: ITU-T H.264, clauses 7.3.2.1.1 (sequence parameter set) and 7.3.3 (slice header).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av

_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_SLICES, _SPS = (1, 5), 7
_MOST_HEAD_BYTES = 64
_MOST_PACKETS = 16


class FieldPairs:
    """Tells which packets of a film hold the second field of a picture.

    Args:
        stream: the film; other codecs than H.264 have none.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self.num_second = 0
        """Second fields so far."""
        context = stream.codec_context
        self._is_needed = context.name == "h264"
        self._length_size = 0
        self._syntax: _Syntax | None = None
        self.step_s: Fraction | None = None
        """Seconds from one picture to the next in decoding order; None before the second."""
        self._first_s: Fraction | None = None
        self._open: tuple[int, bool] | None = None
        extra = bytes(context.extradata or b"") if self._is_needed else b""
        if extra[:1] == b"\x01" and len(extra) > 8:
            self._length_size = (extra[4] & 3) + 1
            size = int.from_bytes(extra[6:8], "big")
            self._read_syntax(extra[8 : 8 + size])
        elif extra:
            self._note(extra)

    @property
    def may_be(self) -> bool:
        """Whether the film may have fields at all, as far as is known."""
        return self._is_needed and (self._syntax is None or self._syntax.may_be_fields)

    def is_second(self, packet: av.packet.Packet) -> bool:
        """Return whether a packet, in the film's order, completes the picture of the one before."""
        if not self._is_needed or not packet.size:
            return False
        if self._syntax is not None and not self._syntax.may_be_fields and self._length_size:
            return False  # one parameter set for all of the film
        fields = self._note(bytes(packet))
        if len(fields) != 1 or fields[0] is None:
            self._open = None
            return False
        field = fields[0]
        is_second = self._open == (field[0], not field[1])
        self._open = None if is_second else field
        self.num_second += is_second
        if packet.dts is not None and not is_second and self.step_s is None:
            at_s = packet.dts * packet.time_base
            self.step_s = None if self._first_s is None else at_s - self._first_s
            self._first_s = at_s
        return is_second

    def _note(self, data: bytes) -> list[tuple[int, bool] | None]:
        """Return the pictures in coded data: frame number and parity of fields, None for frames."""
        found = []
        for unit in split_units(data, self._length_size):
            kind = unit[0] & 31 if unit else 0
            if kind == _SPS:
                self._read_syntax(unit)
            elif kind in _SLICES and self._syntax is not None:
                try:
                    is_first, field = self._syntax.slice_head(unit)
                except IndexError:
                    continue
                if is_first:
                    found.append(field)
        return found

    def _read_syntax(self, unit: bytes) -> None:
        try:
            self._syntax = _Syntax.read(unit)
        except IndexError:
            self._syntax = None


def split_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """Yield the units (NAL) of coded data.

    Args:
        data: a packet of H.264 or H.265.
        length_size: bytes of the length before each unit; 0 where start codes part them.
    """
    if length_size:
        place = 0
        while place + length_size < len(data):
            size = int.from_bytes(data[place : place + length_size], "big")
            place += length_size
            yield data[place : place + size]
            place += size
        return
    place = data.find(b"\x00\x00\x01")
    while place >= 0:
        following = data.find(b"\x00\x00\x01", place + 3)
        yield data[place + 3 : following if following >= 0 else len(data)]
        place = following


def step_of(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Return seconds from one picture to the next, told by packets alone; None for fewer than two.

    Args:
        container: opened for this.
        stream: its film.
    """
    fields = FieldPairs(stream)
    for packet in islice(container.demux(stream), _MOST_PACKETS):
        fields.is_second(packet)
        if fields.step_s is not None:
            break
    return fields.step_s


class Bits:
    """Reads numbers out of a unit."""

    def __init__(self, unit: bytes) -> None:
        body = unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")
        self._bits = "".join(f"{byte:08b}" for byte in body)
        self._place = 0

    def u(self, count: int) -> int:
        """Return the next bits as a number."""
        end = self._place + count
        if end > len(self._bits):
            raise IndexError("the unit ends early")
        value = int(self._bits[self._place : end] or "0", 2)
        self._place = end
        return value

    def ue(self) -> int:
        """Return the next number of the Exp-Golomb code."""
        zeros = 0
        while self.u(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Return the next signed number of it."""
        value = self.ue()
        return (value + 1) // 2 if value % 2 else -value // 2


@dataclass(frozen=True, slots=True)
class _Syntax:
    """What of a sequence parameter set is needed to read the head of a slice."""

    has_planes: bool
    num_number_bits: int
    may_be_fields: bool

    @classmethod
    def read(cls, unit: bytes) -> _Syntax:
        bits = Bits(unit[:1024])
        profile = bits.u(8)
        bits.u(16)
        bits.ue()
        has_planes = False
        if profile in _HIGH_PROFILES:
            chroma = bits.ue()
            has_planes = chroma == 3 and bool(bits.u(1))
            bits.ue()
            bits.ue()
            bits.u(1)
            if bits.u(1):
                for index in range(12 if chroma == 3 else 8):
                    if bits.u(1):
                        _skip_list(bits, 16 if index < 6 else 64)
        num_number_bits = bits.ue() + 4
        order = bits.ue()
        if order == 0:
            bits.ue()
        elif order == 1:
            bits.u(1)
            bits.se()
            bits.se()
            for _ in range(bits.ue()):
                bits.se()
        bits.ue()
        bits.u(1)
        bits.ue()
        bits.ue()
        return cls(has_planes, num_number_bits, not bits.u(1))

    def slice_head(self, unit: bytes) -> tuple[bool, tuple[int, bool] | None]:
        """Return whether a slice begins a picture, and of a field its frame number and parity."""
        bits = Bits(unit[:_MOST_HEAD_BYTES])
        is_first = bits.ue() == 0
        bits.ue()
        bits.ue()
        if self.has_planes:
            bits.u(2)
        number = bits.u(self.num_number_bits)
        is_field = self.may_be_fields and bool(bits.u(1))
        return is_first, (number, bool(bits.u(1))) if is_field else None


def _skip_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last
