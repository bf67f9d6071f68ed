"""Photos made of tiles and of a transparency apart, as phones write them."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from oasis_core.video import VideoError, VideoReader
from oasis_core.video.heif import read_photo

SIDE = 64
TURNS = {0: 0, 1: 1, 2: 2, 3: 3}


def box(name, content):
    return struct.pack(">I4s", len(content) + 8, name) + content


def full(name, content, version=0, flags=0):
    return box(name, struct.pack(">I", version << 24 | flags) + content)


def coded(clips, tmp_path, pictures):
    """Coded pictures of one size, and what their decoder needs."""
    frames = [av.VideoFrame.from_ndarray(p, "rgb24").reformat(format="yuv420p") for p in pictures]
    path = clips.write_clip(
        tmp_path / "tiles.mp4", codec="libx265", pts=len(frames), size=(SIDE, SIDE), frames=frames,
        options={"x265-params": "keyint=1:log-level=none", "crf": "8"},
    )  # fmt: skip
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
        return packets, bytes(container.streams.video[0].codec_context.extradata)


def write_photo(path, packets, config, *, rows, columns, size, turn=0, mirror=None, alpha=0,
                kind=b"grid", num_named=None):  # fmt: skip
    """Write tiles, then as many tiles of transparency if `alpha`, as a HEIC."""
    num = rows * columns
    main, cover = num * (1 + alpha) + 1, num * (1 + alpha) + 2
    items = [(i + 1, b"hvc1") for i in range(len(packets))] + [(main, kind)]
    items += [(cover, b"grid")] * alpha
    entries = [full(b"infe", struct.pack(">HH4s", k, 0, t) + b"\0", 2) for k, t in items]
    iinf = full(b"iinf", struct.pack(">H", len(items)) + b"".join(entries))
    named = range(1, (num_named or num) + 1)
    links = box(b"dimg", struct.pack(f">{len(named) + 2}H", main, len(named), *named))
    if alpha:
        parts = range(num + 1, 2 * num + 1)
        links += box(b"dimg", struct.pack(f">{num + 2}H", cover, num, *parts))
        links += box(b"auxl", struct.pack(">3H", cover, 1, main))
    urn = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
    properties = [
        box(b"hvcC", config), full(b"ispe", struct.pack(">II", SIDE, SIDE)),
        full(b"ispe", struct.pack(">II", *size)), box(b"irot", bytes((turn,))), full(b"auxC", urn),
    ]  # fmt: skip
    own = [3, 4]
    if mirror is not None:
        properties.append(box(b"imir", bytes((mirror,))))
        own.append(6)
    uses = [(i + 1, [1, 2]) for i in range(len(packets))] + [(main, own)]
    uses += [(cover, [3, 5])] * alpha
    ipma = struct.pack(">I", len(uses))
    ipma += b"".join(struct.pack(">HB", k, len(p)) + bytes(p) for k, p in uses)
    iprp = box(b"iprp", box(b"ipco", b"".join(properties)) + full(b"ipma", ipma))
    grid = bytes((0, 0, rows - 1, columns - 1)) + struct.pack(">HH", *size)
    places = [(i + 1, 0, len(p)) for i, p in enumerate(packets)]
    places += [(main, 1, len(grid))] + [(cover, 1, len(grid))] * alpha

    def meta(start):
        at, body = start, struct.pack(">BBH", 0x44, 0, len(places))
        for item, method, length in places:
            body += struct.pack(">4H", item, method, 0, 1)
            body += struct.pack(">II", at if method == 0 else 0, length)
            at += length if method == 0 else 0
        iloc = full(b"iloc", body, 1)
        handler = full(b"hdlr", bytes(4) + b"pict" + bytes(13))
        pitm = full(b"pitm", struct.pack(">H", main))
        iref = full(b"iref", links)
        return full(b"meta", handler + pitm + iloc + iinf + iprp + iref + box(b"idat", grid))

    head = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    start = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(start) + box(b"mdat", b"".join(packets)))
    return path


def tiles_of(whole, rows, columns):
    return [
        np.ascontiguousarray(whole[r * SIDE :, c * SIDE :][:SIDE, :SIDE])
        for r in range(rows)
        for c in range(columns)
    ]


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("mirror", [None, 0, 1])
def test_tiles_make_the_whole_picture(clips, tmp_path, turn, mirror):
    rows, columns, size = 2, 3, (3 * SIDE - 20, 2 * SIDE - 6)
    whole = clips.picture(0, columns * SIDE, rows * SIDE)
    packets, config = coded(clips, tmp_path, tiles_of(whole, rows, columns))
    path = write_photo(
        tmp_path / "IMG.HEIC", packets, config, rows=rows, columns=columns, size=size, turn=turn,
        mirror=mirror,
    )  # fmt: skip
    with VideoReader(path) as reader:
        (frame,) = reader
    wanted = np.rot90(whole[: size[1], : size[0]], turn)
    wanted = wanted[::-1] if mirror == 0 else wanted[:, ::-1] if mirror == 1 else wanted
    assert frame.pixels.shape == wanted.shape
    assert (reader.info.width, reader.info.height) == wanted.shape[1::-1]
    assert psnr(frame.pixels, wanted) > 33
    assert reader.info.other_streams == ()
    assert not reader.info.has_alpha


def test_transparency_of_a_photo(clips, tmp_path):
    whole = clips.picture(0, 2 * SIDE, SIDE)
    cover = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    cover[:, SIDE // 2 : SIDE + SIDE // 2] = 235
    packets, config = coded(clips, tmp_path, tiles_of(whole, 1, 2) + tiles_of(cover, 1, 2))
    path = write_photo(
        tmp_path / "a.heic", packets, config, rows=1, columns=2, size=(2 * SIDE, SIDE), alpha=1
    )
    with VideoReader(path) as reader:
        (frame,) = reader
    assert reader.info.has_alpha
    assert frame.alpha[10, 5] < 40
    assert frame.alpha[10, SIDE] > 190
    assert psnr(frame.pixels, whole) > 33


def test_what_is_not_whole_is_refused(clips, tmp_path):
    whole = clips.picture(0, 2 * SIDE, SIDE)
    packets, config = coded(clips, tmp_path, tiles_of(whole, 1, 2))
    about = {"rows": 1, "columns": 2, "size": (2 * SIDE, SIDE)}
    path = write_photo(tmp_path / "a.heic", packets, config, **about, num_named=1)
    with pytest.raises(VideoError, match="damaged"):
        VideoReader(path)
    path = write_photo(tmp_path / "b.heic", packets, config, **about, kind=b"iovl")
    with pytest.raises(VideoError, match="'iovl', which is not read"):
        VideoReader(path)
    path = write_photo(
        tmp_path / "c.heic", packets, config, rows=1, columns=2, size=(3 * SIDE, SIDE)
    )
    with pytest.raises(VideoError, match="do not fill the picture"):
        VideoReader(path)


def test_other_files_are_no_photo(make_clip, tmp_path):
    assert read_photo(make_clip("a.mp4")) is None
    (tmp_path / "a.txt").write_bytes(b"short")
    assert read_photo(tmp_path / "a.txt") is None
