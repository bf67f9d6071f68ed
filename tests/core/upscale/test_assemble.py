import random

import numpy as np

from oasis_core.geometry import plan_segments
from oasis_core.upscale.assemble import SegmentAssembler
from oasis_core.video import VideoFrame


def frames_of(num_frames, level=lambda index: 0):
    return [
        VideoFrame(pixels=np.full((16, 16, 3), level(i), np.uint8), pts=i, duration=1)
        for i in range(num_frames)
    ]


def test_segments_equal_the_plan_made_with_all_frames_known():
    stream = random.Random(0)
    for _ in range(200):
        num_frames, length = stream.randint(1, 90), stream.randint(1, 30)
        halo = stream.randint(0, 40)
        assembler = SegmentAssembler(length, halo, has_shots=False)
        segments = list(assembler.segments(frames_of(num_frames)))
        expected = plan_segments(num_frames, length, halo)
        assert [[f.pts for f in s.frames] for s in segments] == [
            list(range(e.read_start, e.read_stop)) for e in expected
        ]
        assert [s.keep for s in segments] == [e.keep for e in expected]
        assert [s.first_frame for s in segments] == [e.start for e in expected]
        assert [s.index for s in segments] == list(range(len(expected)))


def test_no_segment_crosses_a_cut():
    level = lambda i: 20 if i < 11 else 230 if i < 30 else 90  # noqa: E731 - one short table
    segments = list(SegmentAssembler(8, 3, has_shots=True).segments(frames_of(47, level)))
    for segment in segments:
        assert len({frame.pixels[0, 0, 0] for frame in segment.frames}) == 1
    assert [f.pts for s in segments for f in s.kept] == list(range(47))
    assert [s.shot for s in segments] == sorted(s.shot for s in segments)
    assert {s.shot: s.kept[0].pts for s in reversed(segments)} == {0: 0, 1: 11, 2: 30}


def test_only_about_one_segment_is_held():
    assembler = SegmentAssembler(8, 3, has_shots=True)
    most = 0
    for _ in assembler.segments(frames_of(300)):
        most = max(most, len(assembler._held) + len(assembler._undecided))
    assert most <= 8 + 4 + 3 + 3 + 4
