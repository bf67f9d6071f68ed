"""Stills, sequences and folders of pictures, checked by another reader."""

from pathlib import Path

import numpy as np
import pytest

import oasis_core
from oasis_core.upscale import VideoUpscaler, journal_path, upscale_file
from oasis_core.video import ImageReader, VideoError, list_images
from oasis_core.video.image_tags import read_image_tags
from oasis_core.video.image_writer import ImageEncoder, ImageSpec
from oasis_core.video.writer import write_atomically

pil = pytest.importorskip("PIL.Image")
PLAIN = {"scale": 1, "strength": 0}


@pytest.fixture
def upscaler(point_model):
    return VideoUpscaler(point_model, device="cpu", dtype="float32")


def picture(index=0, height=24, width=32):
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def exif(orientation):
    block = pil.Exif()
    block[0x0112], block[0x010F] = orientation, "camera"
    return block


def profile():
    cms = pytest.importorskip("PIL.ImageCms")
    return cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()


def save(path, pixels, **options):
    pil.fromarray(pixels).save(path, **options)
    return path


def load(path):
    with pil.open(path) as image:
        image.load()
        return image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_profile_and_camera_data(upscaler, tmp_path, suffix, orientation):
    from PIL import ImageOps

    icc = profile()
    # What other decoders make of halved chroma is not what is tested here.
    options = {".webp": {"lossless": True}, ".jpg": {"subsampling": 0}}.get(suffix, {})
    source = save(
        tmp_path / f"in{suffix}", picture(), exif=exif(orientation), icc_profile=icc, **options
    )
    upright = np.asarray(ImageOps.exif_transpose(load(source)).convert("RGB"))
    quality = {"quality": 100} if suffix == ".webp" else {}
    report = upscale_file(source, tmp_path / f"out{suffix}", upscaler=upscaler, **PLAIN, **quality)
    result = load(tmp_path / f"out{suffix}")
    assert result.size == upright.shape[1::-1]
    assert result.info["icc_profile"] == icc
    assert result.getexif().get(0x0112, 1) == 1
    if suffix == ".tif":
        assert any("camera data" in line for line in report.dropped)
    else:
        assert result.getexif()[0x010F] == "camera"
    error = np.abs(np.asarray(result.convert("RGB")).astype(int) - upright)
    assert error.mean() < (1.5 if suffix == ".jpg" else 0.001)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_sixteen_bits_stay_sixteen(upscaler, tmp_path, suffix, has_alpha):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 65536, (24, 32, 3)).astype(np.uint16)
    alpha = rng.integers(1, 65536, (24, 32)).astype(np.uint16) if has_alpha else None
    spec = ImageSpec(suffix=suffix, width=32, height=24, bits=16, has_alpha=has_alpha)
    write_atomically(tmp_path / f"in{suffix}", ImageEncoder(spec).encode(pixels, alpha))
    upscale_file(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", upscaler=upscaler, **PLAIN)
    frame = next(iter(ImageReader([tmp_path / f"out{suffix}"])))
    assert np.abs(frame.pixels.astype(int) - pixels).max() <= 1
    if has_alpha:
        assert np.abs(frame.alpha.astype(int) - alpha).max() <= 1


@pytest.mark.parametrize("name", ["out.png", "out.webp", "out.tif"])
@pytest.mark.parametrize("strength", [0, 1])
def test_white_disc_has_no_fringe(tmp_path, name, strength):
    y, x = np.mgrid[:48, :64]
    alpha = np.clip(16.5 - np.hypot(y - 23.5, x - 31.5), 0, 1) * 255
    pixels = np.where(alpha[..., None] > 0, 255, 0).astype(np.uint8).repeat(3, 2)
    source = save(tmp_path / "in.png", np.dstack([pixels, alpha.astype(np.uint8)]))
    tiny = oasis_core.load("oasis-tiny", "cpu", "float32")
    options = {"quality": 100} if name.endswith("webp") else {}
    upscale_file(source, tmp_path / name, upscaler=tiny, scale=2, strength=strength, **options)
    rgba = np.asarray(load(tmp_path / name).convert("RGBA")).astype(float)
    opacity = rgba[..., 3:] / 255
    for color in ((255, 0, 0), (0, 0, 255), (0, 0, 0)):
        shown = rgba[..., :3] * opacity + np.array(color) * (1 - opacity)
        ideal = 255 * opacity + np.array(color) * (1 - opacity)
        assert np.abs(shown - ideal).max() <= 2
    assert (rgba[47:49, 63:65, 3] == 255).all()
    assert (rgba[:6, :, 3] == 0).all()


def test_a_picture_without_alpha_format_says_so(upscaler, tmp_path):
    rgba = np.dstack([picture(), np.full((24, 32), 100, np.uint8)])
    source = save(tmp_path / "in.png", rgba)
    report = upscale_file(source, tmp_path / "out.jpg", upscaler=upscaler, **PLAIN)
    assert report.dropped == ("transparency: .jpg has none; write .png to keep it",)
    report = upscale_file(source, tmp_path / "out.mp4", upscaler=upscaler, **PLAIN)
    assert "transparency: h264 has none" in report.dropped[0]


@pytest.fixture
def sequence(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (8, 9, 10, 11):
        save(folder / f"shot{number}.png", picture(number))
    return folder


def same(path, number):
    return np.array_equal(np.asarray(load(path)), picture(number))


def test_folder_to_folder_keeps_names(upscaler, sequence, tmp_path):
    report = upscale_file(sequence, tmp_path / "out", upscaler=upscaler, **PLAIN)
    assert report.frames == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"shot8.png", "shot9.png", "shot10.png", "shot11.png"}
    assert all(same(tmp_path / "out" / f"shot{n}.png", n) for n in (8, 9, 10, 11))
    with pytest.raises(VideoError, match="exists already"):
        upscale_file(sequence, tmp_path / "out", upscaler=upscaler, **PLAIN)


def test_pattern_to_pattern_keeps_numbers(upscaler, sequence, tmp_path):
    upscale_file(sequence / "shot%d.png", tmp_path / "o_%04d.tif", upscaler=upscaler, **PLAIN)
    found = sorted(p.name for p in tmp_path.glob("o_*"))
    assert found == ["o_0008.tif", "o_0009.tif", "o_0010.tif", "o_0011.tif"]
    assert same(tmp_path / "o_0010.tif", 10)


def test_pictures_to_video_and_back(upscaler, sequence, read_video, tmp_path):
    upscale_file(sequence, tmp_path / "o.mkv", upscaler=upscaler, codec="ffv1", fps=23.976, **PLAIN)
    frames, times = read_video(tmp_path / "o.mkv")
    assert times == pytest.approx([n * 1001 / 24000 for n in range(4)], abs=0.0006)
    assert all(np.array_equal(f, picture(n)) for f, n in zip(frames, range(8, 12), strict=True))
    upscale_file(tmp_path / "o.mkv", tmp_path / "f_%02d.png", upscaler=upscaler, **PLAIN)
    assert [same(tmp_path / f"f_{i:02d}.png", 7 + i) for i in range(1, 5)] == [True] * 4


def test_a_stopped_sequence_goes_on_even_while_it_is_named(
    upscaler, sequence, tmp_path, monkeypatch
):
    from oasis_core.upscale import picture_target

    calls = []

    def fail_at_third(path, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        path.replace(target)

    with monkeypatch.context() as patch:
        patch.setattr(picture_target, "give_name", fail_at_third)
        with pytest.raises(KeyboardInterrupt):
            upscale_file(sequence, tmp_path / "out", upscaler=upscaler, **PLAIN)
    assert len(list((tmp_path / "out").iterdir())) == 2
    report = upscale_file(sequence, tmp_path / "out", upscaler=upscaler, **PLAIN)
    assert report.num_resumed_segments == report.num_segments
    assert all(same(tmp_path / "out" / f"shot{n}.png", n) for n in (8, 9, 10, 11))
    assert not journal_path(tmp_path / "out").exists()


def test_palette_grey_and_wide_names_are_read(tmp_path):
    palette = pil.fromarray(picture()).convert("P")
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    pil.fromarray(picture()).convert("L").save(tmp_path / "100%d.png")
    assert ImageReader([tmp_path / "p.png"]).info.has_alpha
    frame = next(iter(ImageReader(list_images(tmp_path / "100%d.png"))))
    expected = np.asarray(pil.open(tmp_path / "100%d.png"))
    assert np.array_equal(frame.pixels[..., 0], expected)


def test_bad_pictures_are_one_sentence(upscaler, sequence, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes((sequence / "shot8.png").read_bytes()[:60])
    save(sequence / "shot12.png", picture(1, 28, 36))
    two = tmp_path / "two.webp"
    images = [pil.fromarray(picture(i)) for i in range(2)]
    images[0].save(two, save_all=True, append_images=images[1:], duration=100)
    cases = [
        (tmp_path / "empty", "o", "holds no picture"),
        (tmp_path / "text.png", "o.png", "is not a picture that FFmpeg can read"),
        (cut, "o.png", "cut.png"),
        (tmp_path / "none_%03d.png", "o.png", "no file matches"),
        (tmp_path / "none.png", "o.png", "does not exist"),
        (sequence, "o", "shot12.png' is 36x28 px .* use --stills"),
        (sequence, "one.png", "holds one picture and the source has 5"),
        (sequence / "shot8.png", "no/o.png", "does not exist; create it first"),
    ]
    for source, name, text in cases:
        with pytest.raises(VideoError, match=text) as caught:
            upscale_file(source, tmp_path / name, upscaler=upscaler, **PLAIN)
        assert "\n" not in str(caught.value)
    options = [
        ({"codec": "h264"}, "codec is for videos, got 'h264'"),
        ({"quality": 0}, "quality must be from 1 to 100"),
        ({"fps": -1}, "fps must be at least 0.001"),
    ]
    for option, text in options:
        with pytest.raises(VideoError, match=text):
            upscale_file(
                sequence / "shot8.png", tmp_path / "o.png", upscaler=upscaler, **PLAIN, **option
            )
    assert not list(tmp_path.glob("o*"))


def test_quality_changes_the_size(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in (".jpg", ".webp"):
        sizes = [
            len(
                ImageEncoder(ImageSpec(suffix=suffix, width=64, height=64, quality=q)).encode(
                    pixels
                )
            )
            for q in (20, 60, 95)
        ]
        assert sizes == sorted(set(sizes)), suffix
    assert read_image_tags(Path(__file__)).icc is None


@pytest.mark.parametrize("destination", ["o.mkv", "out", "o_%02d.png"])
def test_a_run_lists_its_source_once_and_warns_once(
    upscaler, sequence, tmp_path, destination, monkeypatch, caplog
):
    listed, original = [], Path.iterdir

    def counted(folder):
        listed.append(folder)
        return original(folder)

    (sequence / "shot10.png").unlink()
    options = PLAIN | ({"codec": "ffv1", "compare": "side"} if destination == "o.mkv" else {})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", counted)
        for number, name in enumerate((sequence, sequence / "shot%d.png")):
            upscale_file(name, tmp_path / f"{number}{destination}", upscaler=upscaler, **options)
    assert listed.count(sequence) == 2
    assert len([r for r in caplog.records if "missing in between" in r.getMessage()]) == 1


def test_pictures_of_one_stem_become_results_of_their_own(upscaler, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "a.jpg", picture(1), quality=100, subsampling=0)
    for number, name in enumerate(("a.png", "b.PNG", "c.bmp"), start=2):
        save(folder / name, picture(number))
    report = upscale_file(
        folder, tmp_path / "out", upscaler=upscaler, compare="side", quality=100, **PLAIN
    )
    assert report.frames == 4
    for place, width in ((tmp_path / "out", 32), (tmp_path / "out.compare", 64)):
        names = sorted(path.name for path in place.iterdir())
        assert names == ["a.jpg", "a.png.jpg", "b.jpg", "c.jpg"]
        assert {load(path).size[0] for path in place.iterdir()} == {width}
    shown = np.asarray(load(tmp_path / "out" / "a.png.jpg").convert("RGB")).astype(int)
    assert np.abs(shown - picture(2)).mean() < 6 < np.abs(shown - picture(1)).mean()
    assert report.dropped == (
        "ending .png: 'a.png' and 1 more written as .jpg, one kind for all; name a pattern such as "
        "out_%05d.png for another",
        "ending .bmp: 'c.bmp' written as .jpg, one kind for all; name a pattern such as "
        "out_%05d.png for another",
    )


@pytest.mark.parametrize("source", ["in", "in/shot_%03d_v2.png"])
def test_numbers_are_the_sources_with_gaps_and_other_digits(upscaler, tmp_path, source):
    (tmp_path / "in").mkdir()
    for number in (1, 2, 3, 5):
        save(tmp_path / "in" / f"shot_{number:03d}_v2.png", picture(number))
    upscale_file(
        tmp_path / source, tmp_path / "big_%03d_v2.png", upscaler=upscaler, compare="side", **PLAIN
    )
    found = sorted(path.name for path in tmp_path.glob("big_*"))
    expected = [f"big_{n:03d}_v2{end}.png" for n in (1, 2, 3, 5) for end in ("", ".compare")]
    assert found == sorted(expected)
    assert all(same(tmp_path / f"big_{n:03d}_v2.png", n) for n in (1, 2, 3, 5))
    assert load(tmp_path / "big_005_v2.compare.png").size == (64, 24)
    upscale_file(tmp_path / source, tmp_path / "p_%d.png", upscaler=upscaler, start_s=0.08, **PLAIN)
    assert sorted(path.name for path in tmp_path.glob("p_*")) == ["p_3.png", "p_5.png"]


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("in/f_%03d.png", "in/f_%03d.png"),
        ("in", "in/f_%03d.png"),
        ("in/f_%03d.png", "in"),
        ("in", "in"),
        ("in/f_001.png", "link/f_001.png"),
        ("in/f_%03d.png", "link/f_%03d.png"),
        ("in/f_%03d.png", "hard_%03d.png"),
    ],
)
def test_pictures_never_replace_themselves(upscaler, tmp_path, source, destination):
    (tmp_path / "in").mkdir()
    for number in (1, 2, 3):
        save(tmp_path / "in" / f"f_{number:03d}.png", picture(number))
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "hard_002.png").hardlink_to(tmp_path / "in" / "f_002.png")
    with pytest.raises(VideoError, match="is the input itself"):
        upscale_file(
            tmp_path / source, tmp_path / destination, upscaler=upscaler, overwrite=True, **PLAIN
        )
    assert all(same(tmp_path / "in" / f"f_{n:03d}.png", n) for n in (1, 2, 3))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("size", [64_900, 65_126])
def test_camera_data_is_reported_as_it_is_in_the_file(upscaler, tmp_path, suffix, size):
    block = exif(1)
    block[0x010E] = "x" * size
    save(tmp_path / "in.png", picture(), exif=block)
    report = upscale_file(tmp_path / "in.png", tmp_path / f"o{suffix}", upscaler=upscaler, **PLAIN)
    is_kept = bool(load(tmp_path / f"o{suffix}").getexif().get(0x010E))
    assert is_kept == (suffix != ".jpg" or size < 65_000)
    assert ("camera data (EXIF): too large for JPEG" in report.dropped) == (not is_kept)
    assert any("camera data (EXIF)" in line for line in report.kept) == is_kept
