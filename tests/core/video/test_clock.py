"""Recordings whose clock begins anew: joined, interrupted, wrapped."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest

from oasis_core.video import (
    EncodeSpec,
    TimeWindow,
    VideoReader,
    count_frames,
    probe,
    trial_mux,
)

RATE = Fraction(25)
STEP = 1 / RATE
WRAP_S = Fraction(1 << 33, 90_000)


def recording(make_clip, name, *, start_s, num_frames=25, **more):
    """One recording whose clock begins at `start_s`."""
    first = int(start_s * RATE)
    more = {"num_sounds": 1, "options": {"g": "8"}} | more
    return make_clip(
        name, pts=range(first, first + num_frames), sound_start_s=float(start_s), **more
    )


def read(path, **options):
    with VideoReader(path, **options) as reader:
        return reader.info, list(reader)


def joined(make_clip, tmp_path, suffix, starts, **more):
    parts = [
        recording(make_clip, f"part{i}{suffix}", start_s=start, **more)
        for i, start in enumerate(starts)
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def gaps(info, frames):
    times = [frame.pts * info.time_base for frame in frames]
    return [b - a for a, b in itertools.pairwise(times)]


CASES = [
    (".ts", "libx264", (0, 0)),
    (".ts", "libx264", (100, 10)),
    (".ts", "libx264", (10, 100)),
    (".ts", "libx264", (10, 100, 5, 5)),
    (".m2ts", "libx264", (20, 3)),
    (".ts", "mpeg2video", (5, 4)),
    (".mpg", "mpeg2video", (0, 0)),
    (".mpg", "mpeg2video", (90, 8)),
    (".vob", "mpeg2video", (3, 70)),
]


@pytest.mark.parametrize(("suffix", "codec", "starts"), CASES)
def test_joined_recordings_go_on(make_clip, clips, tmp_path, suffix, codec, starts, caplog):
    more = {"sound_codec": "mp2"} if codec == "mpeg2video" else {}
    path = joined(make_clip, tmp_path, suffix, starts, codec=codec, num_frames=13, **more)
    info, frames = read(path)
    assert len(re.findall("begins anew", caplog.text)) == len(starts) - 1
    assert len(frames) == 13 * len(starts)
    check_steps(info, frames)
    for out in (tmp_path / "out.mp4", tmp_path / "out.mkv"):
        report = clips.upscale_identity(frames, info, out)
        new_info, new_frames = read(out)
        assert report.dropped == ()
        assert len(new_frames) == len(frames)
        check_steps(new_info, new_frames)
        # The sound of each recording begins where its picture does.
        times = [p.pts * p.time_base for p in clips.packets_of(out, 1)]
        assert times == sorted(times)
        assert max(b - a for a, b in itertools.pairwise(times)) < 0.1
        shown = new_frames[-1].pts * new_info.time_base
        assert abs(times[-1] - shown) < 0.1


def check_steps(info, frames):
    least = max(2 * info.time_base, Fraction(1, 500))
    assert max(abs(gap - STEP) for gap in gaps(info, frames)) <= least


def test_count_and_forecast_agree_with_the_run(make_clip, tmp_path):
    path = joined(make_clip, tmp_path, ".ts", (100, 10))
    info = probe(path)
    assert count_frames(path, info) == 50
    spec = EncodeSpec.from_source(info, codec="h264", width=info.width, height=info.height)
    for suffix in (".mp4", ".mov", ".mkv"):
        report = trial_mux(path, info, spec, suffix)
        assert report.dropped == ()
        assert len(report.kept) >= 1


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_a_true_wrap_is_no_new_clock(make_clip, name, caplog):
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    start = int((WRAP_S - Fraction(1, 2)) * RATE) - 25
    path = make_clip(name, pts=range(start, start + 75), codec=codec)
    info, frames = read(path)
    assert len(frames) == 75
    assert {round(float(gap), 3) for gap in gaps(info, frames)} == {0.04}
    assert "begins anew" not in caplog.text


@pytest.mark.slow
def test_a_still_to_which_sound_goes_on_is_no_new_clock(make_clip, caplog):
    times = [*range(10), *range(510, 520)]
    path = make_clip("a.ts", pts=times, num_sounds=1, sound_s=21, codec="mpeg2video")
    info, frames = read(path)
    assert max(gaps(info, frames)) == pytest.approx(501 / 25, abs=0.001)
    assert "begins anew" not in caplog.text


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.nut"])
def test_formats_that_store_pauses_keep_them(make_clip, name, caplog):
    info, frames = read(make_clip(name, pts=[*range(10), *range(1000, 1010)]))
    assert max(gaps(info, frames)) == pytest.approx(991 / 25, abs=0.002)
    assert "begins anew" not in caplog.text


@pytest.mark.parametrize("moved_s", [20, -20])
def test_a_lone_wrong_time_is_put_right(make_clip, moved_s, caplog):
    path = recording(make_clip, "a.ts", start_s=60, num_sounds=0, options={"bf": "0", "g": "5"})
    data = bytearray(path.read_bytes())
    heads = [m.start() for m in re.finditer(b"\x00\x00\x01\xe0..\x80\x80\x05", bytes(data), re.S)]
    assert len(heads) == 25
    at = heads[12] + 9
    five = data[at : at + 5]
    pts = (five[0] >> 1 & 7) << 30 | five[1] << 22 | (five[2] >> 1) << 15 | five[3] << 7
    pts += (five[4] >> 1) + moved_s * 90_000
    data[at : at + 5] = (
        five[0] & 0xF1 | (pts >> 30 & 7) << 1,
        pts >> 22 & 0xFF,
        pts >> 14 & 0xFE | 1,
        pts >> 7 & 0xFF,
        pts << 1 & 0xFE | 1,
    )
    path.write_bytes(data)
    info, frames = read(path)
    assert {round(float(gap), 3) for gap in gaps(info, frames)} == {0.04}
    assert "begins anew" not in caplog.text


def test_a_piece_behind_a_new_clock_is_found(make_clip, tmp_path):
    path = joined(make_clip, tmp_path, ".ts", (100, 10))
    window = TimeWindow(start_s=1.2, duration_s=0.4)
    (info, frames), (_, piece) = read(path), read(path, window=window)
    assert [f.pts for f in piece] == [f.pts for f in frames[30:40]]
    assert count_frames(path, info, window) == 10
