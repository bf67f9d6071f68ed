"""What a user names is resolved once: kinds, order, numbers, and how often a folder is read."""

import logging
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from oasis_core.evaluation.pictures import encode_picture
from oasis_core.remote import RemoteFile, as_source
from oasis_core.video import ClipSource, Source, VideoError, open_source
from oasis_core.video.names import distinct, folder_contents, numbers_of


def picture(path, value=0.5, height=16, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_picture(torch.full((3, height, width), value)))
    return path


@pytest.fixture
def scans(monkeypatch):
    """The folders that were listed."""
    found, original = [], Path.iterdir

    def counted(folder):
        found.append(folder)
        return original(folder)

    monkeypatch.setattr(Path, "iterdir", counted)
    return found


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["shot_001_v2", "shot_002_v2", "shot_004_v2"], [1, 2, 4]),
        (["take2_1", "take2_10", "take2_11"], [1, 10, 11]),
        (["f9", "f10"], [9, 10]),
        (["F09", "f10"], [9, 10]),
        (["a7", "b9"], [1, 2]),
        (["1_1", "2_2"], [1, 2]),
        (["x", "y", "z"], [1, 2, 3]),
        (["a_1", "a_01"], [1, 2]),
        (["a1", "a1b2"], [1, 2]),
        (["only_12_v3"], [3]),
        (["only"], [1]),
        (["in_20260101_0005", "in_20260101_0007"], [5, 7]),
    ],
)
def test_the_number_is_what_differs(names, numbers):
    assert numbers_of([Path(f"{name}.png") for name in names]) == numbers


def test_a_gap_stays_a_gap_and_a_folder_is_read_once(tmp_path, scans, caplog):
    for number in (1, 2, 3, 5):
        picture(tmp_path / f"in_{number:03d}.png", number / 8)
    for name in (tmp_path, tmp_path / "in_%03d.png"):
        scans.clear(), caplog.clear()
        source = Source.resolve(name)
        assert (source.kind, source.numbers) == ("pictures", (1, 2, 3, 5))
        info = source.probe()
        assert source.count(info) == info.num_frames == 4
        assert source.fingerprint() == source.again().fingerprint()
        assert not source.has_streams
        means = [frame.pixels.mean() / 255 for frame in source.first_frames(0)]
        assert means == pytest.approx([1 / 8, 2 / 8, 3 / 8, 5 / 8], abs=3e-3)
        assert len(scans) == 2  # once, and once more for `again`
        assert len(caplog.records) == (name != tmp_path)
        assert Source.resolve(source) is source


def test_every_kind_of_name(tmp_path, make_clip):
    film = make_clip("film.mkv", pts=3)
    still = picture(tmp_path / "a_7.png")
    clip = ClipSource(frames=torch.rand(2, 3, 8, 8), frame_rate=Fraction(25))
    names = {
        film: "film",
        str(film): "film",
        tmp_path / "none.mp4": "film",
        tmp_path / "none.png": "pictures",
        still: "pictures",
        "http://127.0.0.1:9/film.mp4": "film",
        as_source("http://127.0.0.1:9/film.mp4"): "film",
        clip: "clip",
    }
    for name, kind in names.items():
        source = Source.resolve(name)
        assert source.kind == kind
        assert str(source) == str(name)
        assert (source.beside is not None) == source.has_streams == (kind == "film")
    assert Source.resolve(still).numbers == (7,)
    assert Source.resolve(film).files == (film,)
    assert Source.resolve("http://127.0.0.1:9/film.mp4").files == ()
    assert Source.resolve(tmp_path / "none.mp4").is_missing()
    assert isinstance(Source.resolve("http://127.0.0.1:9/film.mp4").path, RemoteFile)
    with open_source(Source.resolve(clip)) as reader:
        assert len(list(reader)) == 2


def test_a_resolved_source_travels_and_is_found_again(tmp_path, monkeypatch):
    for number in (2, 10):
        picture(tmp_path / "in" / f"f{number}.png")
    monkeypatch.chdir(tmp_path)
    source = Source.resolve("in").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = pickle.loads(pickle.dumps(source))
    assert there == source
    assert there.again().fingerprint() == source.fingerprint()
    assert [path.name for path in there.pictures] == ["f2.png", "f10.png"]
    picture(tmp_path / "in" / "f3.png")
    assert there.again().fingerprint() != source.fingerprint()
    assert len(list(there.open())) == 2  # what was resolved does not change in the middle


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "holds no picture; looked for"),
        ("empty/in_%02d.png", "no file matches .* the number of digits"),
        ("none/in_%02d.png", "the folder .*none' does not exist"),
        ("http://127.0.0.1:9/in.png", "pictures must be files on a disk"),
    ],
)
def test_what_holds_nothing_is_one_sentence(tmp_path, name, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=sentence):
        Source.resolve(name if "://" in name else tmp_path / name)


@pytest.mark.parametrize("rate", [Fraction(1, 2500), Fraction(1, 1000), Fraction(1000)])
def test_any_rate_of_stills_is_that_rate(tmp_path, rate):
    source = Source.resolve(picture(tmp_path / "a.png"))
    assert source.probe(frame_rate=rate).frame_rate == rate
    assert source.probe(frame_rate=None).frame_rate == 25


def test_moving_pictures_of_a_folder_are_videos(tmp_path, make_clip):
    picture(tmp_path / "f10.png"), picture(tmp_path / "F9.PNG")
    shutil.move(
        make_clip("moving.gif", codec="gif", pixel_format="rgb8", pts=3), tmp_path / "2.gif"
    )
    shutil.move(make_clip("b.mkv", pts=3), tmp_path / "10.mkv")
    films, pictures = folder_contents(tmp_path)
    assert [path.name for path in films] == ["2.gif", "10.mkv"]
    assert [path.name for path in pictures] == ["F9.PNG", "f10.png"]


def test_names_of_results_are_distinct_on_any_file_system():
    files = [Path(name) for name in ("a.jpg", "a.png", "A.tif", "b/a.jpg", "a.jpg.jpg")]
    names = distinct(files, lambda _: ".jpg")
    assert names == ["a.jpg", "a.png.jpg", "A.tif.jpg", "a.jpg.jpg", "a.jpg.jpg.jpg"]
    assert len({name.lower() for name in names}) == len(files)


def test_frames_are_those_the_engine_reads(make_clip):
    """An HD clip without colour tags is BT.709."""
    import av

    color = np.full((720, 1280, 3), (200, 40, 60), np.uint8)
    frame = av.VideoFrame.from_ndarray(color, "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
    frame.color_range = 0
    film = make_clip("hd.mp4", pts=1, size=(1280, 720), frames=[frame])
    logging.getLogger("libav").setLevel(logging.ERROR)
    pixels = next(Source.resolve(film).first_frames(1)).pixels
    assert np.abs(pixels.reshape(-1, 3).mean(axis=0) - (200, 40, 60)).max() < 2
