"""Films that change in the middle: joined byte by byte, and MP4s with several descriptions."""

import struct
from fractions import Fraction
from pathlib import Path

import av


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind: bytes, *numbers: int, flags: int = 0, tail: bytes = b"") -> bytes:
    return box(kind, struct.pack(f">I{len(numbers)}I", flags, *numbers), tail)


def description(path: Path) -> bytes:
    """The one sample description of an MP4's first track."""
    data = path.read_bytes()
    place = data.index(b"stsd") + 12
    return data[place : place + struct.unpack_from(">I", data, place)[0]]


def several_descriptions(path: Path, *parts: Path, rate: int = 25) -> Path:
    """One MP4 track whose samples are described in turn as each part's are; no B-frames."""
    samples, keys, counts = [], [], []
    for part in parts:
        with av.open(str(part)) as container:
            packets = [p for p in container.demux(container.streams.video[0]) if p.size]
            keys += [len(samples) + i + 1 for i, p in enumerate(packets) if p.is_keyframe]
            samples += [bytes(p) for p in packets]
            counts.append(len(packets))
    entries, total = [description(part) for part in parts], len(samples)
    ftyp = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    begin = len(ftyp) + 8
    offsets = [begin + sum(map(len, samples[: sum(counts[:i])])) for i in range(len(counts))]
    chunks = [x for i, n in enumerate(counts) for x in (i + 1, n, i + 1)]
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    table = box(
        b"stbl",
        full(b"stsd", len(entries), tail=b"".join(entries)),
        full(b"stts", 1, total, 1),
        full(b"stss", len(keys), *keys),
        full(b"stsc", len(counts), *chunks),
        full(b"stsz", 0, total, *map(len, samples)),
        full(b"stco", len(offsets), *offsets),
    )
    data_here = box(b"dinf", full(b"dref", 1, tail=full(b"url ", flags=1)))
    track = box(
        b"trak",
        full(b"tkhd", 0, 0, 1, 0, total, 0, 0, 0, 0, flags=3, tail=matrix + bytes(8)),
        box(
            b"mdia",
            full(b"mdhd", 0, 0, rate, total, 0x55C40000),
            full(b"hdlr", 0, tail=b"vide" + bytes(13)),
            box(b"minf", full(b"vmhd", 0, 0, flags=1), data_here, table),
        ),
    )
    header = full(
        b"mvhd", 0, 0, rate, total, 0x10000, 0x1000000, 0, 0,
        tail=matrix + bytes(24) + struct.pack(">I", 2),
    )  # fmt: skip
    path.write_bytes(ftyp + box(b"mdat", *samples) + box(b"moov", header, track))
    return path


def in_one_index(path: Path, *parts: Path, rate: int = 25) -> Path:
    """One MP4 whose index describes the first of some raw H.264 films; the others do so inside."""
    with av.open(str(path), "w") as output:
        copy, time = None, 0
        for part in parts:
            with av.open(str(part)) as container:
                stream = container.streams.video[0]
                copy = copy or output.add_stream_from_template(stream, opaque=True)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.stream, packet.time_base = copy, Fraction(1, rate)
                        packet.pts = packet.dts = time
                        packet.duration, time = 1, time + 1
                        output.mux(packet)
    return path
