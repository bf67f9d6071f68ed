import csv
import dataclasses
import json

import pytest
import torch

from oasis_core.evaluation.benchmark import ClipResult, evaluate, method_means, summarise
from oasis_core.evaluation.clips import ClipSource, EvaluationError, read_frames
from oasis_core.evaluation.html_report import PictureBook, write_report
from oasis_core.evaluation.networks import WEIGHTS_FOLDER
from oasis_core.evaluation.pictures import (
    busiest_crop,
    encode_picture,
    enlarge,
    strip,
    time_slice,
)
from oasis_core.evaluation.suite import MetricSuite
from oasis_core.evaluation.warping import motion, warping_error
from oasis_core.video import VideoError


class Sharpener:
    """Stands for an upscaler: enlarges, and adds a known error that strength switches."""

    name = "stub"

    def upscale(self, video, *, size, strength):
        flat = video[0].transpose(0, 1)
        big = torch.nn.functional.interpolate(flat, size=size[::-1], mode="bicubic").clamp(0, 1)
        return (big + 0.02 * (1 - strength)).clamp(0, 1).transpose(0, 1)[None]


def save_clip(folder, frames):
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        (folder / f"{index:03}.png").write_bytes(encode_picture(frame))
    return folder


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, size=(48, 72), mode="bicubic").clamp(0, 1)
    return torch.cat([wide[..., i : i + 64] for i in range(3)])


SUITE = ("psnr_db", "psnr_y_db", "ssim", "ssim_rgb")


def test_end_to_end_degrades_restores_and_compares(tmp_path, clip):
    source = ClipSource(name="a", truth=save_clip(tmp_path / "a", clip))
    results = evaluate(Sharpener(), [source], suite=MetricSuite(SUITE), degradations=["light"])
    (result,) = results
    assert set(result.methods) == {"bicubic", "model"}
    assert set(result.model) == set(SUITE)
    assert result.gain_db > 0.1
    assert summarise(results)["light"]["mean_gain_db"] == result.gain_db
    assert method_means(results)["light"]["model"] == result.model


def test_the_middle_is_that_of_a_clip_cut_to_it_and_needs_a_sharp_one(tmp_path, clip):
    options = {"suite": MetricSuite(("psnr_db",)), "degradations": ["light"]}
    whole = ClipSource(name="a", truth=save_clip(tmp_path / "a", clip))
    middle = clip[..., 8:40, 16:48]
    cut = ClipSource(name="a", truth=save_clip(tmp_path / "cut" / "a", middle))
    (expected,) = evaluate(Sharpener(), [cut], **options)
    (result,) = evaluate(Sharpener(), [whole], middle_px=32, **options)
    assert result == expected
    assert result.size == (32, 32)
    for pixels, message in ((64, "at least 64x64 px, got 64x48"), (16, "at least 32 px, got 16")):
        with pytest.raises(EvaluationError, match=message):
            evaluate(Sharpener(), [whole], middle_px=pixels, **options)
    pair = dataclasses.replace(cut, low=cut.truth)
    with pytest.raises(EvaluationError, match="sharp clips that are degraded here only"):
        evaluate(Sharpener(), [pair], middle_px=32, **options)


def test_given_pairs_are_restored_to_the_size_of_the_truth(tmp_path, clip):
    low = torch.nn.functional.interpolate(clip, size=(24, 32), mode="area")
    source = ClipSource(
        name="a", truth=save_clip(tmp_path / "gt", clip), low=save_clip(tmp_path / "lq", low)
    )
    (result,) = evaluate(Sharpener(), [source], suite=MetricSuite(SUITE))
    assert result.degradation == "given"
    assert result.size == (64, 48)
    assert result.model["psnr_db"] > 20


