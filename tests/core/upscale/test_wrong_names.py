"""Which sentence a wrong name gets, and which of two faults is named first: stored.

The stored file was made by this one, `python tests/core/upscale/test_wrong_names.py`.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from oasis_core.upscale import UpscaleOptions
from oasis_core.upscale.upscaling_files import _prepare

STORED = Path(__file__).with_name("wrong_names.json")
ROOT = Path(__file__).resolve().parents[3]
FILM = ROOT / "workflows" / "example_inputs" / "hand_held.mp4"
SOURCES = (
    "film.mp4", "none.mp4", "none.png", "empty", "empty/in_%02d.png", "none/in_%02d.png", "films",
    "text.mp4", "text.png", "http://127.0.0.1:9/in.png",
)  # fmt: skip
DESTINATIONS = (
    "out.mp4", "out.png", "out_%02d.png", "out", "none/out.mp4", "none/out.png", "none/out",
    "out.xyz", "film.mp4", "films", "http://127.0.0.1:9/out.mp4",
)  # fmt: skip
OPTIONS = ({}, {"fps": 25}, {"quality": 90})


def make_files():
    shutil.copyfile(FILM, "film.mp4")
    for folder in ("empty", "films"):
        Path(folder).mkdir()
    shutil.copyfile(FILM, "films/film.mp4")
    Path("text.mp4").write_text("no film")
    Path("text.png").write_text("no picture")


def sentence(source, destination, options):
    from oasis_core.remote import as_source
    from oasis_core.upscale.job import output_path

    wanted = UpscaleOptions(scale=2, **options)
    try:
        _prepare(as_source(source), output_path(destination), wanted)
    except ValueError as error:
        return str(error)
    return "fine"


def sentences():
    cases = [(s, d, o) for s in SOURCES for d in DESTINATIONS for o in OPTIONS]
    return {f"{s} to {d} {json.dumps(o)}": sentence(s, d, o) for s, d, o in cases}


def test_no_sentence_has_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files()
    stored, found = json.loads(STORED.read_text()), sentences()
    assert stored.keys() == found.keys()
    assert {k: v for k, v in found.items() if stored[k] != v} == {}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        make_files()
        STORED.write_text(json.dumps(sentences(), indent=1) + "\n")
        os.chdir("/")
