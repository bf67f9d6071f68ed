"""What is in the file comes out: every frame once, at its time, upright, in its colours."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_core.video import VideoError, VideoReader, probe

VFR = [0, 512, 1024, 3000, 3001, 5000, 9000, 9512, 20000]


def read(path, **options):
    with VideoReader(path, **options) as reader:
        return reader, list(reader)


def times(frames):
    return [f.pts for f in frames]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 17])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_frames_out_equal_frames_in(clips, make_clip, name, num_frames):
    path = make_clip(name, pts=num_frames, options={"bf": "3", "g": "6"})
    reader, frames = read(path)
    assert len(frames) == reader.num_frames_read == num_frames
    assert all(f.pixels.shape == (48, 64, 3) and f.pixels.dtype == np.uint8 for f in frames)
    tick = reader.info.time_base
    assert [f.pts * tick for f in frames] == [Fraction(i, 25) for i in range(num_frames)]
    assert all(f.duration * tick == Fraction(1, 25) for f in frames)
    for index, frame in enumerate(frames):  # the right picture at the right place
        assert np.abs(frame.pixels.astype(int) - clips.picture(index, 64, 48)).mean() < 12


def test_variable_rate_with_b_frames(make_clip):
    path = make_clip(pts=VFR, time_base=Fraction(1, 12800), options={"bf": "3"})
    reader, frames = read(path)
    assert reader.info.time_base == Fraction(1, 12800)
    assert times(frames) == VFR
    assert [f.duration for f in frames[:-1]] == [b - a for a, b in itertools.pairwise(VFR)]
    assert frames[-1].duration > 0


def test_ntsc_rate_is_a_fraction(make_clip):
    rate = Fraction(24000, 1001)
    reader, frames = read(make_clip(rate=rate, pts=9))
    assert reader.info.frame_rate == rate
    assert [f.pts * reader.info.time_base for f in frames] == [i / rate for i in range(9)]


@pytest.mark.parametrize("start", [-7, 12])
def test_start_is_kept(make_clip, start):
    # An MP4's edit list hides what is before 0; Matroska moves it. Neither may lose the step.
    reader, frames = read(make_clip("a.mkv", pts=range(start, start + 6)))
    assert len(frames) == 6
    assert reader.info.start_pts == frames[0].pts == max(0, start) * 40
    assert frames[5].pts - frames[0].pts == 200


def test_stream_without_timestamps(make_clip):
    path = make_clip("raw.h264", pts=12, options={"bf": "0"})
    reader, frames = read(path)
    steps = {b.pts - a.pts for a, b in itertools.pairwise(frames)}
    assert len(frames) == 12
    assert [s * reader.info.time_base for s in steps] == [Fraction(1, 25)]


def test_edit_list_hides_what_players_hide(clips, make_clip):
    path = make_clip(pts=range(-4, 8), options={"bf": "0", "g": "30"})
    _, frames = read(path)
    assert len(frames) == 8
    assert np.abs(frames[0].pixels.astype(int) - clips.picture(4, 64, 48)).mean() < 12


def test_a_film_whose_clock_stands_still_does_not_flood_the_log(make_clip, caplog):
    path = make_clip("a.mkv", pts=[0] * 12, options={"bf": "0", "g": "12"})
    assert [frame.pts for frame in read(path)[1]] == list(range(12))
    lines = [line for line in caplog.messages if "back in time" in line]
    assert len(lines) == 5
    assert lines[-1].endswith("more are not listed")


@pytest.mark.parametrize("num_b_frames", [0, 1, 3])
def test_avi_with_pictures_out_of_order_has_even_times(make_clip, num_b_frames, caplog):
    path = make_clip("a.avi", pts=9, options={"bf": str(num_b_frames), "g": "5"})
    assert [frame.pts for frame in read(path)[1]] == list(range(9))
    assert "back in time" not in caplog.text


@pytest.mark.parametrize(
    ("matrix", "degrees", "mirrored"),
    [
        ((0, 1, -1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
        ((0, 1, 1, 0), 90, True),
    ],
)
def test_rotation_is_applied(clips, make_clip, matrix, degrees, mirrored):
    path = make_clip(pts=2, aspect=Fraction(16, 15))
    stored = read(path)[1][0].pixels
    clips.turn(path, matrix)
    reader, frames = read(path)
    # Independent of the code under test: move every pixel by the matrix itself.
    a, b, c, d = matrix
    y, x = np.mgrid[0:48, 0:64]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    expected = np.zeros((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    expected[to_y, to_x] = stored
    assert np.array_equal(frames[0].pixels, expected)
    info = reader.info
    assert (info.width, info.height) == expected.shape[1::-1]
    assert (info.rotation_deg, info.is_mirrored) == (degrees, mirrored)
    is_turned = degrees in (90, 270)
    assert info.sample_aspect_ratio == (Fraction(15, 16) if is_turned else Fraction(16, 15))
    assert frames[0].pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("matrix", "quarters"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)]
)
def test_rotation_is_applied_beside_exif_data(clips, make_clip, matrix, quarters):
    # FFmpeg 8 gives TIFF frames EXIF data, for which PyAV 18.1 shows no side data at all.
    path = make_clip("a.mov", pts=1, codec="tiff", pixel_format="rgb24")
    stored = read(path)[1][0].pixels
    clips.turn(path, matrix)
    assert np.array_equal(read(path)[1][0].pixels, np.rot90(stored, quarters))


@pytest.mark.skipif(
    not hasattr(av.stream.Stream, "index_entries"), reason="this PyAV does not show FFmpeg's index"
)
def test_pictures_cut_away_by_an_edit_list_are_not_missed(make_clip):
    # Of pictures that refer to no other, those before 0 are not even read.
    path = make_clip("a.mov", pts=range(-3, 5), codec="png", pixel_format="rgb24")
    with av.open(str(path)) as container:
        num_packets = sum(p.size > 0 for p in container.demux(container.streams.video[0]))
        assert num_packets < container.streams.video[0].frames == 8
    _, frames = read(path)
    assert 5 <= len(frames) <= num_packets


def test_odd_angle_is_ignored_with_a_word(clips, make_clip, caplog):
    path = make_clip(pts=1)
    clips.turn(path, (1, 1, -1, 1))
    assert probe(path).rotation_deg == 0
    assert "no quarter turn" in caplog.text


def test_ten_bits_stay_ten_bits(make_clip):
    path = make_clip("a.mkv", codec="ffv1", pixel_format="gray10le", pts=1, size=(64, 48))
    info = probe(path)
    assert (info.bit_depth, info.pixel_format) == (10, "gray10le")
    deep = make_clip(pixel_format="yuv420p10le", pts=2)
    reader, frames = read(deep)
    assert reader.info.bit_depth == 10
    assert frames[0].pixels.dtype == np.uint16
    assert frames[0].pixels.max() > 50_000


def test_tags_are_reported_as_they_are(make_clip):
    color = probe(make_clip(tags=(9, 16, 9, 1), pixel_format="yuv420p10le", pts=1)).color
    assert (color.primaries, color.transfer, color.matrix, color.range) == (9, 16, 9, 1)
    assert probe(make_clip("b.mp4", pts=1)).color.matrix == 2
    assert probe(make_clip("c.mp4", pts=1, pixel_format="yuvj420p")).color.range in (0, 2)


def test_streams_are_described(make_clip):
    info = probe(make_clip("a.mkv", num_sounds=2, pts=5))
    assert info.audio_streams == ("audio #1 (aac, eng)", "audio #2 (aac, fra)")
    assert info.container.startswith("matroska")
    assert info.codec == "h264"


def test_alpha_and_interlacing_are_said(make_clip, caplog):
    path = make_clip(
        "a.mov", codec="prores_ks", pixel_format="yuva444p10le", pts=1, options={"profile": "4444"}
    )
    assert probe(path).has_alpha
    path = make_clip("b.mp4", options={"flags": "+ildct+ilme", "x264-params": "tff=1"}, pts=2)
    assert probe(path).is_interlaced
    assert "interlaced" in caplog.text


def test_cover_picture_is_not_the_film(clips, make_clip, tmp_path):
    cover = clips.cover(tmp_path)
    info = probe(make_clip(before_header=cover.add, after=cover.write, pts=3))
    assert (info.width, info.height) == (64, 48)
    assert info.other_streams == ("cover picture #1 (png)",)


def test_a_reader_is_walked_through_once(make_clip):
    with VideoReader(make_clip(pts=2)) as reader:
        assert len(list(reader)) == 2
        with pytest.raises(ValueError, match="once"):
            iter(reader)


def test_change_of_size_names_the_frame(make_clip, tmp_path):
    path = tmp_path / "two.h264"
    parts = (make_clip("a.h264", pts=5), make_clip("b.h264", pts=2, size=(80, 48)))
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    with (
        VideoReader(path) as reader,
        pytest.raises(VideoError, match=r"from 64x48 to 80x48 at frame 5 \(0.200 s\)"),
    ):
        list(reader)


def _spoil(path, index, *, start=0.0, zeros=False):
    """Overwrite one coded picture, from a fraction of its bytes on."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    packet = packets[index]
    data = bytearray(path.read_bytes())
    begin, end = packet.pos + int(packet.size * start), packet.pos + packet.size
    noise = np.random.default_rng(1).integers(0, 256, end - begin, dtype=np.uint8).tobytes()
    data[begin:end] = bytes(end - begin) if zeros else noise
    path.write_bytes(data)


def test_damaged_frame_is_concealed_counted_and_said(make_clip, caplog):
    path = make_clip(pts=20, options={"g": "10", "bf": "0"})
    _spoil(path, 12, start=0.5)
    reader, frames = read(path)
    assert len(frames) == 20
    assert reader.num_corrupt_frames >= 1
    assert "frame 12 (0.480 s) is damaged" in caplog.text
    again = read(path)[1]  # the same repair every time
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, again, strict=True))


def test_undecodable_frame_stops_and_names_the_place(make_clip):
    path = make_clip(pts=20, options={"g": "10", "bf": "0"})
    _spoil(path, 12, zeros=True)
    with (
        VideoReader(path) as reader,
        pytest.raises(VideoError, match=r"after frame 11 \(0.440 s\).*repair the file"),
    ):
        list(reader)


def test_memory_does_not_grow_with_length(make_clip):
    import tracemalloc

    def peak(num_frames):
        path = make_clip(f"{num_frames}.mp4", pts=num_frames)
        tracemalloc.start()
        with VideoReader(path) as reader:
            for _ in reader:
                pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(5)
    assert peak(200) < peak(20) + 100_000
