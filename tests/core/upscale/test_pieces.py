"""Pieces of a film, comparisons, partial files and the note in the file."""

import json

import av
import numpy as np
import pytest
import torch

from oasis_core.upscale import (
    VideoUpscaler,
    compare_files,
    comparison_path,
    export_partial,
    journal_path,
    upscale_file,
)
from oasis_core.video import VideoError, probe
from oasis_core.video.pixels import frame_to_tensor, resize, tensor_to_frame

OPTIONS = {"scale": 2, "codec": "ffv1", "segment_frames": 4}


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, device="cpu", dtype="float32")


class StopError(Exception):
    pass


def interrupt(source, destination, upscaler, num_frames, **options):
    def on_progress(done, total):
        if done > num_frames:
            raise StopError

    with pytest.raises(StopError):
        upscale_file(
            source, destination, upscaler=upscaler, on_progress=on_progress, **OPTIONS, **options
        )


def sound_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [p for p in container.demux(stream) if p.size]
        return [(float(p.pts * p.time_base), float(p.duration * p.time_base)) for p in packets]


def test_a_piece_is_the_same_as_in_the_whole(write_video, read_video, upscaler, tmp_path):
    source = write_video(lengths=(14, 13))
    upscale_file(source, tmp_path / "whole.mkv", upscaler=upscaler, **OPTIONS)
    report = upscale_file(
        source, tmp_path / "o.mkv", upscaler=upscaler, start_s=0.4, duration_s=0.36, **OPTIONS
    )
    whole, times = read_video(tmp_path / "whole.mkv")
    piece, piece_times = read_video(tmp_path / "o.mkv")
    inside = [i for i, t in enumerate(times) if times[0] + 0.4 <= t < times[0] + 0.76 - 1e-6]
    assert report.frames == len(piece) == len(inside)
    assert (piece == whole[inside]).all()
    assert piece_times[0] == 0
    shifts = np.array(piece_times) - (np.array(times)[inside] - times[inside[0]])
    assert np.abs(shifts).max() < 0.0011
    assert report.num_shots == 2


def test_the_sound_is_cut_with_the_picture(write_video, upscaler, tmp_path):
    source = write_video(lengths=(25,))
    upscale_file(
        source, tmp_path / "o.mkv", upscaler=upscaler, start_s=0.3, duration_s=0.4, **OPTIONS
    )
    packets = sound_of(tmp_path / "o.mkv")
    start, end = packets[0][0], sum(packets[-1])
    longest = max(duration for _, duration in sound_of(source))
    assert 0 <= start <= longest
    assert abs(end - 0.4) <= longest + 0.04


def test_a_piece_goes_on_after_a_stop(write_video, read_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(20,)), tmp_path / "o.mkv"
    piece = {"start_s": 0.2, "duration_s": 0.5}
    upscale_file(source, tmp_path / "a.mkv", upscaler=upscaler, **OPTIONS, **piece)
    interrupt(source, destination, upscaler, 6, **piece)
    with pytest.raises(VideoError, match=r"setting start_s was 0.2 and is 0.3"):
        upscale_file(source, destination, upscaler=upscaler, **OPTIONS, **{**piece, "start_s": 0.3})
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS, **piece)
    assert report.num_resumed_segments >= 1
    assert (read_video(destination)[0] == read_video(tmp_path / "a.mkv")[0]).all()


def test_a_piece_behind_the_end_leaves_nothing(write_video, upscaler, tmp_path):
    source = write_video(lengths=(5,))
    with pytest.raises(VideoError, match="must begin before the last frame"):
        upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, start_s=9, **OPTIONS)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("mode", ["side", "split"])
def test_comparison_shows_resize_and_result(write_video, read_video, upscaler, tmp_path, mode):
    source, destination = write_video(lengths=(6,)), tmp_path / "o.mkv"
    report = upscale_file(source, destination, upscaler=upscaler, compare=mode, **OPTIONS)
    assert report.seconds["compare"] > 0
    before, after = read_video(source)[0], read_video(destination)[0]
    height, width = after.shape[1:3]
    device = torch.device("cpu")
    plain = np.stack(
        [
            tensor_to_frame(resize(frame_to_tensor(f, device), height, width), np.dtype(np.uint8))
            for f in before
        ]
    )
    both, times = read_video(comparison_path(destination))
    assert times == read_video(destination)[1]
    if mode == "side":
        assert (both == np.concatenate((plain, after), axis=2)).all()
    else:
        middle = width // 2
        assert (both[:, :, : middle - 1] == plain[:, :, : middle - 1]).all()
        assert (both[:, :, middle - 1 : middle + 1] == 255).all()
        assert (both[:, :, middle + 1 :] == after[:, :, middle + 1 :]).all()
    assert probe(comparison_path(destination)).audio_streams


def test_comparison_is_checked_before_any_work(write_video, upscaler, tmp_path):
    source = write_video(lengths=(3,))
    with pytest.raises(VideoError, match="one of side, split, got 'over'"):
        upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, compare="over", **OPTIONS)
    (tmp_path / "o.compare.mkv").write_bytes(b"precious")
    with pytest.raises(VideoError, match=r"o.compare.mkv' exists already"):
        upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, compare="side", **OPTIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "o.compare.mkv"]


