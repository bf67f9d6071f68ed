"""`oasis doctor`: what it says is so, it finds what is wrong, and it keeps secrets."""

import getpass
import json
import re
import socket
from pathlib import Path

import numpy as np
import torch

from oasis_core import checkpoint, cli, extras
from oasis_core.commands import _self_test
from oasis_core.upscale import VideoUpscaler
from oasis_core.version import __version__

ROOT = Path(__file__).parents[2]


class _Wrong(torch.nn.Module):
    """The bundled network with a driver that adds noise of its own."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, video):
        generator = torch.Generator().manual_seed(0)
        return self.model(video) + 0.1 * torch.randn(video.shape, generator=generator)


def test_what_it_says_is_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    assert cli.main(["doctor", "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["oasis"].startswith(f"{__version__}, Python 3.")
    assert f"torch {torch.__version__}" in facts["packages"]
    assert {"h264", "ffv1"} <= set(facts["encoders"].split(", "))
    assert facts["models"][0] == "oasis-tiny"
    assert facts["models"][1].startswith("broken.safetensors: not usable, ")
    assert facts["auto"][0].startswith("oasis-tiny on cpu in ")
    assert "wrong" not in facts
    gain_db = float(re.search(r"([\d.]+) dB nearer", facts["self-test"][0])[1])
    assert gain_db >= _self_test.LEAST_GAIN_DB


def test_the_text_is_fit_for_strangers(tmp_path, capsys):
    config_free = tmp_path / "mine.safetensors"
    config_free.write_bytes(b"")
    assert cli.main(["doctor", str(tmp_path), "--no-test"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "nothing wrong was found"
    secrets = [str(tmp_path), str(ROOT), socket.gethostname()]
    if len(getpass.getuser()) > 3 and getpass.getuser() != "root":
        secrets.append(getpass.getuser())
    assert not [secret for secret in secrets if secret in said]


def test_wrong_numbers_are_found(monkeypatch):
    model = checkpoint.load_checkpoint(checkpoint.BUNDLED["oasis-tiny"], detail=0.75).model
    wrong = VideoUpscaler(_Wrong(model), device="cpu", dtype="float32")
    (fault,) = _self_test.run_self_test(wrong).faults
    assert "this device computes something else" in fault

    monkeypatch.setattr(_self_test, "run_self_test", lambda _: _SelfTestOf(faults=("it is bad",)))
    assert cli.main(["doctor", "--device", "cpu"]) == 1


def _SelfTestOf(faults):  # noqa: N802 (stands for the class)
    return _self_test.SelfTest(
        gain_db=0.0, agreement_db=12.0, seconds_per_720p=1.0, peak_bytes=1, faults=faults
    )


def test_the_drawn_film_is_the_same_everywhere():
    film = _self_test.draw_film()
    assert film.shape == (12, 256, 384, 3)
    assert film.dtype == np.uint8
    small = _self_test.degrade(film)
    assert small.shape == (12, 64, 96, 3)
    np.testing.assert_array_equal(small, _self_test.degrade(film))


def test_a_folder_must_be_one(capsys):
    assert cli.main(["doctor", "no_such"]) == 1
    assert "'no_such' is no folder" in capsys.readouterr().err


def test_extras_are_those_of_the_project():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = text.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    names = set(re.findall(r"^([a-z0-9-]+) = \[", block, re.M))
    assert names - {"all", "test", "test-wan", "test-cloud", "test-web"} == set(extras.MODULES)
    distributions = {"PIL": "pillow", "pycvvdp": "cvvdp", "aiohttp": "fsspec[http]"}
    for extra, modules in extras.MODULES.items():
        needs = re.search(rf"^{extra} = \[(.*?)\]$", block, re.M | re.S)[1]
        for module in modules:
            assert f'"{distributions.get(module, module)}' in needs, (extra, module)


def test_missing_modules_are_named(monkeypatch):
    monkeypatch.setitem(extras.MODULES, "plot", ("json", "no_such_module"))
    assert extras.missing_modules("plot") == ("no_such_module",)
