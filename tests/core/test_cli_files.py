"""The shell's file handling: batches, stills, previews, partial files, kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_core import cli
from oasis_core.commands._shared import Progress, parse_time
from oasis_core.video import probe

ROOT = Path(__file__).parents[2]
EXACT = ("--scale", "1", "--dtype", "float32")  # no probe of what is fastest
QUICK = (*EXACT, "--strength", "0", "--preset", "ultrafast")


def write_clip(path, num_frames=5, width=32, height=24, rate=25, codec="libx264"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            pixels = np.full((height, width, 3), 40 + 3 * index, np.uint8)
            pixels[:, index % width] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_png(path, value=90):
    from oasis_core.video.image_writer import ImageEncoder, ImageSpec

    encoder = ImageEncoder(ImageSpec(suffix=".png", width=32, height=24))
    path.write_bytes(encoder.encode(np.full((24, 32, 3), value, np.uint8)))
    return path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    for name in ("b10.mp4", "b2.mkv", "c.avi", "c.mkv"):
        write_clip(path / name)
    (path / "broken.mp4").write_bytes((path / "b10.mp4").read_bytes()[:700])
    (path / "notes.txt").write_text("mine")
    return path


def test_a_folder_of_videos_goes_to_a_folder(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("upscale", folder, out, *QUICK) == 1
    captured = capsys.readouterr()
    assert "4 done, 0 there already, 1 failed" in captured.out
    assert "broken.mp4" in captured.err.splitlines()[-1]
    names = ["b10.mp4", "b2.mkv", "c.avi.mkv", "c.mkv"]
    found = sorted(p.name for p in out.iterdir() if p.name != "oasis-results.jsonl")
    assert found in (names, sorted(["b10.mp4", "b2.mkv", "c.mkv", "c.mkv.mkv"]))
    times = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    (folder / "broken.mp4").unlink()
    assert run("upscale", folder, out, "--json", *QUICK) == 0
    result = json.loads(capsys.readouterr().out)
    assert (len(result["done"]), len(result["skipped"]), result["failed"]) == (0, 4, [])
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == times


def test_several_files_need_a_folder(folder, tmp_path, capsys):
    a, b = folder / "b10.mp4", folder / "b2.mkv"
    assert run("upscale", a, b, tmp_path / "o.mp4", *QUICK) == 1
    assert "2 sources need a folder as destination" in capsys.readouterr().err
    assert run("upscale", a, folder / "none.mp4", tmp_path / "out", *QUICK) == 1
    assert "none.mp4' does not exist" in capsys.readouterr().err
    assert run("upscale", folder, folder, *QUICK) == 1
    assert "is the folder of the sources" in capsys.readouterr().err
    assert run("upscale", a, b, tmp_path / "out", *QUICK) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b10.mp4", "b2.mkv"]


def test_a_batch_continues_what_was_interrupted(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b10.mp4.oasis").mkdir()
    (out / "b10.mp4").write_bytes(b"precious")  # beside a journal, but not its result
    assert run("upscale", folder / "b10.mp4", folder / "b2.mkv", out, *QUICK) == 1
    assert "exists already; give --overwrite" in capsys.readouterr().err
    assert (out / "b10.mp4").read_bytes() == b"precious"


def test_stills_and_films_of_pictures(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2, 10):
        write_png(folder / f"p{number}.png", 20 * number)
    plain = QUICK[:6]
    assert run("upscale", folder, tmp_path / "film.mp4", *QUICK, "--fps", 24) == 0
    assert probe(tmp_path / "film.mp4").num_frames == 3
    assert run("upscale", folder, tmp_path / "out", "--stills", "--json", *plain) == 0
    reports = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))["done"]
    assert [report["frames"] for report in reports] == [1, 1, 1]
    write_clip(folder / "film.mp4")
    assert run("upscale", folder, tmp_path / "both", *plain) == 1
    assert "use --stills to do each by itself" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_preview_comes_from_the_middle_with_a_comparison(tmp_path, capsys):
    source = write_clip(tmp_path / "in.mp4", num_frames=60)
    assert run("upscale", source, tmp_path / "o.mp4", *QUICK, "--preview", "0.4s") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "in.mp4", "o.preview.compare.mp4", "o.preview.mp4",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert f"comparison, left the plain resize: {tmp_path / 'o.preview.compare.mp4'}\n" in said
    assert probe(tmp_path / "o.preview.mp4").num_frames == 10
    assert probe(tmp_path / "o.preview.compare.mp4").width == 64
    with av.open(str(tmp_path / "o.preview.mp4")) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert abs(int(np.median(first)) - (40 + 3 * 25)) <= 3
    assert run("upscale", source, tmp_path / "p.mp4", *QUICK, "--preview", "--preview-at", "2") == 0
    assert probe(tmp_path / "p.preview.mp4").num_frames == 10
    capsys.readouterr()
    assert run("upscale", source, tmp_path / "q.mp4", *QUICK, "--preview-at", "2") == 1
    assert "--preview-at needs --preview" in capsys.readouterr().err
    assert run("compare", source, source, tmp_path / "c.mp4", "--mode", "split") == 0
    assert probe(tmp_path / "c.mp4").num_frames == 60


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3), ("3s", 3), ("500ms", 0.5), ("1:02:03.5", 3723.5), ("2min", 120)]
)
def test_times_are_read(text, seconds):
    assert parse_time(text) == seconds


def test_what_cannot_be_a_time_is_bad_usage(tmp_path):
    with pytest.raises(SystemExit) as stop:
        run("upscale", "--preview", "in.mp4", "o.mp4", "p.mp4")
    assert stop.value.code == 2


def test_codecs_are_explained(tmp_path, capsys):
    source = write_clip(tmp_path / "in.mp4")
    cases = [
        (("--codec", "prores"), "o.mp4", "cannot hold prores, which needs MOV or Matroska"),
        (("--codec", "av1"), "o.mov", "cannot hold av1, which needs MP4 or Matroska"),
        (("--codec", "ffv1", "--crf", "3"), "o.mkv", "crf means nothing to ffv1"),
        (("--codec", "prores", "--preset", "fast"), "o.mov", "one of proxy, lt, standard, hq"),
        (("--pix-fmt", "yuv999"), "o.mp4", "pix_fmt must be a pixel format of FFmpeg"),
        (("--pix-fmt", "gbrp12le"), "o.mp4", "libx264 cannot write gbrp12le"),
        (("--quality", "80"), "o.mp4", "quality is for pictures"),
        (("--codec", "h264_vaapi"), "o.mp4", "cannot put there; use h264_qsv on Intel"),
        (("--start", "99"), "o.mp4", "must begin before the last frame"),
    ]
    for options, name, text in cases:
        assert run("upscale", source, tmp_path / name, *EXACT, *options) == 1
        error = capsys.readouterr().err
        assert text in error
        assert len([line for line in error.splitlines() if line.startswith("oasis: ")]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_hardware_codec_without_its_hardware_is_one_sentence(tmp_path, capsys):
    source = write_clip(tmp_path / "in.mp4")
    code = run("upscale", source, tmp_path / "o.mp4", *EXACT, "--codec", "h264_qsv")
    if code == 0:
        pytest.skip("this machine has the hardware")
    error = capsys.readouterr().err.splitlines()[-1]
    assert "it needs an Intel GPU" in error or "has no h264_qsv encoder" in error


# Runs `oasis` and sends itself a signal (its number, and whether the signal is ignored from the
# start, come first) as soon as the first segment is on the disk, so at the same moment every time.
SIGNALS_ITSELF = """
import os, signal, sys
from oasis_core import cli
from oasis_core.upscale.journal import Journal
number, is_ignored = int(sys.argv[1]), sys.argv[2] == "ignored"
signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
record = Journal.record
def record_and_signal(*arguments):
    record(*arguments)
    if len(arguments[0].records) == 1:
        os.kill(os.getpid(), number)
