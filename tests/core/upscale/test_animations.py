"""Animated WebP and GIF out: frames, times, loops and transparency, and what they cannot hold."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from oasis_core.upscale import VideoUpscaler, forecast_file, upscale_file
from oasis_core.video import ClipSource, EncodeSpec, SegmentWriter, mux, open_source
from oasis_core.video.animation_writer import loops_of, write_gif, write_webp
from oasis_core.video.image_writer import ImageSpec
from oasis_core.video.reader import VideoFrame

TIMES = ((0, 40), (40, 100), (140, 60), (200, 500))


@pytest.fixture
def upscaler(point_model):
    return VideoUpscaler(point_model, "cpu", "float32")


def frames(alpha=True):
    slope = (np.indices((24, 32)).sum(0) * 3)[..., None] * np.array([1, 0.7, 0.5])
    for index, (pts, duration) in enumerate(TIMES):
        cover = np.full((24, 32), 255, np.uint8)
        cover[:8] = 0
        pixels = np.clip(slope + 20 * index, 0, 255).astype(np.uint8)
        yield VideoFrame(pixels=pixels, pts=pts, duration=duration, alpha=cover if alpha else None)


def write(path, loops=0):
    options = {"time_base": Fraction(1, 1000), "loops": loops}
    if path.suffix == ".gif":
        write_gif(path, frames, **options)
    else:
        spec = ImageSpec(suffix=".webp", width=32, height=24, has_alpha=True)
        write_webp(path, frames, spec, **options)
    return path


def read(path):
    with open_source(path) as reader:
        found = list(reader)
        ms = reader.info.time_base * 1000
        return found, [(round(f.pts * ms), round(f.duration * ms)) for f in found]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_frames_times_and_transparency_come_back(tmp_path, suffix):
    found, times = read(write(tmp_path / f"a{suffix}"))
    assert [start for start, _ in times] == [start for start, _ in TIMES]
    assert times[:3] == list(TIMES[:3])
    for frame, wanted in zip(found, frames(), strict=True):
        assert not frame.alpha[:8].any()
        assert (frame.alpha[8:] == 255).all()
        apart = frame.pixels[8:].astype(int) - wanted.pixels[8:]
        assert np.abs(apart).mean() < 2.5


def test_the_last_picture_of_a_gif_stays_as_long_as_it_should(tmp_path):
    data = write(tmp_path / "a.gif").read_bytes()
    blocks = [
        data[i + 4] + 256 * data[i + 5]
        for i in range(len(data) - 8)
        if data[i : i + 3] == b"!\xf9\x04"
    ]
    assert blocks == [4, 10, 6, 50]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
@pytest.mark.parametrize("loops", [0, 1, 3])
def test_loops_are_kept(tmp_path, suffix, loops):
    assert loops_of(write(tmp_path / f"a{suffix}", loops)) == loops


def test_what_is_no_animation_plays_for_ever(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"\0" * 64)
    assert loops_of(tmp_path / "film.mp4") == loops_of(tmp_path / "missing") == 0


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_film_becomes_an_animation_the_same_every_time(upscaler, tmp_path, suffix):
    clip = torch.linspace(0.2, 0.8, 5)[:, None, None, None].expand(5, 3, 16, 24)
    source = ClipSource(frames=clip, frame_rate=Fraction(25))
    for name in ("a", "b"):
        options = {"upscaler": upscaler, "scale": 2, "segment_frames": 2}
        upscale_file(source, tmp_path / f"{name}{suffix}", **options)
    found, times = read(tmp_path / f"a{suffix}")
    assert times == [(40 * index, 40) for index in range(5)] or suffix == ".gif"
    assert [start for start, _ in times] == [40 * index for index in range(5)]
    assert found[0].pixels.shape == (32, 48, 3)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert not (tmp_path / f"a{suffix}.oasis").exists()


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_an_animation_keeps_how_often_it_plays(upscaler, tmp_path, suffix):
    write(tmp_path / f"in{suffix}", 3)
    report = upscale_file(
        tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", upscaler=upscaler, scale=2
    )
    assert report.frames == 4
    assert loops_of(tmp_path / f"out{suffix}") == 3
    found, times = read(tmp_path / f"out{suffix}")
    assert [start for start, _ in times] == [start for start, _ in TIMES]
    assert not found[0].alpha[:14].any()


def test_what_cannot_be_held_is_said(upscaler, tmp_path):
    spec = EncodeSpec(
        codec="ffv1", width=16, height=16, frame_rate=Fraction(24), time_base=Fraction(1, 24)
    )
    with SegmentWriter(tmp_path / "s.mkv", spec) as writer:
        for number in range(3):
            writer.write(np.full((16, 16, 3), 40 * number, np.uint8), number, 1)
    mux([tmp_path / "s.mkv"], None, tmp_path / "in.mkv", spec)
    dropped = forecast_file(
        tmp_path / "in.mkv", tmp_path / "o.gif", upscaler=upscaler, scale=2
    ).dropped
    assert "colours: 256 for the whole film, dithered" in dropped
    assert "times: rounded to 1/100 s, without drifting" in dropped
    for name, options, said in (
        ("o.gif", {"codec": "h264"}, "codec means nothing to .gif, got 'h264'"),
        ("o.gif", {"quality": 50}, "quality means nothing to .gif, got 50"),
        ("o.webp", {"crf": 20}, "crf means nothing to .webp, got 20"),
        ("o.gif", {"compare": "side"}, "compare is for videos and pictures, got .gif"),
    ):
        with pytest.raises(ValueError, match=said):
            upscale_file(
                tmp_path / "in.mkv", tmp_path / name, upscaler=upscaler, scale=2, **options
            )


def test_one_picture_stays_a_picture(upscaler, tmp_path):
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 16, 16, "rgb24"
    encoder.time_base = Fraction(1, 24)
    data = b"".join(bytes(p) for p in (*encoder.encode(frame), *encoder.encode(None)))
    (tmp_path / "in.png").write_bytes(data)
    upscale_file(tmp_path / "in.png", tmp_path / "out.webp", upscaler=upscaler, scale=2)
    assert b"ANIM" not in (tmp_path / "out.webp").read_bytes()[:64]
