import socket
import sys
import time

import pytest

from oasis_core.cli import main
from oasis_core.cluster.connect import connect, import_ray


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path, make_film, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    film = make_film(tmp_path / "film.mp4", lengths=(3,))
    code = main(["upscale", str(film), str(tmp_path / "o.mp4"), "--engine", "ray"])
    assert code == 1
    assert "pip install 'oasis-video-upscaler[cluster]'" in capsys.readouterr().err


@pytest.fixture
def ray():
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    return import_ray()


def test_an_address_that_does_not_answer_is_said_soon(ray):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        port, start = taken.getsockname()[1], time.monotonic()
        with pytest.raises(ValueError, match=rf"127\.0\.0\.1:{port} must answer within 5 s"):
            connect(ray, f"127.0.0.1:{port}", None)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("address", ["ray://here:10001", "http://here"])
def test_other_protocols_are_refused(ray, address):
    with pytest.raises(ValueError, match=r"must be auto or HOST\[:PORT\]"):
        connect(ray, address, None)


def test_options_of_the_other_engine_are_refused(tmp_path, make_film, capsys):
    film = make_film(tmp_path / "film.mp4", lengths=(3,))
    assert main(["upscale", str(film), str(tmp_path / "o.mp4"), "--workers", "2"]) == 1
    assert "--workers is for --engine ray" in capsys.readouterr().err