def test_restored_folders_are_measured_without_a_model(tmp_path, clip):
    noisy = (clip + 0.1).clamp(0, 1)
    source = ClipSource(
        name="a",
        truth=save_clip(tmp_path / "gt", clip[:, :, :47]),
        restored={"mine": save_clip(tmp_path / "mine", noisy)},
    )
    (result,) = evaluate(None, [source], suite=MetricSuite(SUITE))
    assert result.size == (64, 47)
    assert 20 <= result.methods["mine"]["psnr_db"] < 22
    assert result.gain_db is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:2], "same number of frames, mine has 2|same number of frames, truth has 3"),
        (lambda c: c[..., :40], "sizes must agree to 16 px, truth is 64x48"),
    ],
)
def test_mismatched_pairs_are_one_sentence(tmp_path, clip, change, message):
    source = ClipSource(
        name="a",
        truth=save_clip(tmp_path / "gt", clip),
        restored={"mine": save_clip(tmp_path / "mine", change(clip))},
    )
    with pytest.raises(EvaluationError, match=message):
        evaluate(None, [source], suite=MetricSuite(SUITE))


def test_the_originals_own_flicker_stands_beside_and_is_measured_once(tmp_path, clip):
    source = ClipSource(name="a", truth=save_clip(tmp_path / "a", clip))
    suite, calls = MetricSuite(("warping_error", "ewarp_corrected")), []
    flows = suite.flows

    def counted(truth):
        calls.append(len(truth))
        return flows(truth)

    suite.flows = counted
    results = evaluate(Sharpener(), [source], suite=suite)
    exact = read_frames(source.truth)
    for result in results:
        own = result.methods["original"]
        assert own["warping_error"] == warping_error(exact, motion(exact))
        assert 0 < own["warping_error"] < result.model["warping_error"]
        assert own["ewarp_corrected"] > 0
    assert len(results) == 3
    assert calls == [3]


def test_unreadable_and_unequal_clips_are_skipped_and_listed(tmp_path, clip):
    good = ClipSource(name="good", truth=save_clip(tmp_path / "good", clip))
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    bad = ClipSource(name="bad.mp4", truth=tmp_path / "bad.mp4")
    short = ClipSource(
        name="short", truth=good.truth, restored={"x": save_clip(tmp_path / "s", clip[:2])}
    )
    skipped, suite = {}, MetricSuite(SUITE)
    results = evaluate(
        Sharpener(),
        [bad, good, short],
        suite=suite,
        degradations=["light"],
        on_skip=skipped.__setitem__,
    )
    assert [result.name for result in results] == ["good"]
    assert "not a video that FFmpeg can read" in skipped["bad.mp4"]
    assert "same number of frames" in skipped["short"]
    page = write_report(tmp_path / "out", results, suite, {}, PictureBook(), skipped)
    assert "2 clips were skipped" in page.read_text()
    assert json.loads((tmp_path / "out/results.json").read_text())["skipped"] == skipped
    with pytest.raises(EvaluationError, match="none of the 2 clips could be measured"):
        evaluate(Sharpener(), [bad, short], suite=suite, on_skip=skipped.__setitem__)
    with pytest.raises(VideoError, match="not a video"):
        evaluate(Sharpener(), [bad, good], suite=suite)


def test_nothing_of_a_clip_counts_that_fails_later(tmp_path, clip):
    low = torch.nn.functional.interpolate(clip, size=(12, 16), mode="area")
    truth = save_clip(tmp_path / "gt", clip)
    sharp = ClipSource(name="sharp", truth=truth)
    pair = ClipSource(name="pair", truth=truth, low=save_clip(tmp_path / "lq", low))
    seen, skipped = [], {}
    results = evaluate(
        Sharpener(),
        [sharp, pair],
        suite=MetricSuite(SUITE),
        degradations=["light", "no such"],
        on_result=lambda result, shown: seen.append((result.name, result.degradation)),
        on_skip=skipped.__setitem__,
    )
    assert seen == [("sharp", "light"), ("pair", "given")]
    assert [result.name for result in results] == ["pair"]
    assert "preset must be one of" in skipped["sharp"]


