"""The clock of an MP4 holds the longest picture."""

from __future__ import annotations

from fractions import Fraction

import pytest

from oasis_core.video import EncodeSpec, SegmentWriter, VideoReader, mux, probe, trial_mux


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(
    ("clock", "still_s", "step"),
    [
        (10_000_000, 300, 333_333),
        (1_000_000_000, 10, 40_000_000),
        (1_000_000, 3600, 33_333),
        (90_000, 7 * 3600, 3600),
        (90_000, 10, 3600),
    ],
)
def test_a_long_still_keeps_all_times(clips, tmp_path, suffix, clock, still_s, step):
    tick = Fraction(1, clock)
    spec = EncodeSpec(
        codec="h264", width=64, height=48, frame_rate=Fraction(25), time_base=tick, preset="medium"
    )  # fmt: skip
    times = [i * step for i in range(6)]
    times += [times[-1] + still_s * clock + i * step for i in range(6)]
    ends = [*times[1:], times[-1] + step]
    with SegmentWriter(tmp_path / "s.mkv", spec) as writer:
        for index, (start, end) in enumerate(zip(times, ends, strict=True)):
            writer.write(clips.picture(index, 64, 48), start, end - start)
    report = mux([tmp_path / "s.mkv"], None, tmp_path / ("out" + suffix), spec)
    with VideoReader(tmp_path / ("out" + suffix)) as reader:
        got = [frame.pts * reader.info.time_base for frame in reader]
    wanted = [time * tick for time in times]
    error = max(abs(a - got[0] - b) for a, b in zip(got, wanted, strict=True))
    if report.kept:
        assert "times, rounded to 1/" in report.kept[0]
        assert error <= 2 * reader.info.time_base
    else:
        assert error == 0
    assert len(got) == 12


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("clock", "length_s"), [(90_000, 8 * 3600), (10_000_000, 300)])
def test_a_dry_run_of_a_long_film_works(make_clip, suffix, clock, length_s):
    times = [0, length_s * clock // 2, length_s * clock]
    path = make_clip("a.nut", pts=times, time_base=Fraction(1, clock), options={"bf": "0"})
    info = probe(path)
    spec = EncodeSpec.from_source(info, codec="h264", width=64, height=48)
    report = trial_mux(path, info, spec, suffix)
    assert report.dropped == ()
