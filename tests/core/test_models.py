"""`oasis models`: what is published, and what of it is here."""

import dataclasses
import hashlib
import json
import shutil

import pytest

from oasis_core.checkpoint import BUNDLED
from oasis_core.cli import main
from oasis_core.convert import published
from oasis_core.convert.public_files import PUBLIC


def files_of(facts, name):
    model = next(model for model in facts["models"] if model["name"] == name)
    return {file["name"]: file for file in model["files"]}


def test_lists_models_files_and_checkpoints(tmp_path, capsys, monkeypatch):
    content = b"a vae"
    known = dataclasses.replace(
        published.WAN_VAE, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    infvsr = next(model for model in published.MODELS if model.name == "infvsr")
    files = tuple(known if file is published.WAN_VAE else file for file in infvsr.files)
    monkeypatch.setattr(published, "MODELS", (dataclasses.replace(infvsr, files=files),))
    (tmp_path / "wan2.1_vae.PTH").write_bytes(content)
    (tmp_path / "infvsr.ckpt").write_bytes(b"x")
    shutil.copy(BUNDLED["oasis-tiny"], tmp_path / "mine.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"no safetensors")
    assert main(["models", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    states = {name: file["state"] for name, file in files_of(facts, "infvsr").items()}
    assert states["Wan2.1_VAE.pth"] == states["InfVSR.ckpt"] == "here"
    assert states["DAPE.pth"] == "absent"
    assert list(facts["checkpoints"].values()) == ["oasis-tiny"]
    assert main(["models", str(tmp_path), "--check"]) == 0
    text = capsys.readouterr().out
    assert "Apache-2.0; as published" in text
    assert "what it should be is not known" in text
    assert "then: oasis convert --source infvsr InfVSR.ckpt" in text
    assert "mine.safetensors: ready to use, oasis-tiny" in text
    (tmp_path / "wan2.1_vae.PTH").write_bytes(b"A vae")
    assert main(["models", str(tmp_path), "--check"]) == 0
    assert "here, but another file: sha256" in capsys.readouterr().out
    (tmp_path / "wan2.1_vae.PTH").write_bytes(b"a")
    assert main(["models", str(tmp_path)]) == 0
    assert "here, but of 1 bytes: incomplete" in capsys.readouterr().out


def test_a_folder_must_exist(tmp_path, capsys):
    assert main(["models", str(tmp_path / "none")]) == 1
    assert "FOLDER must be one that exists" in capsys.readouterr().err


@pytest.mark.parametrize("model", published.MODELS, ids=lambda model: model.name)
def test_what_is_said_of_files_agrees_with_the_converter(model):
    for file in model.files:
        assert file.sha256 is None or PUBLIC[file.sha256].endswith(file.name)
        assert file.is_optional or file.name in model.convert
