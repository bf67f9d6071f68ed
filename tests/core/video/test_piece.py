"""A piece of a film is exactly that piece, whether it is found by seeking or by reading."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from oasis_core.video import TimeWindow, VideoError, VideoReader

VFR = [i * 512 + (i % 3) * 100 for i in range(120)]


def read(path, window=None):
    with VideoReader(path, window=window) as reader:
        return list(reader)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("start_s", "duration_s"), [(0, 0.2), (3.4, 0.3), (2, None), (4.76, 9)])
def test_a_window_is_a_slice_of_the_film(make_clip, suffix, start_s, duration_s):
    path = make_clip(f"a.{suffix}", pts=120, options={"g": "30", "bf": "2"}, size=(32, 32))
    whole = read(path)
    tick = Fraction(1, 90000) if suffix == "ts" else VideoReader(path).info.time_base
    first = whole[0].pts
    stop_s = float("inf") if duration_s is None else start_s + duration_s
    expected = [f for f in whole if start_s - 0.001 <= (f.pts - first) * tick < stop_s - 0.001]
    window = TimeWindow(start_s=start_s, duration_s=duration_s, context_frames=2)
    found = read(path, window)
    inside = [f for f in found if not f.is_context]
    assert [f.pts for f in inside] == [f.pts for f in expected]
    assert [f.duration for f in inside[:-1]] == [f.duration for f in expected[:-1]]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(inside, expected, strict=True))
    index = whole.index(next(f for f in whole if f.pts == inside[0].pts))
    context = whole[max(0, index - 2) : index] + whole[index + len(inside) :][:2]
    assert [f.pts for f in found if f.is_context] == [f.pts for f in context]


def test_without_context_the_last_duration_is_still_right(make_clip):
    path = make_clip(pts=VFR, time_base=Fraction(1, 12800), size=(32, 32))
    whole = read(path)
    found = read(path, TimeWindow(start_s=1, duration_s=1))
    first = whole.index(next(f for f in whole if f.pts == found[0].pts))
    assert [(f.pts, f.duration) for f in found] == [
        (f.pts, f.duration) for f in whole[first : first + len(found)]
    ]


def test_seeking_is_used_and_cheap(make_clip):
    path = make_clip(pts=400, options={"g": "25"}, size=(32, 32))
    with VideoReader(path, window=TimeWindow(start_s=15, duration_s=0.2)) as reader:
        assert len(list(reader)) == 5
        assert reader._num_decoded < 80


@pytest.mark.parametrize("values", [{"start_s": -1}, {"duration_s": 0}, {"start_s": float("nan")}])
def test_impossible_windows(values):
    with pytest.raises(VideoError, match="must be"):
        TimeWindow(**values)


def test_a_window_behind_the_end_is_refused(make_clip):
    path = make_clip(pts=10)
    with pytest.raises(VideoError, match=r"must begin before the last frame .* got start_s 7"):
        read(path, TimeWindow(start_s=7, duration_s=1))


def test_number_of_frames_is_estimated():
    window = TimeWindow(start_s=1, duration_s=2)
    assert window.num_frames(100, 4.0, Fraction(25)) == 50
    assert window.num_frames(None, 2.0, Fraction(25)) == 25
    assert window.num_frames(None, None, Fraction(25)) == 50
