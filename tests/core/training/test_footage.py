import pytest

from oasis_core.training.config import TrainingError
from oasis_core.training.footage import load_sources
from oasis_core.training.loop import train


@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_unusable_footage_is_one_sentence(tmp_path, content, configuration):
    folder = tmp_path / "data"
    folder.mkdir()
    if content:
        (folder / "bad.png").write_bytes(content)
    with pytest.raises(TrainingError, match=r"no usable clip|unreadable"):
        train(configuration(folder, tmp_path / "out"))


@pytest.mark.parametrize(
    ("frames", "side", "message"),
    [(7, 64, "too small for samples of 64 px and 7 frames"), (3, 160, "160 px and 3 frames")],
)
def test_clips_shorter_or_smaller_than_a_sample_are_counted(footage, frames, side, message):
    with pytest.raises(TrainingError, match=message):
        load_sources((str(footage / "only_video"),), side, frames)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"the folder .*none', which does not exist"):
        load_sources((str(tmp_path / "none"),), 64, 3)


def test_few_unreadable_files_are_skipped_and_many_stop(footage, tmp_path, caplog):
    data = (footage / "still.png").read_bytes()
    for index in range(100):
        (tmp_path / f"{index}.png").write_bytes(data)
    (tmp_path / "bad1.png").write_bytes(b"no picture")
    assert len(load_sources((str(tmp_path),), 64, 3).stills) == 100
    assert "bad1.png was skipped" in caplog.text
    assert "1 of 101 training files were skipped (1 unreadable, 0 too small)" in caplog.text
    (tmp_path / "bad2.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"at most 1% .* 2 of 102 are"):
        load_sources((str(tmp_path),), 64, 3)
