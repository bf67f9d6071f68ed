"""Lists of films from the shell: CSV, JSON lines, patterns; results and --retry-failed."""

import json
from argparse import Namespace
from types import SimpleNamespace

import av
import numpy as np
import pytest

from oasis_core import cli
from oasis_core.commands._many import run_many

QUICK = ("--scale", "1", "--strength", "0", "--device", "cpu", "--dtype", "float32")


def write_clip(path):
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        for value in range(3):
            pixels = np.full((24, 32, 3), 60 * value, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def films(tmp_path):
    for name in ("a/film.mp4", "b/film.mp4", "c.mkv"):
        write_clip(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def _make_folders(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "b").mkdir()


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_failure_of_a_list_is_kept_and_retried_alone(films, tmp_path, capsys, monkeypatch):
    films.joinpath("list.csv").write_text(
        "source,destination\na/film.mp4,\nb/film.mp4,sub/second.mkv\nlate.mp4,\n"
    )
    out = tmp_path / "out"
    command = ("upscale", films / "list.csv", out, *QUICK)
    assert run(*command) == 1
    captured = capsys.readouterr()
    assert "2 done, 0 there already, 1 failed" in captured.out
    assert "late.mp4' does not exist" in captured.err
    assert names(out) == ["film.mp4", "oasis-results.jsonl", "sub/second.mkv"]
    assert run("status", out) == 0
    assert "2 done, 1 failed" in capsys.readouterr().out

    write_clip(films / "late.mp4")
    monkeypatch.chdir(tmp_path)  # named otherwise, from another place: the same film
    command = ("upscale", films / "list.csv", f"./{out.name}/../{out.name}/", *QUICK)
    (out / "film.mp4").unlink()  # not a failure, so not done again
    assert run(*command, "--retry-failed", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["frames"] for row in result["done"]] == [3]
    assert names(out) == ["late.mp4", "oasis-results.jsonl", "sub/second.mkv"]
    assert run("status", out, "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["done"], status["failed"]) == (3, [])


def test_patterns_and_json_lines(films, tmp_path, capsys):
    assert run("upscale", films / "**" / "*.mp4", tmp_path / "out", *QUICK) == 0
    assert names(tmp_path / "out") == ["film.mp4", "film.mp4.mp4", "oasis-results.jsonl"]
    rows = [json.dumps("c.mkv"), "", json.dumps({"source": "a/film.mp4", "destination": "x.mp4"})]
    films.joinpath("list.jsonl").write_text("\n".join(rows))
    assert run("upscale", films / "list.jsonl", tmp_path / "two", *QUICK) == 0
    assert names(tmp_path / "two") == ["c.mkv", "oasis-results.jsonl", "x.mp4"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "", "names no film"),
        ("l.csv", "source,destination\n,x.mp4\n", "line 2 must name a source"),
        ("l.jsonl", '{"source": "a"', "line 1 is not JSON"),
        ("l.jsonl", "[1]", "line 1 must be an object or a path"),
        ("l.jsonl", '{"source": "c.mkv", "destination": 3}', "destination must be a path"),
        ("l.csv", "source,destination\nc.mkv,x.mkv\na.mkv,x.mkv\n", "destination of its own"),
        ("l.csv", "source,destination\nc.mkv,../in/c.mkv\n", "is the source itself"),
    ],
)
def test_lists_that_make_no_sense(films, tmp_path, capsys, name, text, message):
    films.joinpath(name).write_text(text)
    assert run("upscale", films / name, tmp_path / "out", *QUICK) == 1
    assert message in capsys.readouterr().err


def test_what_cannot_be_found(tmp_path, capsys):
    assert run("upscale", tmp_path / "*.mp4", tmp_path / "out", *QUICK) == 1
    assert "matches no file" in capsys.readouterr().err
    assert run("upscale", tmp_path / "no.csv", tmp_path / "out", *QUICK) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert run("status", tmp_path / "nothing.mp4") == 1
    assert "does not exist" in capsys.readouterr().err


def test_retry_needs_results(films, tmp_path, capsys):
    words = ("upscale", films / "a/film.mp4", films / "c.mkv", tmp_path / "out")
    assert run(*words, *QUICK, "--retry-failed") == 1
    assert "needs the results of an earlier run" in capsys.readouterr().err


def test_a_film_that_memory_does_not_suffice_for_does_not_end_the_others(tmp_path, capsys):
    def do(source, destination, on_progress):
        if source.name == "large.mp4":
            raise MemoryError
        return SimpleNamespace(frames=1, to_json=lambda: {"destination": str(destination)})

    pairs = [(tmp_path / name, tmp_path / "out" / name) for name in ("large.mp4", "small.mp4")]
    (tmp_path / "out").mkdir()
    arguments = Namespace(
        destination=tmp_path / "out", sources=[tmp_path], retry_failed=False, overwrite=False,
        json=True, dry_run=False,
    )  # fmt: skip
    code = run_many(arguments, do, pairs, num_at_once=1, stop=lambda: None, summary=str)
    said = json.loads(capsys.readouterr().out)
    assert code == 1
    assert [row["error"] for row in said["failed"]] == ["MemoryError"]
    assert [row["destination"] for row in said["done"]] == [str(pairs[1][1])]
