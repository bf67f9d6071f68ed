"""A segment file holds exactly the frames, times and colours it was given, or does not exist."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_core.video import (
    CODECS,
    ColorTags,
    EncodeSpec,
    SegmentWriter,
    VideoError,
    VideoReader,
    check_encoder,
    mux,
    probe,
)
from oasis_core.video.timeline import read_timeline

ROOT = Path(__file__).resolve().parents[3]
ON_CPU = [name for name, codec in CODECS.items() if not codec.needs]
if int(av.__version__.split(".")[0]) < 16:
    ON_CPU.remove("av1")  # their SVT-AV1 takes nothing below 64x64
QUICK = {"h264": "ultrafast", "h265": "ultrafast", "av1": "12", "vp9": "8"}
ORDINARY = {"h264": "medium", "h265": "medium", "av1": "10"}
TIMES = [-700, -188, 0, 1, 5000, 5001, 5777, 90_000, 190_000, 190_512]


def spec_of(codec="h264", size=(64, 48), **fields):
    fields = {"frame_rate": Fraction(25), "time_base": Fraction(1, 12800)} | fields
    fields.setdefault("preset", QUICK.get(codec))
    if codec == "prores":
        fields.setdefault("bit_depth", 10)
    return EncodeSpec(codec=codec, width=size[0], height=size[1], **fields)


def write(path, spec, frames, times=None):
    times = times or [i * 512 for i in range(len(frames))]
    ends = [*times[1:], times[-1] + 77]
    with SegmentWriter(path, spec) as writer:
        for pixels, pts, end in zip(frames, times, ends, strict=True):
            writer.write(pixels, pts, end - pts)
    return path


@pytest.fixture
def frames(clips):
    return [clips.picture(i, 64, 48) for i in range(len(TIMES))]


@pytest.mark.parametrize("codec", ON_CPU)
@pytest.mark.parametrize("time_base", [Fraction(1, 12800), Fraction(1001, 24000), Fraction(1, 3)])
def test_times_are_exact(tmp_path, frames, codec, time_base):
    spec = spec_of(codec, time_base=time_base, preset=ORDINARY.get(codec))
    path = write(tmp_path / "s.mkv", spec, frames, TIMES)
    timeline = read_timeline([path])
    assert list(timeline.pts) == TIMES
    assert timeline.time_base == time_base
    assert timeline.end_pts == TIMES[-1] + 77
    dts = [timeline.dts(i) for i in range(len(TIMES))]
    assert all(a < b for a, b in itertools.pairwise(dts))


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_ffv1_returns_every_pixel(tmp_path, depth):
    rng = np.random.default_rng(depth)
    codes = rng.integers(0, 2**depth, (5, 47, 63, 3))
    dtype = np.uint8 if depth == 8 else np.uint16
    top = np.iinfo(dtype).max
    frames = [np.round(c / (2**depth - 1) * top).astype(dtype) for c in codes]
    spec = spec_of("ffv1", (63, 47), bit_depth=depth)
    with VideoReader(write(tmp_path / "s.mkv", spec, frames)) as reader:
        assert reader.info.bit_depth == depth
        for original, frame in zip(frames, reader, strict=True):
            assert np.array_equal(frame.pixels, original)


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (9, 11)])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_size_is_exact_even_if_odd(tmp_path, clips, codec, size):
    if codec == "h265" and min(size) < 16:
        pytest.skip("x265 wants 16 pixels")
    frames = [clips.picture(i, *size) for i in range(2)]
    path = write(tmp_path / "s.mkv", spec_of(codec, size, crf=4), frames)
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == size
        is_even = size[0] % 2 == size[1] % 2 == 0
        assert reader.info.pixel_format == ("yuv420p" if is_even else "yuv444p")
        assert np.abs(next(iter(reader)).pixels.astype(int) - frames[0]).mean() < 4


@pytest.mark.parametrize(
    ("codec", "depth", "pixel_format"),
    [("h264", 10, "yuv420p10le"), ("h265", 10, "yuv420p10le"), ("h265", 12, "yuv420p12le")],
)
def test_deep_codecs(tmp_path, codec, depth, pixel_format):
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64, 1).repeat(3, 2).astype(np.uint16)
    path = write(tmp_path / "s.mkv", spec_of(codec, bit_depth=depth, crf=0), [ramp, ramp])
    with VideoReader(path) as reader:
        assert reader.info.pixel_format == pixel_format
        pixels = next(iter(reader)).pixels
    assert len(np.unique(pixels[..., 1])) > 700  # 8 bits have at most 220 limited-range codes
    assert np.abs(pixels / 65535 - ramp / 65535).mean() < 1 / 1023


@pytest.mark.parametrize("codec", ON_CPU)
def test_same_input_gives_the_same_bytes(tmp_path, clips, codec):
    frames = [clips.picture(i, 160, 96) for i in range(12)]
    spec = spec_of(codec, (160, 96), preset=ORDINARY.get(codec))
    files = {write(tmp_path / f"{i}.mkv", spec, frames).read_bytes() for i in range(4)}
    assert len(files) == 1


def test_segments_of_one_spec_join(tmp_path, frames):
    """The codec headers must not depend on content or on a segment's length."""
    for codec in ON_CPU:
        spec = spec_of(codec)
        paths = [
            write(tmp_path / f"{codec}{k}.mkv", spec, frames[k : k + n], TIMES[k : k + n])
            for k, n in ((0, 1), (1, 7), (8, 2))
        ]
        assert list(read_timeline(paths).pts) == TIMES


