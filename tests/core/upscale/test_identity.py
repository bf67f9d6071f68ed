"""What identifies a run in its journal: stored JSON, so that an unfinished run always continues.

The stored file was made by this one, `python tests/core/upscale/test_identity.py`. A change of it
means that unfinished runs of the version before start over.
"""

import importlib.util
import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
import torch

from oasis_core.upscale import UpscaleOptions, VideoUpscaler
from oasis_core.upscale.upscaling_files import _prepare

ROOT = Path(__file__).resolve().parents[3]
STORED = Path(__file__).with_name("identities.json")
FILM = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
TIME_S = 1_700_000_000
JOBS = {
    "film": ("film.mp4", "out.mp4", {"scale": 2}),
    "film, every setting": (
        "film.mp4",
        "out.mkv",
        {
            "size": (77, 53),
            "strength": 0.5,
            "color_anchor": False,
            "shots": False,
            "tile_px": 64,
            "segment_frames": 5,
            "halo_frames": 3,
            "codec": "h265",
            "crf": 20,
            "preset": "fast",
            "bit_depth": 10,
            "deinterlace": True,
        },
    ),
    "film to pictures": ("film.mp4", "out_%03d.png", {"scale": 2}),
    "piece": ("film.mp4", "out.mp4", {"scale": 2, "start_s": 0.1, "duration_s": 0.2}),
    "folder": ("pictures", "results", {"scale": 3}),
    "folder to film": ("pictures", "out.mkv", {"scale": 3, "codec": "ffv1", "fps": 23.976}),
    "pattern": ("pictures/in_%02d.png", "out_%02d.png", {"scale": 1.5}),
    "picture": ("pictures/in_02.png", "out.webp", {"scale": 2, "quality": 80}),
}
"""Name -> source, destination and options."""


def png(shade):
    """A small grey picture without compression: the same bytes on every machine."""

    def chunk(name, data):
        size, check = len(data), zlib.crc32(name + data)
        return size.to_bytes(4, "big") + name + data + check.to_bytes(4, "big")

    head = (32).to_bytes(4, "big") + (24).to_bytes(4, "big") + bytes((8, 0, 0, 0, 0))
    rows = (b"\0" + bytes([shade]) * 32) * 24
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 0)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def identities(folder):
    """Every job's identity without the versions of programs."""
    shutil.copyfile(FILM, folder / "film.mp4")
    (folder / "pictures").mkdir()
    for number in (1, 2, 3, 10):
        (folder / "pictures" / f"in_{number:02d}.png").write_bytes(png(number))
    for path in folder.rglob("*.*"):
        os.utime(path, (TIME_S, TIME_S))
    spec = importlib.util.spec_from_file_location(
        "models_of_tests", Path(__file__).with_name("conftest.py")
    )
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    upscaler = VideoUpscaler(models.PointModel(), device="cpu", dtype="float32")
    found = {}
    for name, (source, destination, options) in JOBS.items():
        make_job, _ = _prepare(folder / source, folder / destination, UpscaleOptions(**options))
        identity = make_job(upscaler=upscaler).identity()
        assert set(identity.pop("version")) == {"oasis", "torch", "av"}
        found[name] = json.loads(json.dumps(identity))
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return identities(tmp_path_factory.mktemp("jobs"))


@pytest.mark.parametrize("name", JOBS)
def test_an_unfinished_run_of_the_version_before_continues(name, found):
    stored = json.loads(STORED.read_text())
    assert sorted(stored) == sorted(JOBS)
    assert found[name] == stored[name]
    # The journal keeps the order, too.
    assert json.dumps(found[name]) == json.dumps(stored[name])


def test_a_model_of_its_own_is_identified_by_configuration_and_weights(point_model):
    before = VideoUpscaler(point_model, device="cpu", dtype="float32").model_hash
    point_model.gain.data.add_(0.1)
    after = VideoUpscaler(point_model, device="cpu", dtype="float32").model_hash
    assert before == json.loads(STORED.read_text())["film"]["model"]["hash"] != after


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        STORED.write_text(json.dumps(identities(Path(place)), indent=1) + "\n")
