"""A dry run: what it says is what the run then does, and it writes nothing."""

from pathlib import Path

import pytest

from oasis_core.upscale import (
    JournalError,
    VideoUpscaler,
    forecast_file,
    journal_path,
    upscale_file,
)


@pytest.fixture
def upscaler(point_model):
    return VideoUpscaler(point_model, device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv", "o_%d.png"])
@pytest.mark.parametrize("piece", [{}, {"start_s": 0.1, "duration_s": 0.1}])
def test_the_run_does_what_was_forecast(write_video, upscaler, tmp_path, name, piece):
    source, target = write_video(lengths=(9,)), tmp_path / name
    options = {"upscaler": upscaler, "scale": 2, "strength": 0, **piece}
    before = sorted(tmp_path.rglob("*"))
    forecast = forecast_file(source, target, **options)
    assert sorted(tmp_path.rglob("*")) == before
    report = upscale_file(source, target, **options)
    assert forecast.frames == report.frames
    assert (forecast.width, forecast.height) == (report.width, report.height)
    assert (forecast.kept, forecast.dropped) == (report.kept, report.dropped)
    assert forecast.plan.segment_frames == report.plan.segment_frames


def test_an_unfinished_run_is_forecast_too(write_video, upscaler, tmp_path):
    source, target = write_video(lengths=(9,)), tmp_path / "o.mkv"
    options = {"upscaler": upscaler, "scale": 1, "segment_frames": 3}

    def stop(done, total):
        assert total == 9
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_file(source, target, on_progress=stop, **options)
    forecast = forecast_file(source, target, **options)
    assert forecast.done_frames in (3, 6)
    assert forecast.done_segments == forecast.done_frames // 3
    assert forecast.to_json()["dry_run"] is True
    with pytest.raises(JournalError, match=r"setting strength was 1.0 and is 0.5"):
        forecast_file(source, target, strength=0.5, **options)
    assert forecast_file(source, target, strength=0.5, fresh=True, **options).done_segments == 0
    assert journal_path(Path(target)).is_dir()


def test_progress_ends_at_the_exact_number(write_video, upscaler, tmp_path):
    said = []
    upscale_file(
        write_video(lengths=(9,)), tmp_path / "o.mkv", upscaler=upscaler, scale=1, strength=0,
        duration_s=0.21, on_progress=lambda done, total: said.append((done, total)),
    )  # fmt: skip
    assert {total for _, total in said} == {said[-1][0]}
