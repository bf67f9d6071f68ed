"""Every command without any optional package: one sentence that names the extra, before work."""

import subprocess
import sys
from pathlib import Path

import pytest

from oasis_core.extras import MODULES, MissingExtraError, need

ROOT = Path(__file__).parents[2]
OPTIONAL = (
    *("accelerate", "tensorboard", "PIL", "webdataset", "fsspec", "aiohttp", "matplotlib", "ray"),
    *("s3fs", "lpips", "piq", "torchvision", "spandrel", "diffusers", "skimage", "scipy"),
    *("pycvvdp", "ncnn"),
)
# A hidden package is one whose place in `sys.modules` is None: importing it raises ImportError.
WITHOUT_EXTRAS = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from oasis_core import cli
sys.exit(cli.main(sys.argv[2:]))
"""


def run_without_extras(folder, *words):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, ",".join(OPTIONAL), *map(str, words)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("upscale", "in.mkv", "out.mkv", "--engine", "ray"), "[cluster]"),
        (("upscale", "https://127.0.0.1/in.mp4", "out.mp4"), "[url]"),
        (("degrade", "https://127.0.0.1/in.mp4", "out.mp4"), "[url]"),
        (("evaluate", "https://127.0.0.1/in.mp4"), "[url]"),
        (("calibrate", "in.mkv", "--plot", "routing.png"), "[plot]"),
        (("train", "drawn.toml"), "[train]"),
        (("train", "archives.toml"), "[train]"),
        (("train", "board.toml"), "[train]"),
    ],
    ids=lambda value: "-".join(value[:3]).replace("/", "") if isinstance(value, tuple) else value,
)
def test_a_missing_extra_is_named_in_one_sentence(tmp_path, words, extra):
    (tmp_path / "in.mkv").touch()
    (tmp_path / "stills").mkdir()
    for name, line in (
        ("drawn", 'data_dirs = ["stills"]\ndrawn_stills = 1'),
        ("archives", 'data_archives = ["clips.tar"]'),
        ("board", 'data_dirs = ["stills"]\ntensorboard = true'),
    ):
        stage = 'name = "a"\nnum_steps = 1\nlearning_rate = 1e-4\nfinal_learning_rate = 1e-5'
        config = f'model = "oasis-tiny"\noutput_dir = "run"\n{line}\n[[stages]]\n{stage}\n'
        (tmp_path / f"{name}.toml").write_text(config)
    (tmp_path / "clips.tar").touch()
    finished = run_without_extras(tmp_path, *words)
    assert finished.returncode == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    said = [line for line in finished.stderr.splitlines() if line.startswith("oasis: ")]
    assert len(said) == 1, finished.stderr
    assert f"pip install 'oasis-video-upscaler{extra}'" in said[0]
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("command", ["upscale", "info", "evaluate", "calibrate", "bench", "train"])
def test_help_needs_no_extra(tmp_path, command):
    finished = run_without_extras(tmp_path, command, "--help")
    assert finished.returncode == 0, finished.stderr


def test_need_names_package_purpose_and_extra():
    with pytest.raises(
        MissingExtraError, match=r"^flying needs the package no_such, .*\[wings\]'$"
    ):
        need("no_such", extra="wings", purpose="flying")
    assert need("json", extra="x", purpose="y").dumps([1]) == "[1]"


def test_doctor_names_every_extra_that_is_missing(tmp_path):
    finished = run_without_extras(tmp_path, "doctor", "--no-test")
    assert finished.returncode == 0, finished.stderr
    assert "extras: installed: none" in finished.stdout
    for extra in MODULES:
        assert f"pip install 'oasis-video-upscaler[{extra}]'" in finished.stdout
