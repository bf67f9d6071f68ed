"""Whole runs over films that change: refused, stopped with a finished part, continued, fitted."""

import shlex

import av
import numpy as np
import pytest
from changing_films import in_one_index, joined

from oasis_core.cli import main
from oasis_core.upscale import VideoUpscaler, forecast_file, journal_path, upscale_file
from oasis_core.video import ChangeError, VideoReader

OPTIONS = {"scale": 2, "codec": "ffv1", "segment_frames": 4}


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, device="cpu", dtype="float32")


def raw(path, size, num_frames=6):
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=25, options={"bf": "0", "crf": "12"})
        film.width, film.height, film.pix_fmt = *size, "yuv420p"
        for index in range(num_frames):
            pixels = np.full((size[1], size[0], 3), 40 + 20 * index, np.uint8)
            pixels[: size[1] // 2] //= 2
            container.mux(film.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(film.encode(None))
    return path


@pytest.fixture
def parts(tmp_path):
    return [raw(tmp_path / f"{i}.h264", size) for i, size in enumerate(((48, 32), (64, 32)))]


def pixels_of(path):
    with VideoReader(path) as reader:
        return [frame.pixels for frame in reader]


def test_what_can_be_told_is_refused_before_the_work(parts, upscaler, tmp_path):
    path, result = joined(tmp_path / "both.h264", *parts), tmp_path / "o.mkv"
    for run in (upscale_file, forecast_file):
        with pytest.raises(ChangeError, match=r"from 48x32 to 64x32 at frame 6 .*--start 0.240"):
            run(path, result, upscaler=upscaler, **OPTIONS)
    assert not result.exists()
    assert not journal_path(result).exists()
    report = upscale_file(path, result, upscaler=upscaler, on_change="scale", **OPTIONS)
    assert (report.frames, report.num_shots >= 2) == (12, True)
    assert {p.shape for p in pixels_of(result)} == {(64, 96, 3)}


@pytest.mark.parametrize("shots", [True, False])
def test_a_run_that_meets_a_change_is_kept_and_continued(parts, upscaler, tmp_path, shots):
    path = in_one_index(tmp_path / "both.mp4", *parts)
    options = OPTIONS | {"shots": shots}
    whole, result = tmp_path / "whole.mkv", tmp_path / "o p.mkv"
    upscale_file(path, whole, upscaler=upscaler, on_change="scale", **options)
    with pytest.raises(ChangeError, match="the 6 frames before it are done") as caught:
        upscale_file(path, result, upscaler=upscaler, **options)
    assert not result.exists()
    done, rest = (shlex.split(text)[1:] for text in str(caught.value).split("`")[1::2])
    assert main(done) == 0
    assert main([*rest, "--scale", "2", "--codec", "ffv1", "--strength", "0"]) == 0
    first, second = (pixels_of(tmp_path / f"o p.part{n}.mkv") for n in (1, 2))
    assert [len(first), len(second)] == [6, 6]
    assert second[0].shape == (64, 128, 3)
    report = upscale_file(path, result, upscaler=upscaler, on_change="scale", **options)
    assert report.num_resumed_segments == 2
    together, alone = pixels_of(result), pixels_of(whole)
    assert all((a == b).all() for a, b in zip(together, alone, strict=True))
    assert all((a == b).all() for a, b in zip(together, first, strict=False))


def test_a_comparison_shows_what_was_fitted(parts, upscaler, tmp_path):
    path = joined(tmp_path / "both.h264", *parts)
    upscale_file(
        path, tmp_path / "o.mkv", upscaler=upscaler, on_change="scale", compare="side", **OPTIONS
    )
    assert len(pixels_of(tmp_path / "o.compare.mkv")) == 12


def test_the_choice_is_one_of_two(parts, upscaler, tmp_path):
    with pytest.raises(ValueError, match="on_change must be one of stop, scale, got 'go'"):
        upscale_file(parts[0], tmp_path / "o.mkv", upscaler=upscaler, on_change="go", **OPTIONS)


def test_grain_of_a_film_that_is_fitted_is_measured_all_the_same(upscaler, tmp_path):
    """Places to measure lie behind the change, too."""
    parts = [raw(tmp_path / f"{i}.h264", size) for i, size in enumerate(((80, 64), (96, 64)))]
    path = joined(tmp_path / "both.h264", *parts)
    options = {**OPTIONS, "on_change": "scale", "grain": "auto"}
    report = upscale_file(path, tmp_path / "o.mkv", upscaler=upscaler, **options)
    assert report.frames == 12
