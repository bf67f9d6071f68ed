"""Frames counted without decoding are the frames that a reader hands out."""

from fractions import Fraction

import pytest

from oasis_core.video import TimeWindow, VideoError, VideoReader, count_frames, probe

UNEVEN = [0, 1502, 3010, 4498, 6003, 6020, 9010, 10500, 12040, 13500, 18000, 19502]


def counted(path, window=None):
    return count_frames(path, probe(path), window)


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.mov", "c.ts", "c.avi"])
@pytest.mark.parametrize(
    "window", [None, (0.0, 0.07), (0.05, None), (0.05, 0.1), (0.0, 9.0), (0.19, 0.02)]
)
def test_as_many_as_are_read(make_clip, name, window):
    times = {} if name == "c.avi" else {"pts": UNEVEN, "time_base": Fraction(1, 90000)}
    path = make_clip(name, options={"bf": "2", "g": "5"}, **times)
    piece = window and TimeWindow(start_s=window[0], duration_s=window[1], context_frames=2)
    with VideoReader(path, window=piece) as reader:
        num_read = sum(not frame.is_context for frame in reader)
    assert counted(path, piece) == num_read


def test_a_late_piece_is_found_by_seeking(make_clip):
    path = make_clip("c.mkv", pts=200, options={"g": "10"})
    assert counted(path, TimeWindow(start_s=6.0, duration_s=1.0, context_frames=3)) == 25


def test_a_piece_behind_the_end_is_one_sentence(make_clip):
    path = make_clip("c.mkv", pts=10)
    with pytest.raises(VideoError, match=r"before the last frame of .*c.mkv' at 0.360 s, got .* 2"):
        counted(path, TimeWindow(start_s=2.0))


def test_a_piece_between_two_frames_is_one_sentence(make_clip):
    path = make_clip("c.mp4", pts=[0, 1, 50, 51], time_base=Fraction(1, 25))
    between = TimeWindow(start_s=0.5, duration_s=1.0, context_frames=1)
    with (
        VideoReader(path, window=between) as reader,
        pytest.raises(VideoError, match=r"no frame of .*c.mp4' begins within 1 s from 0.5 s"),
    ):
        list(reader)