def test_wrong_order_is_refused(tmp_path, frames):
    paths = [
        write(tmp_path / f"{k}.mkv", spec_of(), frames[k : k + 5], TIMES[k : k + 5]) for k in (0, 5)
    ]
    with pytest.raises(VideoError, match="does not continue"):
        read_timeline(paths[::-1])
    with pytest.raises(VideoError, match="does not continue"):
        read_timeline([paths[0], paths[0]])


def test_other_settings_are_refused(tmp_path, frames):
    a = write(tmp_path / "a.mkv", spec_of(), frames[:3])
    other = spec_of(time_base=Fraction(1, 1000))
    b = write(tmp_path / "b.mkv", other, frames[3:6], [9000, 9100, 9200])
    with pytest.raises(VideoError, match="other settings"):
        read_timeline([a, b])


def test_foreign_and_damaged_segments_are_refused(tmp_path, frames, make_clip):
    with pytest.raises(VideoError, match="not a segment"):
        read_timeline([make_clip("a.mkv", pts=2)])
    path = write(tmp_path / "s.mkv", spec_of(), frames)
    path.write_bytes(b"junk" * 100)
    with pytest.raises(VideoError, match="cannot be read"):
        read_timeline([path])


def test_nothing_is_left_after_an_error(tmp_path, frames):
    def stop_half_way():
        with SegmentWriter(tmp_path / "s.mkv", spec_of()) as writer:
            writer.write(frames[0], 0, 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert list(tmp_path.iterdir()) == []


def test_name_appears_only_at_the_end(tmp_path, frames):
    with SegmentWriter(tmp_path / "s.mkv", spec_of()) as writer:
        writer.write(frames[0], 0, 1)
        assert not (tmp_path / "s.mkv").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["s.mkv"]


def test_wrong_arguments(tmp_path, frames):
    with pytest.raises(ValueError, match="no frames"):
        SegmentWriter(tmp_path / "a", spec_of()).close()
    assert list(tmp_path.iterdir()) == []
    with SegmentWriter(tmp_path / "s.mkv", spec_of()) as writer:
        writer.write(frames[0], 5, 1)
        with pytest.raises(ValueError, match="must increase, got 5 after 5"):
            writer.write(frames[1], 5, 1)
        with pytest.raises(ValueError, match=r"got \(48, 63, 3\) uint8"):
            writer.write(frames[1][:, 1:], 6, 1)
        with pytest.raises(ValueError, match="float64"):
            writer.write(frames[1] / 255, 6, 1)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"codec": "h266"}, "codec must be one of h264, h265, av1, prores, .*, got 'h266'"),
        ({"bit_depth": 12}, "bit_depth for h264 must be one of 8, 10, got 12"),
        ({"width": 0}, "at least 1x1"),
        ({"crf": 99}, "crf must be from 0 to 51 for h264, got 99"),
        ({"time_base": Fraction(0)}, "must be positive"),
        ({"codec": "ffv1", "preset": None, "crf": 3}, "crf means nothing to ffv1, got 3; leave it"),
        ({"has_alpha": True}, "h264 has no transparency; use one of prores, ffv1"),
        ({"preset": "warp"}, "preset for h264 must be one of ultrafast, .*, got 'warp'"),
    ],
)
def test_specs_are_checked(fields, match):
    with pytest.raises(VideoError, match=match):
        dataclasses.replace(spec_of(), **fields)


