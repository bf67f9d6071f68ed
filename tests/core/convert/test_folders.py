"""Public files in a folder: which model they make, what is missing, and making it once."""

import dataclasses
import logging

import pytest
from flashvsr_files import NAMES, REFERENCE, flashvsr_tensors, write_flashvsr_files
from infvsr_files import REFERENCE as INFVSR_REFERENCE
from infvsr_files import public_tensors, write_files

import oasis_core
from oasis_core.convert import flashvsr, folders, infvsr
from oasis_core.convert.folders import convert_set, find_set, is_part, models_among


@pytest.fixture
def narrowed(monkeypatch):
    """Converters that take the narrow files of the tests for the published ones."""
    whole, other = flashvsr.convert_flashvsr, infvsr.convert_infvsr
    monkeypatch.setattr(
        flashvsr,
        "convert_flashvsr",
        lambda *a, **k: whole(*a, **k, reference=REFERENCE, magnitudes={}),
    )
    monkeypatch.setattr(
        infvsr, "convert_infvsr", lambda *a, **k: other(*a, **k, reference=INFVSR_REFERENCE)
    )


def test_models_are_told_by_the_name_of_their_transformer():
    names = [model.name for model in models_among(["INFVSR.ckpt", "x", "FlashVSR1_1.safetensors"])]
    assert names == ["infvsr", "flashvsr-1.1"]
    assert models_among(["LQ_proj_in.ckpt", "wan2.1_t2v_1.3B_fp16.safetensors"]) == []
    assert is_part("flashvsr1_1.SAFETENSORS")
    assert is_part("Prompt.safetensors")
    assert not is_part("infvsr.safetensors")


def test_what_is_missing_is_named_with_its_place(tmp_path):
    assert find_set(tmp_path, "flashvsr-1.1.safetensors") is None
    (tmp_path / "FlashVSR1_1.safetensors").write_bytes(b"x")
    (tmp_path / "Prompt.safetensors").write_bytes(b"x")
    assert find_set(tmp_path, "infvsr.safetensors") is None
    assert find_set(tmp_path, "other.safetensors") is None
    files = find_set(tmp_path, "flashvsr-1.1.safetensors")
    assert set(files.parts) == {"transformer", "prompt"}
    with pytest.raises(ValueError, match=r"needs 2 more files in .*LQ_proj_in.ckpt \(HF Jun"):
        convert_set(files)
    (tmp_path / "lq_proj_in.safetensors").write_bytes(b"x")
    (tmp_path / "wan_2.1_vae.safetensors").write_bytes(b"x")
    files = find_set(tmp_path, "flashvsr-1.1.safetensors")
    assert files.missing() == []
    assert files.parts["vae"].name == "wan_2.1_vae.safetensors"


@pytest.mark.parametrize("name", ["infvsr", "flashvsr-1.1"])
def test_files_become_a_model_once(tmp_path, narrowed, caplog, name):
    if name == "infvsr":
        write_files(tmp_path, public_tensors())
    else:
        write_flashvsr_files(tmp_path, flashvsr_tensors())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    files = find_set(tmp_path, f"{name}.safetensors")
    assert files.missing() == []
    seen = []
    with caplog.at_level(logging.INFO):
        path = convert_set(files, lambda done, total: seen.append(done / total))
    assert "GB of disk, 1.1 GB of memory" in caplog.text
    assert path == tmp_path / f"{name}.safetensors"
    assert seen[-1] == 1
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p != path}
    assert after == before
    assert oasis_core.load(path, device="cpu").name == name


def test_stopping_leaves_nothing(tmp_path, narrowed):
    write_flashvsr_files(tmp_path, flashvsr_tensors())

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        convert_set(find_set(tmp_path, "flashvsr-1.1.safetensors"), stop)
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES.values())


def test_too_little_memory_is_said_before(tmp_path, narrowed):
    write_flashvsr_files(tmp_path, flashvsr_tensors())
    with pytest.raises(ValueError, match=r"needs 1.1 GB of memory and 0.1 GB are free"):
        convert_set(find_set(tmp_path, "flashvsr-1.1.safetensors"), free_memory=10**8)
    assert not (tmp_path / "flashvsr-1.1.safetensors").exists()


def test_disk_is_estimated_from_the_parts_that_are_there(tmp_path):
    """Of the published sizes: what the page says."""
    (model,) = models_among(["FlashVSR1_1.safetensors"])
    files = folders.PublicSet(model=model, folder=tmp_path, parts={})
    sizes = {}
    for parts in (("tiny",), ("vae",), ("tiny", "vae")):
        present = dict.fromkeys(parts, tmp_path)
        sizes[parts] = folders._disk_bytes(dataclasses.replace(files, parts=present)) / 1e9
    assert sizes["tiny",] == pytest.approx(3.3, abs=0.2)
    assert sizes["tiny", "vae"] > sizes["vae",] > sizes["tiny",]
