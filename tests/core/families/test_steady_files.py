"""Flicker taken out, from file to file."""

import av
import numpy as np
import pytest
from films import write_film

from oasis_core.upscale import VideoUpscaler, forecast_file, upscale_file


def read_film(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def noisy(num_frames, seed=0):
    """Pictures of one still scene, each with noise of its own."""
    generator = np.random.default_rng(seed)
    scene = np.kron(generator.integers(40, 216, (6, 8, 3)), np.ones((4, 4, 1)))
    return [
        (scene + generator.normal(0, 6, scene.shape)).clip(0, 255).astype(np.uint8)
        for _ in range(num_frames)
    ]


@pytest.fixture
def upscaler(native):
    return VideoUpscaler(native(), device="cpu", dtype="float32")


OPTIONS = {"scale": 4, "codec": "ffv1", "segment_frames": 4}


def test_steady_takes_flicker_out_and_off_changes_no_byte(upscaler, tmp_path):
    source = write_film(tmp_path / "in.mkv", noisy(20))
    results = {}
    for name, asked in (("plain", {}), ("off", {"steady": 0.0}), ("steady", {"steady": 1.0})):
        upscale_file(source, tmp_path / f"{name}.mkv", upscaler=upscaler, **OPTIONS, **asked)
        results[name] = read_film(tmp_path / f"{name}.mkv")
    assert (results["plain"] == results["off"]).all()
    inner = slice(7, 13)
    before, after = (results[name][inner].astype(float).std(0).mean() for name in ("off", "steady"))
    assert after < before / 3


def test_a_steady_run_goes_on_where_it_was_stopped(upscaler, tmp_path):
    source = write_film(tmp_path / "in.mkv", noisy(14))
    options = {**OPTIONS, "steady": 1.0}
    upscale_file(source, tmp_path / "whole.mkv", upscaler=upscaler, **options)

    def stop(done, total):
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, on_progress=stop, **options)
    report = upscale_file(source, tmp_path / "o.mkv", upscaler=upscaler, **options)
    assert report.num_resumed_segments
    assert (read_film(tmp_path / "o.mkv") == read_film(tmp_path / "whole.mkv")).all()


def test_steady_does_not_depend_on_where_segments_end(upscaler, tmp_path):
    source = write_film(tmp_path / "in.mkv", noisy(19))
    for name, length in (("a", 5), ("b", 40)):
        options = {**OPTIONS, "segment_frames": length, "steady": 1.0}
        upscale_file(source, tmp_path / f"{name}.mkv", upscaler=upscaler, **options)
    assert (read_film(tmp_path / "a.mkv") == read_film(tmp_path / "b.mkv")).all()


def test_one_frame_is_what_it_would_be_without(upscaler, tmp_path):
    source = write_film(tmp_path / "in.mkv", noisy(1))
    for name, steady in (("a", 0.0), ("b", 1.0)):
        upscale_file(source, tmp_path / f"{name}.mkv", upscaler=upscaler, steady=steady, **OPTIONS)
    apart = read_film(tmp_path / "a.mkv").astype(int) - read_film(tmp_path / "b.mkv")
    assert abs(apart).max() <= 1  # pictures wait for their neighbours in 16 bits


@pytest.mark.parametrize("steady", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(upscaler, tmp_path, steady):
    source = write_film(tmp_path / "in.mkv", noisy(2))
    with pytest.raises(ValueError, match="steady must be between 0 and 1, got"):
        forecast_file(source, tmp_path / "o.mkv", upscaler=upscaler, scale=4, steady=steady)