Journal.record = record_and_signal
sys.exit(cli.main(sys.argv[3:]))
"""


def run_signalled(name, is_ignored, *arguments):
    words = [str(int(getattr(signal, name))), "ignored" if is_ignored else "heeded", *arguments]
    return subprocess.run(
        [sys.executable, "-c", SIGNALS_ITSELF, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_a_run_that_goes_on(tmp_path, name):
    source = write_clip(tmp_path / "in.mp4", num_frames=24)
    target = tmp_path / "o.mkv"
    arguments = ["upscale", str(source), str(target), *EXACT, "--segment", "1", "--codec", "ffv1"]
    stopped = run_signalled(name, False, *arguments)
    assert stopped.returncode == 130, stopped.stderr
    assert f"the same command continues: oasis upscale {source} {target}" in stopped.stderr
    assert run("export-partial", target, tmp_path / "part.mkv") == 0
    assert probe(tmp_path / "part.mkv").width == 32
    assert run(*arguments) == 0
    assert not (tmp_path / "o.mkv.oasis").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_nohup_outlives_the_terminal(tmp_path):
    source, target = write_clip(tmp_path / "in.mp4", num_frames=24), tmp_path / "o.mkv"
    arguments = ["upscale", str(source), str(target), *EXACT, "--segment", "1", "--codec", "ffv1"]
    finished = run_signalled("SIGHUP", True, *arguments)
    assert finished.returncode == 0, finished.stderr
    assert target.exists()


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([(0.1 * i, 1) for i in range(11)], ["1/1"]),
        ([(0.25 * i, 7) for i in range(29)], [f"{i}/7" for i in range(1, 8)]),
        ([(i, 100) for i in range(101)], [f"{i}/100" for i in range(10, 101, 10)]),
    ],
)
def test_progress_lines_count_finished_frames_and_none_twice(capsys, reports, expected):
    progress = Progress("frame")
    for done, total in reports:
        progress(done, total)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" frames,")[0] for line in lines] == expected


def test_time_left_counts_neither_loading_nor_what_an_earlier_run_did(capsys):
    now = [0.0]
    progress = Progress("frame", clock=lambda: now[0])
    progress.stage("load", 0, 0)
    now[0] = 100.0
    progress(40, 100)  # taken over
    progress.stage("motion", 1, 8)
    now[0] = 110.0
    progress(45, 100)  # 5 frames in 10 s
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "45/100 frames, 0.50 frames/s, 2 min left"


def test_a_long_film_is_heard_of_before_its_first_tenth(capsys):
    now = [0.0]
    progress = Progress("frame", clock=lambda: now[0])
    progress.stage("model", 0, 0)
    for second in range(1, 1000):
        now[0] = float(second)
        progress(second, 100_000)
    lines = capsys.readouterr().err.splitlines()
    done = [int(line.split("/")[0]) for line in lines]
    assert done == [10, 310, 610, 910]
    assert lines[0].endswith("1.00 frames/s, 28 h left")


def test_the_first_line_says_what_is_done(tmp_path, capsys):
    clip = write_clip(tmp_path / "a.mp4", num_frames=3)
    assert run("upscale", clip, tmp_path / "o.mp4", *QUICK) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "a.mp4: 3 frames, 32x24 to 32x24, oasis-tiny on cpu" in lines
    assert not any("segments of" in line for line in lines)


def test_a_rate_is_for_pictures_and_must_be_a_number(tmp_path, capsys):
    clip, picture, out = write_clip(tmp_path / "a.mp4"), write_png(tmp_path / "p.png"), tmp_path
    for source, rate, said in (
        (clip, "24", "fps is for pictures"),
        (picture, "1/0", "fps must be a number"),
        (picture, "fast", "fps must be a number"),
    ):
        assert run("upscale", source, out / "o.mp4", *QUICK, "--fps", rate) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()


def test_a_comparison_of_a_piece_counts_in_the_pictures_rate(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(4):
        write_png(folder / f"{index}.png", value=40 * index)
    piece = ("--fps", 2, "--start", 1, "--duration", 1, "--compare")
    assert run("upscale", folder, tmp_path / "o.mp4", *QUICK, *piece) == 0
    with av.open(str(tmp_path / "o.compare.mp4")) as container:
        means = [frame.to_ndarray(format="gray")[:, :32].mean() for frame in container.decode()]
    assert len(means) == 2
    assert means == pytest.approx([80, 120], abs=20)


def test_a_preview_of_pictures_into_pictures_has_its_comparison(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        write_png(folder / f"{index}.png")
    plain = (*EXACT, "--strength", "0", "--preview")
    assert run("upscale", folder, tmp_path / "o_%d.png", *plain) == 0
    assert run("upscale", folder, tmp_path / "out", *plain) == 0
    assert sorted(p.name for p in (tmp_path / "out_preview").iterdir()) == [
        "0.png", "1.png", "2.png",
    ]  # fmt: skip
    assert len(list((tmp_path / "out_preview.compare").iterdir())) == 3
    assert len(list(tmp_path.glob("o_?.preview.png"))) == 3
    assert len(list(tmp_path.glob("o_?.preview.compare.png"))) == 3
    picture = tmp_path / "o_1.preview.compare.png"
    assert probe(picture).width == 2 * probe(folder / "0.png").width
    (tmp_path / "out_preview" / "0.png").unlink()
    assert run("upscale", folder, tmp_path / "o_%d.png", *plain) == 1  # nothing is replaced


def test_a_dry_run_says_what_would_be_kept_and_writes_nothing(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("upscale", folder, out, *QUICK, "--dry-run", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [Path(item["destination"]).name for item in found["would_be_done"]] == [
        "b2.mkv", "b10.mp4", "c.mkv", "c.mkv.mkv",
    ]  # fmt: skip
    assert [item["frames"] for item in found["would_be_done"]] == [5, 5, 5, 5]
    assert "broken.mp4" in found["failed"][0]["source"]
    before = sorted(path.name for path in tmp_path.rglob("*"))
    command = ("upscale", folder / "b2.mkv", tmp_path / "o.mp4", *QUICK, "--preview")
    assert run(*command, "--dry-run") == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    assert "o.preview.mp4: 5 frames, 32x24 to 32x24, h264 as yuv420p of 8 bits" in said
    assert "o.preview.compare.mp4" in said
    assert run(*command) == 0
    assert run(*command, "--dry-run") == 1  # as the run itself would be refused
    assert "exists already" in capsys.readouterr().err


def test_a_mixed_folder_is_listed(folder, capsys):
    write_png(folder / "p.png")
    assert run("info", folder) == 0
    said = capsys.readouterr().out
    assert "b2.mkv: 32x24, h264 of 8 bits, 0.2 s, 0 sound tracks" in said
    assert "broken.mp4: cannot be used" in said
    assert "5 videos, 1 picture" in said
    assert run("info", folder, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 6


def test_a_piece_behind_the_end_is_refused_before_the_plan(folder, tmp_path, capsys):
    assert run("upscale", folder / "b2.mkv", tmp_path / "o.mp4", *QUICK, "--start", "9") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "must begin before the last frame" in said


def test_comparisons_and_partial_files_never_replace_what_they_show(tmp_path, capsys):
    source, result = write_clip(tmp_path / "a.mp4"), write_clip(tmp_path / "b.mp4")
    before = [path.read_bytes() for path in (source, result)]
    for target in (source, result):
        assert run("compare", source, result, target, "--overwrite") == 1
        assert "input itself" in capsys.readouterr().err
    assert [path.read_bytes() for path in (source, result)] == before


def test_stills_of_one_picture_name_the_result(tmp_path):
    picture = write_png(tmp_path / "p.png")
    plain = (*EXACT, "--strength", "0", "--stills")
    assert run("upscale", picture, tmp_path / "q.png", *plain) == 0
    assert (tmp_path / "q.png").is_file()


def test_the_current_folder_is_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("status", ".") == 0
    assert "no unfinished run" in capsys.readouterr().out


def test_a_folder_of_pictures_is_listed_once(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2, 10):
        write_png(folder / f"f_{number}.png")
    listed, real = [], Path.iterdir

    def counted(path):
        listed.append(path)
        return real(path)

    monkeypatch.setattr(Path, "iterdir", counted)
    words = ["upscale", folder, tmp_path / "out.mkv", "--scale", 2, "--dry-run"]
    words += ["--transformer", "off", "--dtype", "float32"]
    assert run(*words) == 0
    assert listed.count(folder) == 1
