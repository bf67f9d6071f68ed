"""Public files of large models in models/oasis: listed by name, refused or made into a model."""

import json
import shutil
import sys

import pytest

from tests.nodes.packed import ROOT
from tests.nodes.prompts import LOAD, MODEL, empty_images, image_prompt

sys.path.append(str(ROOT / "tests" / "core"))

from flashvsr_files import NAMES, flashvsr_tensors, write_flashvsr_files

pytestmark = pytest.mark.comfy

TARGET = "flash/flashvsr-1.1.safetensors"


def listed(server):
    inputs = server.get("/object_info/OASISLoadModel")["OASISLoadModel"]["input"]["required"]
    return json.dumps(inputs["model_name"])


def prompt_of(name):
    prompt = image_prompt(empty_images(64, 48, 1))
    prompt["1"] = {**LOAD, "inputs": {**LOAD["inputs"], **MODEL, "model_name": name}}
    return prompt


@pytest.fixture
def folder(server):
    folder = server.base / "models" / "oasis" / "flash"
    folder.mkdir()
    write_flashvsr_files(folder, flashvsr_tensors())
    yield folder
    shutil.rmtree(folder)


def test_public_files_appear_by_the_name_of_the_model_they_make(server, folder):
    names = listed(server)
    assert TARGET in names
    assert "diffusion_pytorch_model" not in names
    assert "LQ_proj_in" not in names
    # The files of the tests are narrow, which the node says; nothing is written or changed.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = server.run(prompt_of(TARGET))
    assert "is not FlashVSR: width must be 1536, got 256; give diffusion_pytorch" in run.error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / NAMES["prompt"]).rename(folder / "elsewhere.bin")
    run = server.run(prompt_of(TARGET))
    assert "flashvsr-1.1 needs 1 more file in" in run.error
    assert "posi_prompt.pth (GitHub OpenImagingLab/FlashVSR" in run.error


def test_a_model_that_was_made_loads_as_any_other(server, folder):
    """Made once, it is found by the same name, whatever has become of its sources."""
    shutil.copy(ROOT / "oasis_core" / "weights" / "oasis-tiny.safetensors", folder / TARGET[6:])
    for name in NAMES.values():
        (folder / name).unlink()
    assert TARGET in listed(server)
    run = server.run(prompt_of(TARGET))
    assert run.is_success, run.history
