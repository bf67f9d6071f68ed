"""What the coded pictures of a film say of their size and shape, read without decoding.

A film that goes on as another one repeats these headers with other content. Which content is not
read here: a picture whose header is new is decoded, and shows it.

Sources: ITU-T H.264 clause 7.4.1, H.265 clause 7.4.2, ISO 13818-2 clause 6.2, ISO 14496-2 clause
6.2, RFC 6386 section 9.1, and the VP9 and AV1 bitstream specifications.
"""

from __future__ import annotations

from collections.abc import Iterator

import av

from .fields import Bits, split_units

_START = b"\x00\x00\x01"
_H264_SPS, _H264_SLICES = 7, (1, 5)
_HEVC_SPS, _HEVC_KEYS = 33, range(16, 22)
_MPEG_SEQUENCE, _MPEG4_LAYER = 0xB3, range(0x20, 0x30)
_AV1_SEQUENCE = 1


class HeaderWatch:
    """Finds the packets of a film whose headers are others than before.

    Args:
        stream: the film.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._codec = stream.codec_context.codec.canonical_name
        self._extra = bytes(stream.codec_context.extradata or b"")
        self._length_size = _length_size(self._codec, self._extra)
        self._names_set = _num_sets(self._codec, self._extra) > 1
        self._last: bytes | None = None
        self._size = b""

    @property
    def is_read_by_decoder(self) -> bool:
        """Whether FFmpeg's decoder itself takes a new header that comes beside a packet."""
        return self._codec in ("h264", "hevc", "vvc", "av1", "vp8", "vp9")

    def decoder_for(self, packet: av.packet.Packet) -> av.VideoCodecContext:
        """Return a decoder that knows the header beside a packet.

        Args:
            packet: with side data of the kind "new_extradata".
        """
        decoder = av.CodecContext.create(self._codec, "r")
        decoder.extradata = bytes(packet.get_sidedata("new_extradata"))
        decoder.thread_count = 1
        decoder.options = {"flags": "+output_corrupt"}
        return decoder

    @property
    def may_change(self) -> bool:
        """Whether the film's own index says that it has several sizes or shapes."""
        return self._names_set

    @property
    def extradata(self) -> bytes:
        """What a decoder has to know before the packet that was last found."""
        return self._extra

    def is_new(self, packet: av.packet.Packet) -> bool:
        """Return whether a packet, in the film's order, begins with another header.

        The very first one counts.
        """
        if not packet.size:
            return False
        has_extra = packet.has_sidedata("new_extradata")
        extra = packet.get_sidedata("new_extradata") if has_extra else None
        if extra is not None:
            self._extra = bytes(extra)
            self._length_size = _length_size(self._codec, self._extra)
        elif not packet.is_keyframe:
            return False
        header = self._header(bytes(packet))
        if extra is not None or self._last is None:  # the index says it
            header += self._extra
        if not header or header == self._last:
            return False
        self._last = header
        return True

    def brings_size(self, packet: av.packet.Packet) -> bool:
        """Return whether MPEG-1 or 2 goes on in another size with a packet."""
        if self._codec not in ("mpeg1video", "mpeg2video") or not packet.is_keyframe:
            return False
        size = _from_start_code(bytes(packet), _MPEG_SEQUENCE, until=(0x00, 0xB8))[4:7]
        before, self._size = self._size, size or self._size
        return bool(before and size and size != before)

    def _header(self, data: bytes) -> bytes:
        """Return what a key picture says of all that follow; b"" where it says nothing."""
        codec = self._codec
        if codec in ("h264", "hevc"):
            return b"".join(self._of_units(data))
        if codec in ("mpeg1video", "mpeg2video"):
            return _from_start_code(data, _MPEG_SEQUENCE, until=(0x00, 0xB8))
        if codec == "mpeg4":
            code = next((c for c in _MPEG4_LAYER if _START + bytes([c]) in data), None)
            return b"" if code is None else _from_start_code(data, code, until=(0xB3, 0xB6))
        if codec == "vp8":
            return data[3:10]
        if codec == "vp9":
            return data[:9]
        if codec == "av1":
            return _av1_sequence(data)
        return b""

    def _of_units(self, data: bytes) -> Iterator[bytes]:
        is_hevc = self._codec == "hevc"
        for unit in split_units(data, self._length_size):
            if not unit:
                continue
            kind = unit[0] >> 1 & 63 if is_hevc else unit[0] & 31
            if kind == (_HEVC_SPS if is_hevc else _H264_SPS):
                yield unit.rstrip(b"\x00")
            elif kind in (_HEVC_KEYS if is_hevc else _H264_SLICES):
                if self._names_set:
                    yield _picture_set(unit, is_hevc=is_hevc)
                return  # parameter sets come before the picture


def _length_size(codec: str, extra: bytes) -> int:
    """Return the bytes of a unit's length where units are not parted by start codes; else 0."""
    if extra[:1] != b"\x01":
        return 0
    if codec == "h264" and len(extra) > 4:
        return (extra[4] & 3) + 1
    return (extra[21] & 3) + 1 if codec == "hevc" and len(extra) > 22 else 0


def _num_sets(codec: str, extra: bytes) -> int:
    """Return the number of sequence parameter sets in a film's index."""
    if extra[:1] != b"\x01":
        return 1
    if codec == "h264" and len(extra) > 5:
        return extra[5] & 31
    if codec != "hevc" or len(extra) < 23:
        return 1
    place, found = 23, 0
    for _ in range(extra[22]):
        if place + 3 > len(extra):
            break
        kind, count = extra[place] & 63, int.from_bytes(extra[place + 1 : place + 3], "big")
        found += count if kind == _HEVC_SPS else 0
        place += 3
        for _ in range(count):
            place += 2 + int.from_bytes(extra[place : place + 2], "big")
    return found


def _picture_set(unit: bytes, *, is_hevc: bool) -> bytes:
    """Return which picture parameter set a slice of a key picture uses, as one byte."""
    bits = Bits(unit[:24])
    try:
        if is_hevc:
            bits.u(8 + 1 + 1)
        else:
            bits.ue()
            bits.ue()
        return bytes([min(255, bits.ue())])
    except IndexError:
        return b""


def _from_start_code(data: bytes, code: int, *, until: tuple[int, ...]) -> bytes:
    """Return what lies between a start code and the first of some others."""
    begin = data.find(_START + bytes([code]))
    if begin < 0:
        return b""
    ends = (data.find(_START + bytes([c]), begin) for c in until)
    return data[begin : min((end for end in ends if end >= 0), default=len(data))]


def _av1_sequence(data: bytes) -> bytes:
    """Return the sequence header of a temporal unit."""
    place = 0
    while place < len(data):
        kind, has_extension, has_size = data[place] >> 3 & 15, data[place] & 4, data[place] & 2
        place += 2 if has_extension else 1
        size, shift = len(data) - place, 0
        if has_size:
            size = 0
            while place < len(data):
                byte = data[place]
                place += 1
                size |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
        if kind == _AV1_SEQUENCE:
            return data[place : place + size]
        place += size
    return b""
