"""The temporary folder keeps the last few results; settings whose result is gone run again."""

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "nodes" / "_results.py"


@pytest.fixture
def shelf():
    # By its path: the package imports ComfyUI.
    spec = importlib.util.spec_from_file_location("results_of_nodes", SOURCE)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.ResultShelf()


def put(shelf, folder, number, prompt=None, kept=3):
    path = folder / f"{number}.mp4"
    for file in (path, path.with_suffix(".json")):
        file.write_text("x")
    values = {"strength": number, "model": object()}
    prompt = str(number) if prompt is None else prompt
    shelf.put(path, values, prompt=prompt, num_kept=kept, beside=(path.with_suffix(".json"),))
    return path


def test_the_last_few_stay_and_older_ones_go_with_what_belongs_to_them(shelf, tmp_path):
    for number in range(10):
        put(shelf, tmp_path, number)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(f"{n}.{end}" for n in (6, 7, 8, 9) for end in ("mp4", "json"))


def test_a_prompt_keeps_all_it_made(shelf, tmp_path):
    for number in range(10):
        put(shelf, tmp_path, number, prompt="batch", kept=0)
    assert len(list(tmp_path.glob("*.mp4"))) == 10
    put(shelf, tmp_path, 10, prompt="next", kept=0)
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["10.mp4"]


def test_only_what_was_removed_runs_again(shelf, tmp_path):
    for number in range(6):
        put(shelf, tmp_path, number)
    lost = [shelf.num_lost({"strength": number, "model": None}) for number in range(6)]
    assert lost == [1, 1, 0, 0, 0, 0]
    # A linked number is not known yet: better once too often.
    assert shelf.num_lost({"strength": None, "model": None}) == 2


def test_a_result_that_is_used_again_is_new_again(shelf, tmp_path):
    paths = [put(shelf, tmp_path, number) for number in range(4)]
    put(shelf, tmp_path, 0)
    put(shelf, tmp_path, 9)
    assert paths[0].is_file()
    assert not paths[1].is_file()


def test_what_was_moved_away_is_left_alone(shelf, tmp_path):
    path = put(shelf, tmp_path, 0)
    shelf.forget(path)
    for number in range(1, 9):
        put(shelf, tmp_path, number)
    assert path.is_file()