def test_missing_encoder_is_named(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"ffv1", "libx264"})
    check_encoder(spec_of("h264"))
    with pytest.raises(VideoError, match="no libx265 encoder for h265; it can write h264, ffv1"):
        check_encoder(spec_of("h265"))


def test_what_the_encoder_refuses_is_said_before_any_work(tmp_path, clips):
    spec = spec_of("h265", (8, 8))
    with pytest.raises(VideoError, match="libx265 cannot encode 8x8 pixels as yuv420p"):
        check_encoder(spec)
    with pytest.raises(VideoError, match="libx265 cannot encode 8x8"):
        SegmentWriter(tmp_path / "s.mkv", spec)
    assert list(tmp_path.iterdir()) == []
    for codec in ON_CPU:
        check_encoder(spec_of(codec))


def test_spec_keeps_what_the_source_has(make_clip):
    path = make_clip(
        rate=Fraction(30000, 1001), pixel_format="yuv420p10le", tags=(9, 16, 9, 1), pts=2,
        aspect=Fraction(16, 15),
    )  # fmt: skip
    info = probe(path)
    spec = EncodeSpec.from_source(info, codec="h265", width=128, height=96)
    assert (spec.bit_depth, spec.pixel_format) == (10, "yuv420p10le")
    assert (spec.frame_rate, spec.time_base) == (Fraction(30000, 1001), info.time_base)
    assert spec.sample_aspect_ratio == Fraction(16, 15)
    assert spec.written_color == info.color
    ffv1 = EncodeSpec.from_source(info, codec="ffv1", width=128, height=96)
    assert (ffv1.written_color.matrix, ffv1.written_color.primaries) == (0, 9)
    rgb = dataclasses.replace(info, color=ColorTags(matrix=0, range=2, primaries=1, transfer=13))
    out = EncodeSpec.from_source(rgb, codec="h264", width=128, height=96).written_color
    assert (out.matrix, out.range, out.transfer) == (1, 1, 13)


FULL_DISK = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from fractions import Fraction
from oasis_core.video import EncodeSpec, SegmentWriter, VideoError, mux
folder, what = sys.argv[2:]
rate = Fraction(25)
spec = EncodeSpec(codec="ffv1", width=64, height=64, frame_rate=rate, time_base=1 / rate)
rng = np.random.default_rng(0)
def segment(path, n):
    with SegmentWriter(path, spec) as writer:
        for i in range(n):
            writer.write(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), i, 1)
if what == "mux":
    segment(folder + "/s.mkv", 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    if what == "mux":
        from pathlib import Path
        mux([Path(folder + "/s.mkv")], None, folder + "/out.mkv", spec)
    else:
        segment(folder + "/s.mkv", 20)
except VideoError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set")
@pytest.mark.parametrize("what", ["segment", "mux"])
def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, what):
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(ROOT), str(tmp_path), what],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 7, run.stderr
    assert "could not be written (File too large); free some space" in run.stdout
    assert run.stdout.count("\n") == 1
    assert run.stderr == ""
    assert [p.name for p in tmp_path.iterdir()] == (["s.mkv"] if what == "mux" else [])


def test_unwritable_place(tmp_path, frames):
    (tmp_path / "s.mkv.part").mkdir()
    with pytest.raises(VideoError, match=r"s.mkv' could not be written \(Is a directory\)"):
        write(tmp_path / "s.mkv", spec_of(), frames[:1])
    (tmp_path / "out.mp4.part").mkdir()
    good = write(tmp_path / "t.mkv", spec_of(), frames[:1])
    with pytest.raises(VideoError, match=r"out.mp4' could not be written \(Is a directory\)"):
        mux([good], None, tmp_path / "out.mp4", spec_of())
