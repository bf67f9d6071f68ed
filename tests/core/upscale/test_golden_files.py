"""Stored pixels of whole runs from file to file, with small models: nothing may drift unnoticed.

The bundled model's own are in tests/campaign/golden.json. The stored file was made by this one,
`python tests/core/upscale/test_golden_files.py`, which refuses unless the newest release in the
changelog says that it changes output.
"""

import hashlib
import importlib.util
import json
import platform
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from oasis_core.upscale import VideoUpscaler, upscale_file
from oasis_core.video import open_source

ROOT = Path(__file__).resolve().parents[3]
STORED = Path(__file__).with_name("golden_files.json")
CHANGELOG = ROOT / "CHANGELOG.md"
WHOLE = {"codec": "ffv1", "scale": 2}
CASES = {
    "folder to film": ("pictures", "out.mkv", WHOLE),
    "folder to folder": ("pictures", "results", {"size": (77, 53)}),
    "film with alpha": ("alpha.mkv", "out.mkv", WHOLE),
    "film with alpha to pictures": ("alpha.mkv", "out_%02d.png", {"scale": 1.5}),
    "strength 0": ("film.mkv", "out.mkv", {**WHOLE, "strength": 0}),
    "strength 0.5": ("film.mkv", "out.mkv", {**WHOLE, "strength": 0.5}),
    "plain module, tiles and segments": (
        "film.mkv",
        "out.mkv",
        {**WHOLE, "tile_px": 48, "segment_frames": 2},
    ),
    "no anchor, 16 bits": ("deep.mkv", "out.mkv", {**WHOLE, "color_anchor": False}),
}
"""Name -> source, destination and options."""


def write_film(path, pixel_format, source_format, num_frames=5):
    """A lossless film of blocks that move, made of integers only."""
    channels = {"rgb24": 3, "rgba": 4, "rgb48le": 3}[source_format]
    rows, columns, planes = np.mgrid[:24, :36, :channels]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 36, 24, pixel_format
        for t in range(num_frames):
            blocks = (rows // 4 * 37 + (columns + t) // 6 * 59 + planes * 83) % 241
            if source_format == "rgb48le":
                blocks = blocks * 257 + rows * 5
            dtype = np.uint16 if source_format == "rgb48le" else np.uint8
            frame = av.VideoFrame.from_ndarray(blocks.astype(dtype), format=source_format)
            frame.pts, frame.time_base = t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_pictures(folder):
    folder.mkdir()
    rows, columns, planes = np.mgrid[:24, :36, :3]
    for t in range(3):
        blocks = (rows // 3 * 41 + (columns + 2 * t) // 5 * 67 + planes * 29) % 251
        with av.open(str(folder / f"f{t + 9}.png"), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 36, 24, "rgb24"
            frame = av.VideoFrame.from_ndarray(blocks.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def small_model():
    spec = importlib.util.spec_from_file_location(
        "models_of_tests", Path(__file__).with_name("conftest.py")
    )
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    return models.ConvModel(gain=0.2)


def outputs(folder):
    """Case -> all samples of the result as `t h w c`, alpha last."""
    write_film(folder / "film.mkv", "bgr0", "rgb24")
    write_film(folder / "alpha.mkv", "bgra", "rgba")
    write_film(folder / "deep.mkv", "gbrp16le", "rgb48le")
    write_pictures(folder / "pictures")
    upscaler = VideoUpscaler(small_model(), device="cpu", dtype="float32")
    found = {}
    for index, (name, (source, destination, options)) in enumerate(CASES.items()):
        (folder / str(index)).mkdir()
        result = folder / str(index) / destination
        upscale_file(folder / source, result, upscaler=upscaler, **options)
        with open_source(result) as reader:
            found[name] = np.stack(
                [
                    frame.pixels if frame.alpha is None else np.dstack([frame.pixels, frame.alpha])
                    for frame in reader
                ]
            )
    return found


def thumbnail(pixels):
    """Means of cells of about 16 px of every frame, of all samples, as shares of full scale."""
    whole = pixels[:, : pixels.shape[1] // 16 * 16, : pixels.shape[2] // 16 * 16]
    t, h, w, c = whole.shape
    cells = whole.reshape(t, h // 16, 16, w // 16, 16, c).mean(axis=(2, 4))
    return [round(float(value), 5) for value in cells.ravel() / np.iinfo(pixels.dtype).max]


def facts(pixels):
    return {
        "shape": list(pixels.shape),
        "dtype": pixels.dtype.name,
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "cells": thumbnail(pixels),
    }


def machine():
    """What the last bits depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return [torch.__version__, torch.backends.cpu.get_cpu_capability(), name or platform.machine()]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    torch.set_num_threads(1)
    return outputs(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", CASES)
def test_pixels_of_a_run_have_not_drifted(name, found):
    stored = json.loads(STORED.read_text())
    expected, got = stored["cases"][name], facts(found[name])
    assert [got["shape"], got["dtype"]] == [expected["shape"], expected["dtype"]]
    assert np.abs(np.subtract(got["cells"], expected["cells"])).max() <= 5e-4
    if stored["machine"] == machine():
        assert got["sha256"] == expected["sha256"]


def test_the_cases_differ_from_each_other(found):
    plain = found["strength 0"].astype(int)
    half, full = found["strength 0.5"], found["plain module, tiles and segments"]
    assert 0.5 < np.abs(half - plain).mean() < np.abs(full - plain).mean()
    assert found["film with alpha"].shape[-1] == 4
    assert found["no anchor, 16 bits"].dtype == np.uint16


def write():
    newest = CHANGELOG.read_text(encoding="utf-8").split("\n## ")[1].lower()
    if "changes output: yes" not in newest:
        raise SystemExit(
            "CHANGELOG.md must say 'Changes output: yes' in its newest release before stored "
            "outputs are replaced; add the line, or undo what changes them"
        )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        cases = {name: facts(pixels) for name, pixels in outputs(Path(place)).items()}
    STORED.write_text(json.dumps({"machine": machine(), "cases": cases}) + "\n")


if __name__ == "__main__":
    write()
