"""A clip in memory goes through the engine like a file: exact times, its sound, its depth."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from oasis_core.upscale import VideoUpscaler, upscale_file
from oasis_core.video import ClipSource, VideoError, VideoReader, count_frames, probe

SIZE = (48, 32)


@pytest.fixture
def upscaler(point_model):
    return VideoUpscaler(point_model, device="cpu", dtype="float32")


def ramp(num_frames=12, levels=4096):
    """Frames whose grey values lie between those of 8 bits."""
    line = torch.arange(SIZE[0]) / (SIZE[0] - 1)
    steps = torch.arange(num_frames)[:, None] * 0.25 + line * 40
    values = (steps * levels / 256).round() / levels
    return values[:, None, None, :].expand(num_frames, 3, SIZE[1], SIZE[0]) + 0.25


def sound(path, seconds, rate=44100):
    """AAC in MP4, which begins with silence that an edit list hides."""
    tone = np.sin(np.arange(int(seconds * rate)) * 0.06).astype(np.float32)[None]
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=24)
        picture.width = picture.height = 16
        stream = out.add_stream("aac", rate=rate, layout="mono")
        for _ in range(round(24 * seconds)):
            out.mux(picture.encode(av.VideoFrame(16, 16, "yuv420p")))
        out.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate, frame.pts = rate, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("rate", [24.0, 23.976, 29.97, 16.666, 59.94, 0.5])
def test_times_are_those_of_the_rate_and_start_at_zero_with_the_sound(upscaler, tmp_path, rate):
    clip = ClipSource(frames=ramp(), frame_rate=rate, sound=sound(tmp_path / "sound.mp4", 0.5))
    path = tmp_path / "out.mp4"
    upscale_file(clip, path, upscaler=upscaler, scale=1, strength=0, bit_depth=8)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        times = sorted(p.pts * stream.time_base for p in video.demux(stream) if p.size)
        assert times == [index / clip.frame_rate for index in range(12)]
        assert stream.average_rate == clip.frame_rate
        assert stream.start_time == 0
        assert video.streams.audio[0].start_time == 0


def test_sixteen_bits_reach_the_result(upscaler, tmp_path):
    clip = ClipSource(frames=ramp(), frame_rate=Fraction(24))
    path = tmp_path / "out.mkv"
    upscale_file(clip, path, upscaler=upscaler, scale=1, strength=0, codec="ffv1")
    with VideoReader(path) as reader:
        after = np.stack([frame.pixels for frame in reader])
    before = (ramp() * 65535).round().permute(0, 2, 3, 1).numpy()
    assert after.dtype == np.uint16
    assert np.abs(after - before).max() <= 1
    ten = tmp_path / "ten.mp4"
    upscale_file(clip, ten, upscaler=upscaler, scale=1, strength=0, bit_depth=10)
    assert probe(ten).bit_depth == 10


def test_transparency_is_kept_where_the_codec_has_it(upscaler, tmp_path):
    alpha = torch.linspace(0, 1, SIZE[0]).expand(4, SIZE[1], SIZE[0])
    clip = ClipSource(frames=ramp(4), frame_rate=Fraction(25), alpha=alpha)
    report = upscale_file(
        clip, tmp_path / "a.mkv", upscaler=upscaler, scale=1, strength=0, codec="ffv1"
    )
    with VideoReader(report.destination) as reader:
        assert np.abs(next(iter(reader)).alpha / 65535 - alpha[0].numpy()).max() < 1e-4
    lost = upscale_file(clip, tmp_path / "a.mp4", upscaler=upscaler, scale=1, strength=0)
    assert any("transparency" in line for line in lost.dropped)


def test_an_equal_clip_goes_on_where_a_run_stopped_and_another_does_not(upscaler, tmp_path):
    options = {"upscaler": upscaler, "scale": 1, "segment_frames": 4, "shots": False}

    def stop(done, total):
        if done > 6:
            raise KeyboardInterrupt

    clip = ClipSource(frames=ramp(), frame_rate=24.0)
    with pytest.raises(KeyboardInterrupt):
        upscale_file(clip, tmp_path / "a.mp4", on_progress=stop, **options)
    again = ClipSource(frames=ramp(), frame_rate=24.0)
    assert again.fingerprint() == clip.fingerprint()
    report = upscale_file(again, tmp_path / "a.mp4", **options)
    assert report.num_resumed_segments == 1
    assert report.num_segments == 3
    changed = ramp().clone()
    changed[5, 0, 3, 3] += 1e-4
    assert ClipSource(frames=changed, frame_rate=24.0).fingerprint() != clip.fingerprint()
    assert ClipSource(frames=ramp(), frame_rate=25.0).fingerprint() != clip.fingerprint()


def test_a_piece_and_its_count(upscaler, tmp_path):
    clip = ClipSource(frames=ramp(), frame_rate=24.0)
    assert count_frames(clip, probe(clip)) == 12
    report = upscale_file(
        clip, tmp_path / "a.mp4", upscaler=upscaler, scale=1, start_s=0.125, duration_s=0.25
    )
    assert report.frames == 6


def test_what_is_no_clip_is_refused(upscaler, tmp_path):
    with pytest.raises(VideoError, match="t 3 h w"):
        ClipSource(frames=torch.zeros(3, 8, 8), frame_rate=24)
    broken = ramp().clone()
    broken[3, 1, 2, 2] = float("nan")
    with pytest.raises(VideoError, match="NaN in frame 3"):
        upscale_file(
            ClipSource(frames=broken, frame_rate=24),
            tmp_path / "a.mp4",
            upscaler=upscaler,
            scale=1,
        )


def test_half_precision_and_strided_frames(upscaler, tmp_path):
    images = ramp().permute(0, 2, 3, 1).contiguous()
    for frames in (images.half(), images.bfloat16(), images):
        clip = ClipSource(frames=frames.permute(0, 3, 1, 2), frame_rate=24.0)
        assert len(clip.fingerprint()["sha256_of_frames"]) == 64
        report = upscale_file(
            clip, tmp_path / "a.mp4", upscaler=upscaler, scale=1, overwrite=True, strength=0
        )
        assert report.frames == 12
