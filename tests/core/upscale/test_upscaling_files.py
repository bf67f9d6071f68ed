import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oasis_core.upscale import VideoUpscaler, journal_path, upscale_file
from oasis_core.video import VideoError, probe
from oasis_core.video.pixels import tensor_to_frame


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, device="cpu", dtype="float32")


def to_clip(frames):
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255


def test_frames_times_size_and_sound_are_kept(write_video, read_video, upscaler, tmp_path):
    source = write_video(lengths=(9, 8))
    calls = []
    report = upscale_file(
        source,
        tmp_path / "out.mkv",
        upscaler=upscaler,
        scale=1.5,
        codec="ffv1",
        segment_frames=4,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    _, times_before = read_video(source)
    after, times_after = read_video(tmp_path / "out.mkv")
    assert after.shape == (17, 36, 48, 3)
    assert times_after == times_before
    assert probe(tmp_path / "out.mkv").audio_streams
    assert (report.frames, report.width, report.height) == (17, 48, 36)
    assert (report.num_shots, report.num_segments, report.num_resumed_segments) == (2, 5, 0)
    assert json.loads(json.dumps(report.to_json()))["plan"]["segment_frames"] == 4
    assert set(report.seconds) >= {"decode", "model", "encode", "mux", "total"}
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    assert calls[-1] == (17, 17)
    assert not journal_path(tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("num_frames", [1, 2, 3, 12, 13])
def test_frames_out_are_frames_in(write_video, read_video, upscaler, tmp_path, num_frames):
    source = write_video(lengths=(num_frames,))
    upscale_file(source, tmp_path / "o.mp4", upscaler=upscaler, scale=2, segment_frames=6)
    assert len(read_video(tmp_path / "o.mp4")[0]) == num_frames


def test_a_file_is_upscaled_as_a_clip_in_memory(write_video, read_video, upscaler, tmp_path):
    source = write_video(lengths=(7, 9))
    options = {"scale": 2, "segment_frames": 5}
    upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, codec="ffv1", **options)
    clip = upscaler.upscale(to_clip(read_video(source)[0]), **options)
    expected = np.stack([tensor_to_frame(f.clone(), np.uint8) for f in clip[0].unbind(1)])
    assert (read_video(tmp_path / "o.mkv")[0] == expected).all()


def test_strength_zero_is_the_plain_resize(write_video, read_video, upscaler, tmp_path):
    source = write_video(lengths=(5,))
    upscale_file(
        source, tmp_path / "o.mkv", upscaler=upscaler, size=(53, 41), strength=0, codec="ffv1"
    )
    frames = torch.from_numpy(read_video(source)[0]).permute(0, 3, 1, 2).float() / 255
    plain = F.interpolate(frames, (41, 53), mode="bicubic", antialias=True)
    expected = (plain.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert (read_video(tmp_path / "o.mkv")[0] == expected).all()


def test_second_shot_is_identical_to_itself_alone(write_video, read_video, upscaler, tmp_path):
    both, alone = write_video("both.mkv", (6, 11)), tmp_path / "alone.mkv"
    import av

    with av.open(str(both)) as opened, av.open(str(alone), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
        for index, frame in enumerate(opened.decode(video=0)):
            if index >= 6:
                pixels = frame.to_ndarray(format="rgb24")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    for source, name in ((both, "a.mkv"), (alone, "b.mkv")):
        upscale_file(
            source,
            tmp_path / name,
            upscaler=upscaler,
            scale=2,
            codec="ffv1",
            segment_frames=4,
        )
    first, second = read_video(tmp_path / "a.mkv")[0], read_video(tmp_path / "b.mkv")[0]
    assert (first[6:] == second).all()


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scale": 0}, "scale must be"),
        ({"scale": float("nan")}, "scale must be"),
        ({"scale": 0.01}, "between 1 and 32768"),
        ({"size": (30000, 30000)}, "cannot encode 30000x30000"),
        ({"size": (16000, 16000), "segment_frames": 99}, r"needs at least \d+.* GiB of memory"),
        ({"size": (99999, 64)}, "between 1 and 32768"),
        ({"scale": 2, "strength": 2}, "strength must be between 0 and 1"),
        ({"scale": 2, "codec": "mpeg2"}, "codec must be one of"),
        ({"scale": 2, "tile_px": 1}, "tile_px must be at least"),
        ({"scale": 2, "crf": 99}, "crf must be from 0 to 51"),
    ],
)
def test_bad_arguments_write_nothing(write_video, upscaler, tmp_path, options, text):
    source = write_video(lengths=(2,))
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=text):
        upscale_file(source, tmp_path / "o.mp4", upscaler=upscaler, **options)
    assert listing(tmp_path) == before


