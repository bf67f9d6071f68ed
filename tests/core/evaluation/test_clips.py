import json
import re
from pathlib import Path

import pytest
import torch

from oasis_core.choices import STANDARD_SETS
from oasis_core.cli import main
from oasis_core.evaluation.clips import (
    ClipSource,
    EvaluationError,
    distinct_names,
    find_sources,
    list_clips,
    pair_folders,
    read_clip,
    read_frames,
)
from oasis_core.evaluation.datasets import LAYOUTS, find_set
from oasis_core.evaluation.pictures import encode_picture
from oasis_core.video import VideoError


def picture(path, height=16, width=24, value=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_picture(torch.full((3, height, width), value)))


def clip_folder(folder, num_frames=2, **size):
    for index in range(num_frames):
        picture(folder / f"{index:04}.png", value=index / 4, **size)
    return folder


def test_frames_of_a_folder_come_in_order(tmp_path):
    clip = read_frames(clip_folder(tmp_path / "a", 3))
    assert clip.shape == (3, 3, 16, 24)
    assert clip.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0.25, 0.5], abs=2e-3)
    assert read_clip(tmp_path / "a", 2, multiple=5).shape == (2, 3, 15, 20)


def test_clips_are_videos_and_picture_folders(tmp_path):
    clip_folder(tmp_path / "b")
    clip_folder(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    assert [clip.name for clip in list_clips(tmp_path)] == ["a", "b"]
    assert list_clips(tmp_path / "a") == [tmp_path / "a"]
    assert [source.name for source in find_sources([tmp_path])] == ["a", "b"]


def test_clips_of_one_name_are_told_apart_and_one_clip_counts_once(tmp_path, monkeypatch):
    for folder in ("a/x", "b/x", "b/y"):
        clip_folder(tmp_path / folder)
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "b" / ".." / "b" / "y"]
    assert [source.name for source in find_sources(paths)] == ["a/x", "b/x", "y"]
    monkeypatch.chdir(tmp_path)
    clip_folder(tmp_path / "x")
    relative = [Path("x"), Path("a/x"), Path("b/x")]
    assert [source.name for source in find_sources(relative)] == ["x", "a/x", "b/x"]
    nameless = [ClipSource(name="x"), ClipSource(name="x")]
    assert [source.name for source in distinct_names(nameless)] == ["x (1)", "x (2)"]


def test_two_files_of_one_name_are_no_pair(tmp_path):
    for name in ("x.mp4", "x.mkv"):
        (tmp_path / name).write_bytes(b"film")
    with pytest.raises(EvaluationError, match=r"holds both x\.mkv and x\.mp4; rename or remove"):
        pair_folders(truth=tmp_path, low=None, restored={})


def test_folders_are_paired_by_name(tmp_path):
    for role in ("gt", "lq", "ours"):
        clip_folder(tmp_path / role / "one")
        clip_folder(tmp_path / role / "two")
    pairs = pair_folders(
        truth=tmp_path / "gt", low=tmp_path / "lq", restored={"ours": tmp_path / "ours"}
    )
    assert [pair.name for pair in pairs] == ["one", "two"]
    assert pairs[1].low == tmp_path / "lq" / "two"
    assert pairs[1].restored["ours"] == tmp_path / "ours" / "two"


def test_mismatched_names_are_named(tmp_path):
    for name in ("one", "two"):
        clip_folder(tmp_path / "gt" / name)
    for name in ("one", "three"):
        clip_folder(tmp_path / "lq" / name)
    with pytest.raises(EvaluationError, match=r"'three' is in one of them only \(2 such names\)"):
        pair_folders(truth=tmp_path / "gt", low=tmp_path / "lq", restored={})


def test_two_picture_folders_are_a_pair_and_two_single_clips_need_one_name(tmp_path):
    clip_folder(tmp_path / "sharp")
    clip_folder(tmp_path / "blurred")
    (pair,) = pair_folders(truth=tmp_path / "sharp", low=tmp_path / "blurred", restored={})
    assert (pair.name, pair.low) == ("sharp", tmp_path / "blurred")
    clip_folder(tmp_path / "gt" / "one")
    clip_folder(tmp_path / "lq" / "other")
    with pytest.raises(EvaluationError, match="must have the same names"):
        pair_folders(truth=tmp_path / "gt", low=tmp_path / "lq", restored={})


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_missing_and_empty_folders_are_one_sentence(tmp_path, make):
    make(tmp_path / "gt")
    with pytest.raises(EvaluationError, match=r"does not exist|holds no clip"):
        pair_folders(truth=tmp_path / "gt", low=None, restored={})