def test_files_that_do_not_belong_together_are_not_compared(write_video, tmp_path):
    short, long = write_video("a.mkv", (3,)), write_video("b.mkv", (5,))
    with pytest.raises(VideoError, match="source ends after 3 frames"):
        compare_files(short, long, tmp_path / "c.mkv", codec="ffv1")
    with pytest.raises(VideoError, match="result ends after 3 frames"):
        compare_files(long, short, tmp_path / "c.mkv", codec="ffv1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mkv", "b.mkv"]


def test_partial_file_plays_and_the_run_goes_on(write_video, read_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(22,)), tmp_path / "o.mkv"
    upscale_file(source, tmp_path / "whole.mkv", upscaler=upscaler, **OPTIONS)
    interrupt(source, destination, upscaler, 13)
    before = sorted(p.name for p in journal_path(destination).iterdir())
    report = export_partial(destination, tmp_path / "part.mkv")
    assert (report.frames, report.num_segments, report.num_waiting) == (12, 3, 0)
    frames, times = read_video(tmp_path / "part.mkv")
    whole, whole_times = read_video(tmp_path / "whole.mkv")
    assert (frames == whole[:12]).all()
    assert times == whole_times[:12]
    assert sound_of(tmp_path / "part.mkv")[-1][0] < whole_times[12]
    assert sorted(p.name for p in journal_path(destination).iterdir()) == before
    assert report.muxed.dropped == ()
    away = source.rename(tmp_path / "away")
    report = export_partial(destination, tmp_path / "mute.mkv")
    assert "cannot be read any more" in report.muxed.dropped[0]
    assert (read_video(tmp_path / "mute.mkv")[0] == frames).all()
    source.write_bytes(b"no film")
    report = export_partial(destination, tmp_path / "mute.mkv", overwrite=True)
    assert "is not a video that FFmpeg can read" in report.muxed.dropped[0]
    assert (read_video(tmp_path / "mute.mkv")[0] == frames).all()
    away.rename(source)
    again = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert again.num_resumed_segments == 3


def test_partial_file_of_nothing_is_a_sentence(write_video, upscaler, tmp_path):
    with pytest.raises(VideoError, match="holds no unfinished run"):
        export_partial(tmp_path / "o.mkv", tmp_path / "part.mkv")
    source, destination = write_video(lengths=(9,)), tmp_path / "o.mkv"
    interrupt(source, destination, upscaler, 5)
    (journal_path(destination) / "segments.jsonl").unlink()
    with pytest.raises(VideoError, match=r"no segment of .* is finished yet"):
        export_partial(journal_path(destination), tmp_path / "part.mkv")
    with pytest.raises(VideoError, match="must end in one of"):
        export_partial(destination, tmp_path / "part.avi")
    with pytest.raises(VideoError, match="is the input itself"):
        export_partial(destination, source, overwrite=True)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_file_says_how_it_was_made(write_video, upscaler, tmp_path, suffix):
    source = write_video(lengths=(3,))
    options = {"scale": 2, "codec": "h264", "preset": "ultrafast"}
    for name in ("a", "b"):
        upscale_file(source, tmp_path / f"{name}.{suffix}", upscaler=upscaler, **options)
    upscale_file(source, tmp_path / f"none.{suffix}", upscaler=upscaler, metadata=False, **options)

    def comment_of(name):
        with av.open(str(tmp_path / f"{name}.{suffix}")) as container:
            return {k.lower(): v for k, v in container.metadata.items()}.get("comment")

    assert comment_of("none") is None
    kind, _, facts = comment_of("a").partition(" ")
    assert kind == "OASIS"
    facts = json.loads(facts)
    assert facts["model"]["hash"] == upscaler.model_hash
    assert facts["settings"]["strength"] == 1.0
    assert facts["encoding"]["codec"] == "h264"
    assert str(tmp_path) not in comment_of("a")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_progress_moves_inside_a_tile_and_never_back(write_video, upscaler, tmp_path):
    from torch import nn

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = upscaler.model.config
            self.blocks = nn.ModuleList([nn.Identity() for _ in range(10)])

        def forward(self, video):
            for block in self.blocks:
                video = block(video)
            return torch.zeros_like(video)

    calls = []
    model = Blocks()
    report = upscale_file(
        write_video(lengths=(8,)),
        tmp_path / "o.mkv",
        upscaler=VideoUpscaler(model, device="cpu", dtype="float32"),
        on_progress=lambda done, total: calls.append((done, total)),
        scale=2,
        codec="ffv1",
        shots=False,
        segment_frames=8,
    )
    done = [d for d, _ in calls]
    assert report.num_segments == 1
    assert done == sorted(done)
    assert len(set(done)) >= 18  # ten blocks and eight frames
    assert calls[-1] == (8, 8)
    assert not any(block._forward_hooks for block in model.blocks)
