import av
import pytest

from oasis_core.evaluation.clips import EvaluationError
from oasis_core.training.log import LOG_NAME, read_log
from oasis_core.training.loop import train


def test_a_run_leaves_log_samples_and_plot_and_resumes_the_log(
    footage, tmp_path, configuration, stop_after
):
    pytest.importorskip("matplotlib")
    config = configuration(
        footage,
        tmp_path / "run",
        validation_dirs=(str(footage / "clip.mkv"),),
        validation_px=64,
        validate_every=3,
        sample_every=3,
        save_every=3,
    )
    with pytest.raises(KeyboardInterrupt):
        train(config, stop_after(4))
    rows = read_log(tmp_path / "run" / LOG_NAME)
    assert [row["step"] for row in rows] == ["3"]
    train(config)
    rows = read_log(tmp_path / "run" / LOG_NAME)
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    assert [row["stage"] for row in rows] == ["one", "one", "two"]
    assert all(float(row["gain_light_db"]) != 0 for row in rows)
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step_0000003.png", "step_0000006.png", "step_0000009.png"]
    with av.open(str(tmp_path / "run" / "samples" / names[0])) as container:
        picture = next(container.decode(video=0))
    assert (picture.width, picture.height) == (3 * 64 + 2 * 4, 2 * 64)
    assert (tmp_path / "run" / "training.png").read_bytes()[:4] == b"\x89PNG"


def test_tensorboard_gets_the_same_readings(footage, tmp_path, configuration):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(configuration(footage, tmp_path, tensorboard=True))
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [float(row["loss"]) for row in read_log(tmp_path / LOG_NAME)]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


def test_small_validation_clips_are_one_sentence(footage, tmp_path, configuration):
    config = configuration(
        footage, tmp_path, validation_dirs=(str(footage / "clip.mkv"),), validate_every=1
    )
    with pytest.raises(EvaluationError, match="must be at least 256x256 px, got 96x80"):
        train(config)
