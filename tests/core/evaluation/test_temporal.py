import pytest
import torch

from oasis_core.evaluation import temporal
from oasis_core.evaluation.benchmark import ClipResult, summarise
from oasis_core.evaluation.networks import WEIGHTS_FOLDER, MetricUnavailableError, check_available
from oasis_core.evaluation.suite import MetricSuite


def moving(t=4, side=48):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, size=(side, 2 * side), mode="bicubic")
    wide = (wide.clamp(0, 1) * 255).round() / 255
    return torch.cat([wide[..., 2 * i : 2 * i + side] for i in range(t)])


def test_difference_error_counts_steps_that_the_original_does_not_take():
    truth = moving()
    assert temporal.difference_error(truth, truth) == 0
    # A constant fault is none over time; one that comes and goes by 2 levels is a step of 2.
    assert temporal.difference_error(truth + 3 / 255, truth) == pytest.approx(0, abs=1e-4)
    sign = torch.tensor([0.0, 1, 0, 1]).view(4, 1, 1, 1)
    assert temporal.difference_error(truth + sign * 2 / 255, truth) == pytest.approx(2, rel=1e-4)
    # Half of the pixels: the root mean square falls by the root of 2.
    half = torch.zeros_like(truth)
    half[..., :24] = 2 / 255
    found = temporal.difference_error(truth + sign * half, truth)
    assert found == pytest.approx(2**0.5, rel=1e-4)


def test_a_blur_that_is_steady_is_charged_for_the_motion_it_hides():
    truth = moving()
    still = truth.mean(0, keepdim=True).expand_as(truth)
    steps = truth.double().diff(dim=0).square().mean().sqrt() * 255
    assert temporal.difference_error(still, truth) == pytest.approx(float(steps))


def test_tlp_compares_the_clips_own_steps():
    def distance(x, y):
        return (x - y).abs().mean(dim=(1, 2, 3))

    truth = moving(3)
    steps = truth.diff(dim=0).abs().mean(dim=(1, 2, 3))
    assert temporal.tlp(distance, truth, truth) == 0
    frozen = truth[:1].expand_as(truth)
    assert temporal.tlp(distance, frozen, truth) == pytest.approx(100 * float(steps.mean()))


def test_deviation_on_a_tripod_is_that_of_the_noise():
    generator = torch.Generator().manual_seed(0)
    noise = 2 / 255 * torch.randn(6, 3, 64, 64, generator=generator)
    assert temporal.still_deviation(0.5 + noise) == pytest.approx(2, rel=0.02)
    assert temporal.still_deviation(torch.full((6, 3, 8, 8), 0.3)) == 0


def test_the_suite_measures_a_tripod_only_where_the_original_is_still(monkeypatch):
    monkeypatch.delenv(WEIGHTS_FOLDER, raising=False)
    suite = MetricSuite(("temporal_difference", "still_deviation"))
    truth = moving()
    assert set(suite.measure(truth, truth, None)) == {"temporal_difference"}
    still = truth[:1].expand_as(truth)
    found = suite.measure(truth, still, None)
    assert set(found) == {"temporal_difference", "still_deviation"}
    # What is judged is what a file would hold: 8-bit levels.
    assert found["still_deviation"] == pytest.approx(temporal.still_deviation(truth), rel=1e-6)
    assert suite.measure(truth[:1], still[:1], None) == {}
    assert suite.measure(truth, None, None) == {}


def test_slow_networks_look_at_the_middle_frames_only():
    suite = MetricSuite(("psnr_db",), num_sampled=2)
    seen = []
    suite.names = ("lpips", "psnr_db")
    suite._comparing["lpips"] = lambda x, y: seen.append((x, y)) or 0.5
    truth = moving(5)
    suite.measure(truth, truth, None)
    assert torch.equal(seen[0][1], truth[1:3])
    suite.num_sampled = 0
    suite.measure(truth, truth, None)
    assert len(seen[1][0]) == 5


def test_the_summary_has_no_ratio_of_changes():
    methods = {
        "bicubic": {"psnr_db": 20.0, "warping_error": 0.2, "temporal_difference": 9.0},
        "model": {"psnr_db": 21.0, "warping_error": 0.5, "temporal_difference": 8.0, "tlp": 2.0},
        "original": {"warping_error": 1.0},
    }
    result = ClipResult(name="a", degradation="web", num_frames=2, size=(8, 8), methods=methods)
    row = summarise([result])["web"]
    assert row["temporal_difference"] == 8.0
    assert row["tlp"] == 2.0
    assert row["warping_error_beyond_original"] == pytest.approx(-0.5)
    assert not [name for name in row if "ratio" in name]


def test_color_video_vdp_sees_blur_and_flicker():
    try:
        check_available("cvvdp")
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    suite = MetricSuite(("cvvdp",))
    truth = moving(t=3, side=64)
    sign = torch.tensor([0.0, 1, 0]).view(3, 1, 1, 1)

    def score(clip):
        return suite.measure(clip, truth, None)["cvvdp"]

    assert score(truth) == pytest.approx(10)
    assert score((truth + sign * 0.1).clamp(0, 1)) < 9.5
    blurred = torch.nn.functional.avg_pool2d(truth, 9, 1, 4)
    assert score(blurred) < 9.5
    assert suite.measure(truth[:1], truth[:1], None)["cvvdp"] == pytest.approx(10)