def test_pictures_of_other_sizes_are_refused(tmp_path):
    clip_folder(tmp_path / "a", 1)
    picture(tmp_path / "a" / "9.png", 20, 24)
    with pytest.raises(VideoError, match="is 24x20 px and the pictures before it are 24x16"):
        read_frames(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "truth", "low"),
    [
        ("udm10", "GT/000", "LQ/000"),
        ("udm10", "archpeople/truth", "archpeople/blur4"),
        ("spmcs", "car05_001/truth", "car05_001/input4"),
        ("youhq40", "GT/12", "LQ/12"),
        ("realvsr", "GT_test/003", "LQ_test/003"),
        ("mvsr4x", "HR/001", "LR/001"),
        ("reds4", "train_sharp/011", "train_sharp_bicubic/X4/011"),
        ("vid4", "GT/city", "BDx4/city"),
        ("videolq", "", "000"),
    ],
)
def test_published_layouts_are_recognised(tmp_path, name, truth, low):
    if name == "reds4":
        for clip in ("000", "011", "015", "020", "240"):
            for side in (truth, low):
                clip_folder(tmp_path / side.replace("011", clip), 1)
    for side in (truth, low):
        if side:
            clip_folder(tmp_path / side, 1)
    sources = find_set(name, tmp_path)
    assert len(sources) == (4 if name == "reds4" else 1)
    chosen = sources[1 if name == "reds4" else 0]
    assert chosen.low == tmp_path / low
    assert chosen.truth == (tmp_path / truth if truth else None)


EVERY_LAYOUT = [(name, index) for name in LAYOUTS for index in range(len(LAYOUTS[name]))]


@pytest.mark.parametrize(("name", "index"), EVERY_LAYOUT)
def test_every_layout_of_every_set_is_found_where_it_was_made(tmp_path, name, index):
    layout = LAYOUTS[name][index]
    clips = list(layout.clips) or ["b_2", "a-1"]
    for clip in clips:
        for pattern in filter(None, (layout.truth, layout.low)):
            clip_folder(tmp_path / pattern.replace("*", clip), 1)
    sources = find_set(name, tmp_path)
    assert [source.name for source in sources] == sorted(clips)
    for source in sources:
        for found, pattern in ((source.truth, layout.truth), (source.low, layout.low)):
            assert found == (tmp_path / pattern.replace("*", source.name) if pattern else None)


@pytest.mark.parametrize(
    ("name", "truth", "low", "columns"),
    [
        ("vid4", "GT/city", "BIx4/city", {"psnr_db", "ssim"}),
        ("videolq", "", "Input/000", set()),
        ("youhq40", "GT/12", "", {"psnr_db", "ssim"}),
    ],
)
def test_a_set_is_measured_by_one_command(tmp_path, name, truth, low, columns):
    for side, size in ((truth, 64), (low, 16)):
        if side:
            folder = tmp_path / "set" / side
            folder.mkdir(parents=True)
            for index in range(2):
                image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(index))
                (folder / f"{index:03}.png").write_bytes(encode_picture(image))
    out = tmp_path / "out"
    command = ["evaluate", "--set", name, str(tmp_path / "set"), "--out", str(out)]
    assert main([*command, "--metrics", "psnr_db,ssim", "--degradation", "light"]) == 0
    (clip,) = json.loads((out / "results.json").read_text())["clips"]
    assert clip["degradation"] == ("given" if low else "light")
    assert set(clip["methods"]["model"]) == columns
    assert clip["size"] == [64, 64]
    assert "data:image/png" in (out / "report.html").read_text()


def test_unknown_layouts_say_what_was_looked_for(tmp_path):
    with pytest.raises(EvaluationError, match=r"looked for GT-Video/\* and LQ-Video/\*"):
        find_set("udm10", tmp_path)
    with pytest.raises(EvaluationError, match="set must be one of"):
        find_set("kodak", tmp_path)
    assert tuple(LAYOUTS) == STANDARD_SETS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["clip.mp4", "--scale", "0"], r"--scale must be in \[1, 16\], got 0"),
        (["clip.mp4", "--frames", "-3"], "--frames must be at least 0"),
        ([], "name either sharp clips"),
        (["clip.mp4", "--low", "x"], "name either sharp clips"),
        (["none.mp4"], "'none.mp4' does not exist"),
        (["--truth", __file__], "must be a folder of clips, but is a file"),
        (["--truth", ".", "--restored", "a=http://h/b"], "--restored must be on a disk, got"),
        (["--set", "vid4", "http://h/b"], "the folder of --set must be on a disk, got 'http://h/b"),
        (["a", "b", "--set", "vid4"], "needs one folder"),
    ],
)
def test_bad_command_lines_are_one_sentence(options, message, capsys):
    assert main(["evaluate", *options]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_frames_without_leading_zeros_come_in_natural_order(tmp_path):
    for number in (1, 2, 10):
        picture(tmp_path / f"f{number}.png", value=number / 16)
    clip = read_frames(tmp_path)
    assert clip.mean(dim=(1, 2, 3)).tolist() == pytest.approx([1 / 16, 2 / 16, 10 / 16], abs=3e-3)


def test_clips_come_in_natural_order(tmp_path):
    for number in (10, 9):
        clip_folder(tmp_path / f"clip{number}")
    assert [clip.name for clip in list_clips(tmp_path)] == ["clip9", "clip10"]
