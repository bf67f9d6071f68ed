"""Footage in WebDataset archives: the same samples as any number of processes, from disk or URL."""

import importlib.util
import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oasis_core.evaluation.pictures import encode_picture
from oasis_core.extras import MissingExtraError
from oasis_core.training.archives import find_archives
from oasis_core.training.config import StageConfig, TrainingConfig, TrainingError
from oasis_core.training.data import load_footage, make_shard

pytest.importorskip("webdataset", reason="needs the extra `train`")

STAGE = StageConfig(
    name="only",
    num_steps=2,
    learning_rate=1e-3,
    final_learning_rate=1e-3,
    warmup_steps=1,
    batch_size=4,
    num_frames=2,
    crop_px=32,
    degradations={"light": 1.0},
)


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def archives(tmp_path):
    """Three archives of one flat grey each, so that a sample tells where it is from."""
    for index in range(3):
        with tarfile.open(tmp_path / f"clips-{index:03d}.tar", "w") as archive:
            grey = torch.full((3, 80, 80), 0.2 + 0.2 * index)
            add(archive, "a.png", encode_picture(grey))
            add(archive, "a.json", b"{}")
            add(archive, "small.png", encode_picture(grey[:, :16, :16]))
            add(archive, "broken.png", b"no picture")
    return tmp_path


def config_of(*patterns):
    return TrainingConfig(
        model="oasis-tiny",
        data_dirs=(),
        output_dir="",
        stages=(STAGE,),
        samples_per_shard=8,
        data_archives=tuple(map(str, patterns)),
    )


def test_every_archive_is_used_once_before_any_is_used_again(archives):
    config = config_of(archives / "clips-{000..002}.tar")
    footage = load_footage(config, STAGE)
    visits = [footage.archive_of(*divmod(visit, 4)) for visit in range(12)]
    assert all(len(set(visits[start : start + 3])) == 3 for start in range(0, 12, 3))
    assert len({tuple(visits[start : start + 3]) for start in range(0, 12, 3)}) > 1
    again = load_footage(config, STAGE)
    assert [again.archive_of(*divmod(visit, 4)) for visit in range(12)] == visits


def test_processes_together_make_what_one_would(archives):
    config = config_of(archives / "*.tar")
    footage = load_footage(config, STAGE)
    whole = make_shard(config, 0, 1, footage)
    for place in range(4):
        part = make_shard(config, 0, 1, footage, range(place, place + 1))
        assert torch.equal(part.truth, whole.truth[place::4])
        # Each place has an archive of its own, and with it one grey.
        index = int(footage.archive_of(1, place)[-5])
        assert (part.truth.float() / 255 - 0.2 - 0.2 * index).abs().max() < 0.01


def test_archives_behind_urls_are_streamed(archives):
    pytest.importorskip("aiohttp", reason="needs fsspec[http]")
    path = Path(__file__).parents[1] / "file_server.py"
    spec = importlib.util.spec_from_file_location("file_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    here = config_of(archives / "clips-{000..002}.tar")
    with module.FileServer(archives) as server:
        there = config_of(f"{server.url}/clips-{{000..002}}.tar")
        shard = make_shard(there, 0, 0, load_footage(there, STAGE))
    expected = make_shard(here, 0, 0, load_footage(here, STAGE))
    assert torch.equal(shard.truth, expected.truth)


def test_archives_in_the_home_folder_are_found(archives, monkeypatch):
    monkeypatch.setenv("HOME", str(archives))
    monkeypatch.setenv("USERPROFILE", str(archives))
    expected = tuple(str(archives / f"clips-{index:03d}.tar") for index in range(3))
    assert find_archives(("~/clips-{000..002}.tar",)) == expected
    assert find_archives(("~/clips-*.tar",)) == expected


def test_what_a_url_hides_is_not_said(archives):
    config = config_of("http://user:secret@127.0.0.1:9/clips.tar?key=secret")
    with pytest.raises(TrainingError, match=r"'http://127\.0\.0\.1:9/clips\.tar'") as caught:
        make_shard(config, 0, 0, load_footage(config, STAGE))
    assert "secret" not in str(caught.value)
    assert config.to_json()["data_archives"] == ("http://127.0.0.1:9/clips.tar",)
    # A signature that expired is replaced by another one, and the run goes on.
    renewed = config_of("http://user:secret@127.0.0.1:9/clips.tar?key=other")
    assert config.fingerprint() == renewed.fingerprint()


def test_archives_that_cannot_be_used_are_named(archives, monkeypatch):
    (archives / "text.tar").write_bytes(b"no archive" * 100)
    with tarfile.open(archives / "empty.tar", "w") as archive:
        add(archive, "readme.txt", b"nothing here")
    for name, message in (
        ("clips-{000..003}.tar", r"clips-003\.tar is none; check the pattern"),
        ("none-*.tar", r"none-\*\.tar is none; check the pattern"),
    ):
        with pytest.raises(TrainingError, match=message):
            find_archives((str(archives / "clips-*.tar"), str(archives / name)))
    for name, message in (
        ("text.tar", r"text\.tar' cannot be read"),
        ("empty.tar", r"empty\.tar' must hold a clip or still of 64 px"),
    ):
        config = config_of(archives / name)
        with pytest.raises(TrainingError, match=message):
            make_shard(config, 0, 0, load_footage(config, STAGE))
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'oasis-video-upscaler\[train\]'"):
        find_archives(("a.tar",))


def test_runs_without_archives_keep_their_fingerprint(archives):
    plain = replace(config_of(), data_archives=())
    assert plain.fingerprint() != config_of(archives / "*.tar").fingerprint()
    assert plain.fingerprint() == replace(plain, sharded_state=True).fingerprint()
