"""Fields become frames: as many, at the same times, without combs."""

from __future__ import annotations

import av
import numpy as np
import pytest

from oasis_core.video import VideoReader

OPTIONS = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
TIMES = [0, 1, 2, 4, 5, 9, 10, 11]


@pytest.fixture
def interlaced(make_clip):
    """Film a bar that moves 2 px from field to field."""
    frames = []
    for index in range(len(TIMES)):
        pixels = np.full((64, 96, 3), 30, np.uint8)
        for field in range(2):
            x = 8 + 4 * index + 2 * field
            pixels[field::2, x : x + 24] = 220
        frames.append(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p"))
    return make_clip(pts=TIMES, size=(96, 64), options=OPTIONS, frames=frames)


def combing(frames):
    """How much more neighbouring lines differ than lines two apart."""
    luma = np.stack([f.pixels[..., 1].astype(float) for f in frames[2:-2]])
    return np.abs(np.diff(luma, axis=1)).mean() - np.abs(luma[:, 2:] - luma[:, :-2]).mean() / 2


def test_deinterlacing_keeps_number_and_times(interlaced, caplog):
    with VideoReader(interlaced) as reader:
        before = list(reader)
    assert "use --deinterlace" in caplog.text
    caplog.clear()
    with VideoReader(interlaced, deinterlace=True) as reader:
        after = list(reader)
    assert not caplog.text
    assert [(f.pts, f.duration) for f in after] == [(f.pts, f.duration) for f in before]
    assert combing(after) < 0.25 * combing(before)


def test_a_clip_without_flags_is_treated_too(make_clip):
    with VideoReader(make_clip(pts=5), deinterlace=True) as reader:
        assert len(list(reader)) == 5
