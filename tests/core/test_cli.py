import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_core import checkpoint, choices, cli, digests
from oasis_core.commands import info
from oasis_core.degradation import PRESETS
from oasis_core.evaluation.datasets import LAYOUTS
from oasis_core.upscale.precision import DTYPES
from oasis_core.video import ALPHA_CODECS, CODECS, HDR_CODECS

ROOT = Path(__file__).parents[2]


def write_clip(path, num_frames=5, width=32, height=24):
    generator = np.random.default_rng(0)
    base = generator.integers(40, 200, (height // 4, width // 4, 3)).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for index in range(num_frames):
            pixels = np.roll(base, index, axis=1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "in.mkv")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def decode(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_choices_are_those_of_the_code_that_has_the_things():
    assert choices.DEGRADATIONS == PRESETS
    assert tuple(DTYPES) == choices.DTYPES
    assert tuple(LAYOUTS) == choices.STANDARD_SETS
    assert tuple(checkpoint.BUNDLED) == choices.BUNDLED
    assert choices.SOFTWARE_CODECS == ("h264", "h265", "av1", "prores", "ffv1", "vp9")
    assert all(path.is_file() for path in checkpoint.BUNDLED.values())


def test_a_codec_says_all_that_is_asked_of_it():
    assert HDR_CODECS == ("h264", "h265", "av1")
    assert ALPHA_CODECS == ("prores", "ffv1")
    tags = {name: codec.mp4_tag for name, codec in CODECS.items()}
    assert {name for name, tag in tags.items() if tag} == {n for n in CODECS if "h265" in n}
    assert [name for name, codec in CODECS.items() if not codec.full_range] == ["prores"]
    assert [name for name, codec in CODECS.items() if codec.is_lossless] == ["ffv1"]


def test_help_needs_no_torch():
    code = (
        "import sys\n"
        "from oasis_core.cli import main\n"
        "try:\n    main(['upscale', '--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'av', 'einops', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_detail_mixes_the_ends_and_refuses_what_is_none(clip, tmp_path, capsys):
    reports, pixels = [], []
    for index, detail in enumerate(("0", "0.5", "1")):
        target = tmp_path / f"{index}.mkv"
        options = ("--scale", 2, "--codec", "ffv1", "--json", "--transformer", "off")
        assert run("upscale", clip, target, *options, "--detail", detail) == 0
        reports.append(json.loads(capsys.readouterr().out))
        pixels.append(np.stack(decode(target)).astype(int))
    hashes = [report["model_hash"].removesuffix("-no-transformer") for report in reports]
    assert hashes == [hashes[0] + end for end in ("", "-detail0.5", "-detail1")]
    faithful, between, vivid = (np.abs(picture - pixels[0]).mean() for picture in pixels)
    assert 0 == faithful < between < vivid < 16
    assert run("upscale", clip, tmp_path / "no.mkv", "--detail", "1.2") == 1
    assert "detail must be between 0 (faithful) and 1 (vivid), got 1.2" in capsys.readouterr().err
    assert run("info", "oasis-tiny") == 0
    assert f"detail: 0 to 1, {checkpoint.DEFAULT_DETAIL:g} unless told" in capsys.readouterr().out


def test_the_transformer_can_be_left_out(clip, tmp_path, capsys):
    reports, pixels = [], []
    for index, choice in enumerate(("on", "off")):
        target = tmp_path / f"{index}.mkv"
        options = ("--scale", 2, "--codec", "ffv1", "--json", "--transformer", choice)
        assert run("upscale", clip, target, *options) == 0
        reports.append(json.loads(capsys.readouterr().out))
        pixels.append(np.stack(decode(target)).astype(int))
    # Another hash, so that an unfinished run does not go on with the other way.
    assert reports[1]["model_hash"] == f"{reports[0]['model_hash']}-no-transformer"
    assert 0 < np.abs(pixels[0] - pixels[1]).max() < 64
    assert run("bench", "--only", "routing", "--transformer", "off") == 1
    assert "--transformer off is for --only speed" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_reader_that_has_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-u", "-m", "oasis_core", "info", "oasis-tiny"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_connection_that_broke_is_an_error(monkeypatch, capsys):
    def breaks(_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(info, "run", breaks)
    assert run("info", "oasis-tiny") == 1
    assert capsys.readouterr().err == "oasis: [Errno 32] Broken pipe\n"


def test_upscale_writes_the_asked_size_and_reports_json(clip, tmp_path, capsys):
    target = tmp_path / "out.mkv"
    assert run("upscale", clip, target, "--scale", 2, "--codec", "ffv1", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["width"], report["height"]) == (5, 64, 48)
    keys = {"seconds", "fps", "peak_rss_bytes", "plan", "model", "model_hash"}
    assert keys <= report.keys()
    frames = decode(target)
    assert len(frames) == 5
    assert frames[0].shape == (48, 64, 3)
    assert not (tmp_path / "out.mkv.oasis").exists()


def test_upscale_defaults_to_four_times_and_exact_size_wins(clip, tmp_path):
    assert run("upscale", clip, tmp_path / "a.mkv", "--codec", "ffv1") == 0
    assert run("upscale", clip, tmp_path / "b.mp4", "--size", "51x37") == 0
    assert decode(tmp_path / "a.mkv")[0].shape == (96, 128, 3)
    assert decode(tmp_path / "b.mp4")[0].shape == (37, 51, 3)


def test_degrade_is_repeatable_and_prints_its_draw(clip, tmp_path, capsys):
    drawn = []
    for name in ("a.mkv", "b.mkv"):
        assert run("degrade", clip, tmp_path / name, "--scale", 2, "--seed", 3, "--json") == 0
        drawn.append(json.loads(capsys.readouterr().out))
    assert drawn[0] == drawn[1]
    assert drawn[0]["steps"]
    first, second = (decode(tmp_path / name) for name in ("a.mkv", "b.mkv"))
    assert len(first) == 5
    assert first[0].shape == (12, 16, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_info_describes_model_and_video(clip, capsys):
    assert run("info", "oasis-tiny", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["licence"] == "Apache-2.0"
    assert len(facts["sha256"]) == 64
    assert run("info", clip, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["width"], facts["height"], facts["codec"]) == (32, 24, "ffv1")
    assert run("info", clip) == 0
    assert "frame rate: 24" in capsys.readouterr().out


def test_calibrate_writes_routing_and_picture(tmp_path, capsys):
    pytest.importorskip("PIL")
    clip = write_clip(tmp_path / "clip.mkv", width=64, height=64)
    routing, picture = tmp_path / "routing.json", tmp_path / "routing.png"
    arguments = ("--crop", 64, "--queries", 8, "--out", routing, "--plot", picture)
    assert run("calibrate", clip, *arguments) == 0
    out = capsys.readouterr().out
    assert "layer 0:" in out
    assert "not known from one clip" in out
    assert json.loads(routing.read_text())["patterns"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_calibrate_says_how_stable_it_is_and_writes_the_model(tmp_path, capsys):
    clips = [write_clip(tmp_path / f"{i}.mkv", width=64, height=64) for i in range(2)]
    model = tmp_path / "rerouted.safetensors"
    arguments = ("--crop", 64, "--queries", 8, "--window-heads", 6, "--intra-heads", 0)
    assert run("calibrate", *clips, *arguments, "--write", model, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["stability"]["num_clips"] == 2
    assert 0 <= result["stability"]["least"] <= result["stability"]["mean"] <= 1
    assert [cost["size"] for cost in result["costs"]][1] == [1920, 1088]
    routing = checkpoint.load_checkpoint(model).routing
    assert routing.to_json() == result["routing"]
    assert sum(routing.counts(layer)[2] for layer in range(routing.num_layers)) == 6
    assert run("calibrate", *clips, *arguments, "--write", model) == 1
    assert "choose another name for --write" in capsys.readouterr().err
    assert run("calibrate", *clips, *arguments, "--max-window", 0.5) == 1
    assert "exclude each other" in capsys.readouterr().err


def test_calibrate_keeps_the_pixels_as_near_as_asked(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mkv", width=64, height=64)
    arguments = ("calibrate", clip, "--crop", 64, "--queries", 8, "--keep-db")
    assert run(*arguments, 60, "--json") == 0
    near = json.loads(capsys.readouterr().out)
    assert near["kept_db"] >= 60
    assert near["routing"]["rule"]["least_db"] == 60
    assert run(*arguments, 40) == 0
    text = capsys.readouterr().out
    assert "dB to all heads global in the worst clip" in text
    assert "local: " in text
    assert run(*arguments, 40, "--max-window", 0.5) == 1
    assert "leave numbers and thresholds out" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_and_bench_print_json(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mkv", num_frames=2, width=64, height=64)
    assert run("evaluate", clip, "--no-motion", "--degradation", "light", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["summary"]["light"]["num_clips"] == 1
    assert result["clips"][0]["gain_db"] == pytest.approx(
        result["summary"]["light"]["mean_gain_db"]
    )
    assert run("bench", "--short", "--only", "speed", "--json") == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert speed["model_s_per_frame"] > 0
    assert speed["speedup_over_yardstick"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plan", "--size", "0x0"), "--size must be at least"),
        (("--plan", "--frames", "0"), "--frames must be at least 1"),
        (("--only", "speed", "--runs", "0"), "--runs must be at least 1"),
        (("--only", "speed", "--threads", "-1"), "--threads must be at least 1"),
        (("--only", "speed", "--routing", "global"), "--routing is for"),
        (("--random-weights", "--compare", ".", "--short"), "times whole networks"),
        (("--only", "speed", "--streams"), "--streams needs --random-weights"),
        (("--plan", "--decoder-tile", "64"), "--decoder-tile is for measuring a model"),
    ],
)
def test_bench_refuses_in_one_sentence_what_cannot_be_timed(arguments, message, capsys):
    assert run("bench", *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frames", "0"), "--frames must be at least 1"),
        (("--crop", "0"), "--crop must be at least 32"),
        (("--queries", "0"), "--queries must be at least 1"),
        (("--keep-db", "nan"), "--keep-db must be at least 1"),
        (("--write", "routed.bin"), "--write must end in .safetensors"),
        (("--out", "no/such/folder.json"), "the folder of --out must exist"),
        (("--out", "."), "--out must be a file to write, got the folder"),
    ],
)
def test_calibrate_refuses_before_it_reads_clips(arguments, message, capsys):
    assert run("calibrate", "no_clip.mkv", *arguments) == 1
    assert message in capsys.readouterr().err


def test_evaluate_keeps_results_of_the_same_name_apart(tmp_path, capsys):
    for folder in ("truth", "a/out", "b/out"):
        (tmp_path / folder).mkdir(parents=True)
        write_clip(tmp_path / folder / "clip.mkv", num_frames=1)
    given = ("evaluate", "--truth", tmp_path / "truth", "--metrics", "psnr_db")
    restored = ("--restored", tmp_path / "a/out", "--restored")
    assert run(*given, *restored, tmp_path / "b/out") == 1
    assert "NAME=FOLDER" in capsys.readouterr().err
    assert run(*given, "--restored", f"model={tmp_path / 'a/out'}") == 1
    assert "got 'model'" in capsys.readouterr().err
    assert run(*given, *restored, f"other={tmp_path / 'b/out'}") == 0


def test_record_changes_a_copy_only_and_only_with_figures(tmp_path, capsys):
    folder = tmp_path / "given"
    folder.mkdir()
    clip = write_clip(folder / "clip.mkv", num_frames=1, width=64, height=64)
    bundled = checkpoint.BUNDLED[checkpoint.DEFAULT_MODEL]
    before = digests.file_sha256(bundled)
    options = ("--metrics", "psnr_db", "--frames", "1", "--degradation", "light", "--record")
    assert run("evaluate", clip, *options) == 1
    assert "name a copy" in capsys.readouterr().err
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(bundled.read_bytes())
    given = ("--truth", folder, "--restored", f"mine={folder}")
    assert run("evaluate", *given, *options, "--model", copy) == 1
    assert "that the model restores" in capsys.readouterr().err
    assert digests.file_sha256(copy) == before == digests.file_sha256(bundled)
    assert run("evaluate", folder, *options, "--model", copy) == 0
    assert "SSIM" not in capsys.readouterr().out
    metrics = checkpoint.read_header(copy)[2]["metrics"]
    assert metrics["light"]["num_clips"] == 1
    assert "mean_gain_db" in metrics["light"]
    (folder / "bad.mkv").write_bytes(b"no film")
    stored = digests.file_sha256(copy)
    assert run("evaluate", folder, *options, "--model", copy) == 1
    assert "not recorded: --record needs every clip" in capsys.readouterr().out
    assert digests.file_sha256(copy) == stored


def bad_files(folder):
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no film\n" * 50)
    return {
        "missing.mp4": "missing.mp4",
        ".": "folder",
        "empty.mp4": "empty",
        "text.mp4": "text.mp4",
    }


@pytest.mark.parametrize("command", ["upscale", "degrade"])
@pytest.mark.parametrize("name", ["missing.mp4", ".", "empty.mp4", "text.mp4"])
def test_unusable_sources_are_one_sentence(tmp_path, capsys, command, name):
    word = bad_files(tmp_path)[name]
    assert run(command, tmp_path / name, tmp_path / "out.mp4") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("oasis: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--scale", "0"), "scale"),
        (("--scale", "nan"), "scale"),
        (("--scale", "-2"), "scale"),
        (("--size", "0x4"), "between 1 and"),
        (("--size", "30000x30000"), "30000"),
        (("--strength", "1.5"), "strength"),
        (("--model", "oasis-huge"), "oasis-huge"),
        (("--device", "warp"), "device"),
        (("--tile", "5"), "tile"),
        (("--segment", "0"), "segment"),
        (("--crf", "99"), "crf"),
    ],
)
def test_impossible_requests_are_one_sentence(clip, tmp_path, capsys, arguments, word):
    assert run("upscale", clip, tmp_path / "out.mp4", *arguments) == 1
    captured = capsys.readouterr()
    said = re.sub(r"^loading .* \.\.\.\n", "", captured.err)
    assert said.startswith("oasis: ")
    assert said.count("\n") == 1
    assert word in said
    assert not list(tmp_path.glob("out*"))


def test_existing_output_is_kept_without_overwrite(clip, tmp_path, capsys):
    target = tmp_path / "out.mkv"
    target.write_bytes(b"precious")
    for command in ("upscale", "degrade"):
        assert run(command, clip, target) == 1
        assert "--overwrite" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"


def test_source_is_never_the_output(clip, capsys):
    before = clip.read_bytes()
    for command in ("upscale", "degrade"):
        assert run(command, clip, clip, "--overwrite") == 1
        assert "input itself" in capsys.readouterr().err
    assert clip.read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [(), ("upscale",), ("upscale", "a", "b", "--scale", "x"), ("nonsense",)]
)
def test_bad_usage_exits_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("upscal a b", "got 'upscal'; did you mean 'upscale'?"),
        ("upscale a b --scael 2", "option '--scael' is not known; did you mean '--scale'?"),
        ("upscale a b --xyzzy", "option '--xyzzy' is not known\n"),
        ("upscale a b --codec h266", "got 'h266'; did you mean"),
        ("degrade a b --preset consistant", "got 'consistant'; did you mean 'consistent'?"),
        ("upscale", "SRC and DST are missing"),
        ("upscale a", "DST is missing"),
        ("upscale a b --size 3", "must be WIDTHxHEIGHT"),
    ],
)
def test_bad_usage_is_two_lines_that_name_what_was_meant(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 2
    assert "--help" in error.splitlines()[1]


def test_verbose_gives_no_traceback_for_a_refusal(clip, tmp_path, capsys, caplog):
    assert run("-v", "degrade", tmp_path / "missing.mp4", tmp_path / "out.mp4") == 1
    assert "Traceback" not in capsys.readouterr().err + caplog.text


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (0, 0), (0, 80), (24, 0)])
def test_progress_shows_on_a_terminal_of_any_size(rows, columns):
    """Some containers give a terminal of 0 columns or rows, on which no bar can be drawn."""
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    code = (
        "from oasis_core.commands._shared import Progress\n"
        "progress = Progress('frame')\n"
        "for done in range(11):\n    progress(done, 10)\n"
        "progress.close()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stderr=child)
    os.set_blocking(parent, False)
    shown = ""
    with contextlib.suppress(OSError):  # there is no more to read
        while part := os.read(parent, 65536):
            shown += part.decode()
    os.close(child)
    os.close(parent)
    assert "10/10" in shown
    assert ("frames/s" in shown) == (rows * columns == 0)


def test_a_mistyped_model_is_told_the_nearest_name(clip, tmp_path, capsys):
    assert run("upscale", clip, tmp_path / "out.mp4", "--model", "oasis-tny") == 1
    assert "did you mean 'oasis-tiny'?" in capsys.readouterr().err


def test_loading_is_said_before_it_begins(clip, tmp_path, capsys):
    assert run("upscale", clip, tmp_path / "out.mkv", "--scale", 1) == 0
    assert capsys.readouterr().err.startswith("loading oasis-tiny ...\n")


WITHOUT_TORCH = {
    "upscale in.mkv there.mkv": 1,
    "upscale missing.mkv out.mkv": 1,
    "upscale in.mkv in.mkv --overwrite": 1,
    "upscale in.mkv out.mkv --strength 1.7": 1,
    "upscale in.mkv out.mkv --scale 0": 1,
    "upscale in.mkv out.mkv --size 99999x99999": 1,
    "upscale in.mkv out.xyz": 1,
    "upscale in.mkv out.mkv --start 99": 1,
    "upscale in.mkv out.mkv --crf 999": 1,
    "upscale text.mkv out.mkv --dry-run": 1,
    "upscale films done": 0,
    "info in.mkv": 0,
    "info films": 0,
    "status there.mkv": 0,
    "compare --help": 0,
}
"""Commands and how they end."""
RUN_ALL = """
import contextlib, io, json, sys
from oasis_core.cli import main
found = {}
for words in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(words.split())
        except SystemExit as stop:
            code = stop.code
    found[words] = code, "torch" in sys.modules, said.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Of all these commands, in one process that begins without torch."""
    folder = tmp_path_factory.mktemp("answers")
    clip = write_clip(folder / "in.mkv")
    (folder / "there.mkv").touch()
    (folder / "text.mkv").write_text("no film")
    for name in ("films", "done"):
        (folder / name).mkdir()
        (folder / name / "a.mkv").write_bytes(clip.read_bytes())
    finished = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *WITHOUT_TORCH],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("words", WITHOUT_TORCH)
def test_what_needs_no_model_is_answered_without_torch(answers, words):
    """Torch alone takes seconds to load; nothing that names and arguments decide waits for it."""
    code, has_torch, said = answers[words]
    assert not has_torch
    assert code == WITHOUT_TORCH[words], said
    assert "Traceback" not in said
    if code:
        assert said.count("oasis: ") == 1, said


def test_ctrl_c_that_meets_a_destructor_is_no_traceback(clip, monkeypatch, capsys):
    class Stopped:
        def __del__(self):
            raise KeyboardInterrupt

    build = cli.build_parser
    monkeypatch.setattr(cli, "build_parser", lambda: (Stopped(), build())[1])
    assert run("info", clip) == 0
    assert "Traceback" not in capsys.readouterr().err
