"""Sizes by name, by box and by limit, from file to file."""

import logging

import pytest

from oasis_core import cli
from oasis_core.upscale import VideoUpscaler, forecast_file, upscale_file
from oasis_core.video import probe


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, device="cpu", dtype="float32")


def size_of(path):
    info = probe(path)
    return info.width, info.height


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"fit": (60, 60)}, (60, 46)),
        ({"scale": 2, "max_side": 40}, (40, 30)),
        ({"size": (33, 25), "even": True}, (32, 24)),
    ],
)
def test_the_file_has_the_size(write_video, upscaler, tmp_path, asked, size):
    source = write_video(lengths=(2,))  # 32x24
    upscale_file(source, tmp_path / "o.mp4", upscaler=upscaler, **asked)
    assert size_of(tmp_path / "o.mp4") == size


def test_a_name_is_the_shorter_side(write_video, upscaler, tmp_path):
    source = write_video(lengths=(2,))
    forecast = forecast_file(source, tmp_path / "o.mp4", upscaler=upscaler, size="1080p")
    assert (forecast.width, forecast.height) == (1440, 1080)


def test_odd_sides_are_announced_with_the_remedy(write_video, upscaler, tmp_path, caplog):
    source = write_video(lengths=(2,))
    with caplog.at_level(logging.WARNING):
        upscale_file(source, tmp_path / "o.mp4", upscaler=upscaler, size=(33, 24))
        assert "33x24 is odd" in caplog.text
        assert "--even makes it 32x24" in caplog.text
        caplog.clear()
        upscale_file(
            source, tmp_path / "p.mp4", upscaler=upscaler, size=(33, 24), pix_fmt="yuv444p"
        )
        upscale_file(source, tmp_path / "q.mp4", upscaler=upscaler, size=(33, 24), even=True)
        assert "odd" not in caplog.text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--size", "1080i"], "must be WIDTHxHEIGHT, like 1280x720, or 240p"),
        (["--size", "1080i"], "did you mean '1080p'"),
        (["--fit", "4x4"], "fit must be at least 8x8 pixels, got 4x4"),
        (["--fit", "wide"], "must be WIDTHxHEIGHT"),
        (["--max-side", "0"], "max_side must be a whole number of at least 8 pixels, got 0"),
        (["--scale", "2", "--fit", "64x64"], "not allowed with argument --scale"),
        (["--scale", "0"], "scale must be"),
    ],
)
def test_what_is_no_size_is_one_sentence(write_video, tmp_path, capsys, words, sentence):
    source = write_video(lengths=(2,))
    try:
        code = cli.main(["upscale", str(source), str(tmp_path / "o.mp4"), *words])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code != 0
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "o.mp4").exists()