def test_bad_paths_write_nothing(write_video, upscaler, tmp_path):
    source = write_video(lengths=(2,))
    (tmp_path / "link.mkv").symlink_to(source)
    (tmp_path / "hard.mkv").hardlink_to(source)
    (tmp_path / "there.mp4").write_bytes(b"precious")
    (tmp_path / "text.mp4").write_text("not a film")
    before = listing(tmp_path)
    cases = [
        (source, source, "is the input itself"),
        (source, tmp_path / "link.mkv", "is the input itself"),
        (source, tmp_path / "hard.mkv", "is the input itself"),
        (source, tmp_path / "there.mp4", "exists already; give --overwrite"),
        (source, tmp_path / "no" / "o.mp4", "does not exist"),
        (source, tmp_path / "o.xyz", "must end in one of"),
        (source, tmp_path, "must end in one of|is a folder"),
        (tmp_path / "none.mp4", tmp_path / "o.mp4", "does not exist"),
        (tmp_path / "text.mp4", tmp_path / "o.mp4", "text.mp4"),
        (tmp_path, tmp_path / "o.mp4", str(tmp_path.name)),
    ]
    for src, dst, text in cases:
        with pytest.raises(VideoError, match=text):
            upscale_file(src, dst, upscaler=upscaler, scale=2, overwrite=dst == source)
    assert listing(tmp_path) == before
    assert (tmp_path / "there.mp4").read_bytes() == b"precious"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_unwritable_folder_is_refused(write_video, upscaler, tmp_path):
    source, folder = write_video(lengths=(2,)), tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(VideoError, match="must be writable"):
        upscale_file(source, folder / "o.mp4", upscaler=upscaler, scale=2)


def test_overwrite_replaces(write_video, read_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(3,)), tmp_path / "o.mp4"
    destination.write_bytes(b"old")
    upscale_file(source, destination, upscaler=upscaler, scale=2, overwrite=True)
    assert read_video(destination)[0].shape == (3, 48, 64, 3)


def test_broken_weights_leave_nothing(write_video, conv_model, tmp_path):
    with torch.no_grad():
        conv_model.head.weight[0, 0, 0, 0, 0] = float("nan")
    upscaler = VideoUpscaler(conv_model, device="cpu", dtype="float32")
    source = write_video(lengths=(3,))
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=r"NaN or infinity in frame\(s\) 0, 1, 2 "):
        upscale_file(source, tmp_path / "o.mp4", upscaler=upscaler, scale=2)
    assert listing(tmp_path) == before


def test_deep_sources_stay_deep(upscaler, point_model, tmp_path, read_video):
    import av

    source = tmp_path / "deep.mkv"
    ramp = np.linspace(1000, 60000, 32 * 24 * 3).reshape(24, 32, 3).astype(np.uint16)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "gbrp12le"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(ramp, format="rgb48le").reformat(format="gbrp12le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, scale=1, strength=0, codec="ffv1")
    before, after = read_video(source)[0], read_video(tmp_path / "o.mkv")[0]
    assert after.dtype == np.uint16
    assert np.abs(before.astype(int) - after.astype(int)).max() <= 65535 / 4095


def test_a_smaller_tile_after_running_out_of_memory_is_reported(write_video, conv_model, tmp_path):
    class Limited(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.config = conv_model, conv_model.config

        def forward(self, video):
            if video.shape[2] == 8 and max(video.shape[3:]) > 40:
                raise MemoryError
            return self.model(video)

    upscaler = VideoUpscaler(Limited(), device="cpu", dtype="float32")
    report = upscale_file(
        write_video(lengths=(8, 8)), tmp_path / "o.mp4", upscaler=upscaler, scale=2
    )
    assert report.frames == 16
    assert min(report.tile) < min(report.plan.tile)


def test_relative_paths_work(write_video, upscaler, tmp_path, monkeypatch):
    write_video(lengths=(2,))
    monkeypatch.chdir(tmp_path)
    report = upscale_file("in.mkv", "o.mp4", upscaler=upscaler, scale=2)
    assert report.destination == "o.mp4"
    assert Path("o.mp4").is_file()
