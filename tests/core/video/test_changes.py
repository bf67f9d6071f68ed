"""Films that go on as another one: said before the work, stopped at, fitted, or done in parts."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from changing_films import in_one_index, joined, several_descriptions

from oasis_core.video import ChangeError, ImageReader, Source, TimeWindow, VideoReader
from oasis_core.video.changes import PictureKind, fitted, split_s

NO_B = {"bf": "0"}
NUM = 12
OTHERS = {
    "size": ({"size": (80, 48)}, r"its size from 64x48 to 80x48"),
    "shape": ({"aspect": Fraction(4, 3)}, r"its pixels' shape from 1:1 to 4:3"),
    "light": ({"tags": (9, 16, 9, 1)}, r"its colours from SDR BT.709 to PQ BT.2020"),
}
JOINED = [
    ("ts", "libx264"), ("ts", "libx265"), ("ts", "mpeg2video"), ("mpg", "mpeg2video"),
    ("h264", "libx264"), ("m2v", "mpeg2video"),
]  # fmt: skip


def films(make_clip, tmp_path, suffix, codec, other):
    first = make_clip(f"a.{suffix}", codec=codec, pts=NUM)
    second = make_clip(f"b.{suffix}", codec=codec, pts=NUM, **other)
    return joined(tmp_path / f"both.{suffix}", first, second)


def described(make_clip, tmp_path, codec, other):
    parts = [
        make_clip(f"{index}.mp4", codec=codec, pts=NUM, options=NO_B, **options)
        for index, options in enumerate(({}, other))
    ]
    return several_descriptions(tmp_path / "both.mp4", *parts)


def check(path, change):
    """A film of two parts: the survey, both ways to go on, and the second part by itself."""
    source = Source.resolve(path)
    survey = source.survey(source.probe())
    assert survey.num_frames in (2 * NUM, None)
    (said,) = survey.changes
    assert (said.number, said.at_s) == (NUM, pytest.approx(NUM / 25))
    with pytest.raises(ChangeError, match=rf"{change} at frame 12 \(0.480 s\).*--start 0.480"):
        survey.refuse_changes(path, None)
    read = []
    with VideoReader(path) as reader, pytest.raises(ChangeError, match=change) as caught:
        read += iter(reader)
    assert caught.value.at_s == pytest.approx(NUM / 25)
    with VideoReader(path, on_change="scale") as reader:
        frames = list(reader)
    assert [frame.begins for frame in frames] == [i == NUM for i in range(2 * NUM)]
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}
    assert all(frame.duration == frames[0].duration for frame in frames[:-1])
    return frames


@pytest.mark.parametrize(("suffix", "codec"), JOINED)
@pytest.mark.parametrize("kind", ["size", "shape"])
def test_joined_films_of_two_kinds(make_clip, tmp_path, suffix, codec, kind):
    other, change = OTHERS[kind]
    path = films(make_clip, tmp_path, suffix, codec, other)
    frames = check(path, change)
    # Shown wider than the first: bars above and below, and between them the picture.
    dark = [frame.pixels[:4].max() < 2 for frame in frames]
    assert dark == [False] * NUM + [True] * NUM
    window = TimeWindow(start_s=NUM / 25, context_frames=2)
    with VideoReader(path, window=window) as reader:
        rest = list(reader)
        width, aspect = reader.info.width, reader.info.sample_aspect_ratio
    assert len(rest) == NUM
    assert not any(frame.is_context or frame.begins for frame in rest)
    assert (width, aspect) == ((80, 1) if kind == "size" else (64, Fraction(4, 3)))
    with VideoReader(path, window=TimeWindow(duration_s=NUM / 25, context_frames=2)) as reader:
        assert len(list(reader)) == NUM


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
@pytest.mark.parametrize("kind", ["size", "shape"])
def test_an_index_with_several_descriptions(make_clip, tmp_path, codec, kind):
    other, change = OTHERS[kind]
    path = described(make_clip, tmp_path, codec, other)
    check(path, change)
    source = Source.resolve(path)
    info = source.probe()
    assert info.sample_aspect_ratio == 1  # FFmpeg says that of the last description
    window = TimeWindow(start_s=NUM / 25)
    survey = source.survey(info, window)
    wanted = (80, Fraction(1)) if kind == "size" else (64, Fraction(4, 3))
    assert (survey.info.width, survey.info.sample_aspect_ratio) == wanted
    assert (survey.num_frames, survey.changes) == (NUM, ())


def test_another_light_is_no_picture_of_the_same_film(make_clip, tmp_path):
    other, change = OTHERS["light"]
    check(films(make_clip, tmp_path, "ts", "libx265", other), change)


def test_what_is_only_stored_otherwise_is_read_right(make_clip, tmp_path):
    """Ten bits, 4:2:2, full range, another matrix: the same colours come out, in 8 bits."""
    first = make_clip("a.ts", pts=3, size=(64, 48))
    options = {"pixel_format": "yuv422p10le", "tags": (2, 2, 1, 2)}
    path = joined(tmp_path / "both.ts", first, make_clip("b.ts", pts=3, **options))
    source = Source.resolve(path)
    assert source.survey(source.probe()).changes == ()
    with VideoReader(path) as reader:
        frames = list(reader)
    with VideoReader(tmp_path / "b.ts") as reader:
        alone = [frame.pixels for frame in reader]
    assert len(frames) == 6
    assert not any(frame.begins for frame in frames)
    assert {frame.pixels.dtype for frame in frames} == {np.dtype(np.uint8)}
    for frame, pixels in zip(frames[3:], alone, strict=True):
        assert np.abs(frame.pixels * 257.0 - pixels).max() <= 257


def test_what_the_index_does_not_tell_is_met_on_the_way(make_clip, tmp_path):
    sizes = ((64, 48), (80, 48), (64, 48))
    parts = [make_clip(f"{i}.h264", pts=5, size=s, options=NO_B) for i, s in enumerate(sizes)]
    path = in_one_index(tmp_path / "both.mp4", *parts)
    source = Source.resolve(path)
    assert source.survey(source.probe()).changes == ()
    with VideoReader(path) as reader, pytest.raises(ChangeError, match=r"at frame 5 \(0.200 s\)"):
        list(reader)
    with VideoReader(path, on_change="scale") as reader:
        assert [i for i, frame in enumerate(reader) if frame.begins] == [5, 10]


def test_fields_of_two_sizes_are_no_one_filter(make_clip, tmp_path):
    parts = [make_clip(f"{i}.ts", pts=5, size=s) for i, s in enumerate(((96, 64), (64, 48)))]
    path = joined(tmp_path / "both.ts", *parts)
    with VideoReader(path, on_change="scale", deinterlace=True) as reader:
        frames = list(reader)
    assert len(frames) == 10
    assert {f.pixels.shape for f in frames} == {(64, 96, 3)}


def test_pictures_of_another_size_are_fitted(clips, tmp_path):
    names = [tmp_path / f"{i}.png" for i in range(2)]
    for name, size in zip(names, ((64, 48), (32, 48)), strict=True):
        clips.write_clip(name, codec="png", pixel_format="rgba", pts=1, size=size, format="image2")
    with pytest.raises(ValueError, match="--on-change scale"):
        list(ImageReader(names))
    _, second = ImageReader(names, on_change="scale")
    with ImageReader(names[1:]) as reader:
        (alone,) = reader
    assert (second.pixels[:, 16:48] == alone.pixels).all()
    assert not second.alpha[:, :16].any()
    assert (second.alpha[:, 16:48] == 255).all()


def kind(width, height, aspect=1):
    return PictureKind(
        width=width, height=height, aspect=Fraction(aspect), pixel_format="", light="", gamut=""
    )


@pytest.mark.parametrize(
    ("size", "aspect", "inner"),
    [((128, 96), 1, (48, 64)), ((48, 48), Fraction(4, 3), (48, 64)), ((64, 24), 1, (24, 64)),
     ((24, 48), 1, (48, 24)), ((65, 48), 1, (48, 64))],
)  # fmt: skip
def test_a_picture_keeps_its_shape(size, aspect, inner):
    white = np.full((size[1], size[0], 3), 65535, np.uint16)
    picture = fitted(white, kind(*size, aspect), kind(64, 48))
    assert picture.shape == (48, 64, 3)
    rows, columns = (picture.any(axis=(1, 2)).sum(), picture.any(axis=(0, 2)).sum())
    assert (rows, columns) == inner


def test_a_time_to_split_at_parts_two_frames():
    for number in range(1, 3000):
        at_s = split_s(number * 1001 / 30000)
        assert (number - 1) * 1001 / 30000 < at_s <= number * 1001 / 30000


def test_the_error_survives_another_process():
    error = pickle.loads(pickle.dumps(ChangeError("it changes", "split it", 2.5)))
    assert (str(error), error.fact, error.at_s) == ("it changes; split it", "it changes", 2.5)