def test_clips_of_one_name_stay_apart(tmp_path, clip):
    folders = [
        save_clip(tmp_path / name / "clip", clip[: index + 1]) for index, name in enumerate("ab")
    ]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "clip").write_bytes(b"no film")
    skipped, book, suite = {}, PictureBook(), MetricSuite(SUITE)
    results = evaluate(
        Sharpener(),
        [*folders, tmp_path / "c" / "clip"],
        suite=suite,
        degradations=["light"],
        on_result=book.add,
        on_skip=skipped.__setitem__,
    )
    assert [(r.name, r.num_frames) for r in results] == [("a/clip", 1), ("b/clip", 2)]
    assert list(skipped) == ["c/clip"]
    assert "jagged" not in book.page("light", "a/clip")
    assert "jagged" in book.page("light", "b/clip")


@pytest.mark.parametrize("has_truth", [True, False])
def test_report_holds_tables_and_pictures_and_no_outside_address(
    tmp_path, clip, has_truth, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(WEIGHTS_FOLDER, raising=False)
    low = torch.nn.functional.interpolate(clip, size=(12, 16), mode="area")
    source = ClipSource(
        name="a<b",
        truth=save_clip(tmp_path / "gt", clip) if has_truth else None,
        low=save_clip(tmp_path / "lq", low),
    )
    book, suite = PictureBook(), MetricSuite((*SUITE, "lpips"))
    results = evaluate(Sharpener(), [source], suite=suite, on_result=book.add)
    scored = [r.with_scores({("a<b", "model"): {"dover": 0.5}}) for r in results]
    page = write_report(tmp_path / "out", scored, suite, {"scale": 4}, book)
    text = page.read_text()
    assert "a&lt;b" in text
    assert "a<b" not in text
    assert ("PSNR-Y" in text) == has_truth
    assert ("dB from the bicubic resize on average; worst clip: a&lt;b" in text) == has_truth
    assert "DOVER" in text
    assert text.count("data:image/png;base64,") >= (4 if has_truth else 3)
    assert 'src="http' not in text
    assert "href=" not in text
    values = json.loads((tmp_path / "out" / "results.json").read_text())
    assert values["clips"][0]["methods"]["model"]["dover"] == 0.5
    assert "lpips" in values["unavailable"]
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["method"] for row in rows] == ["bicubic", "model"]


@pytest.mark.parametrize(("bicubic", "model", "is_marked"), [(0.2, 0.4, False), (2.0, 1.5, True)])
def test_less_change_than_the_original_has_is_no_merit(tmp_path, bicubic, model, is_marked):
    values = {"bicubic": bicubic, "model": model, "original": 1.0}
    result = ClipResult(
        name="a",
        degradation="given",
        num_frames=2,
        size=(8, 8),
        methods={method: {"warping_error": value} for method, value in values.items()},
    )
    page = write_report(tmp_path, [result], MetricSuite(("warping_error",)), {}, PictureBook())
    assert ('<td class="best better">1.500</td>' in page.read_text()) == is_marked
    assert summarise([result])["given"]["warping_error_beyond_original"] == pytest.approx(model - 1)


def test_pictures():
    image = torch.rand(3, 20, 30)
    assert encode_picture(image)[:4] == b"\x89PNG"
    assert encode_picture(image, is_lossless=False)[:2] == b"\xff\xd8"
    assert strip([image, image]).shape == (3, 20, 64)
    assert torch.equal(enlarge(image, 40, 60)[:, ::2, ::2], image)
    signal = torch.zeros(64, 96)
    signal[40, 70] = 1
    top, left = busiest_crop(signal, 32)
    assert top <= 40 < top + 32
    assert left <= 70 < left + 32
    assert busiest_crop(signal, 500) == (0, 0)
    clip = torch.rand(5, 3, 20, 30)
    assert torch.equal(time_slice(clip, 7, 2, 10)[:, :, 3], clip[3, :, 2:12, 7])
