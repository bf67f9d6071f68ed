import itertools
import json
from collections import Counter

import pytest
import torch

from oasis_core.degradation import PRESETS, DegradationError, degrade, draw_recipe


def clip(t=4, h=64, w=96):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(t, 3, h, w, generator=generator)


@pytest.mark.parametrize("preset", PRESETS)
def test_same_seed_same_pixels_and_exact_size(preset):
    first, record = degrade(clip(), preset=preset, seed=5)
    second, again = degrade(clip(), preset=preset, seed=5)
    assert torch.equal(first, second)
    assert record == again == json.loads(json.dumps(record))
    assert first.shape == (4, 3, 16, 24)
    assert torch.equal(first, (first * 255).round() / 255)
    assert not torch.equal(first, degrade(clip(), preset=preset, seed=6)[0])


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 1.5])
def test_size_follows_the_scale(scale):
    degraded, _ = degrade(clip(2, 61, 83), preset="light", scale=scale)
    assert degraded.shape[-2:] == (round(61 / scale), round(83 / scale))


def draws(preset, count=300, num_frames=32):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield from draw_recipe(preset, num_frames=num_frames, scale=4, generator=generator)


def test_consistent_recipes_have_one_value_per_clip():
    lists = [v for step in draws("consistent") for v in step.params.values() if type(v) is list]
    assert lists
    assert all(len(values) == 1 for values in lists)


def test_inconsistent_recipes_walk_within_limits():
    walks = [s.params["quality"] for s in draws("inconsistent") if s.operator == "jpeg"]
    assert all(len(walk) == 32 for walk in walks)
    assert all(60 <= value <= 100 for walk in walks for value in walk)
    steps = [abs(b - a) for walk in walks for a, b in itertools.pairwise(walk)]
    assert max(steps) <= 4 + 1e-6
    assert sum(steps) / len(steps) > 1


def test_a_clean_clip_stays_near_a_plain_resize():
    steps = list(draws("clean"))
    assert max(s.params["sigma"][0] for s in steps if s.operator == "gaussian") <= 2 / 255
    assert max(s.params["sigma_x"][0] for s in steps if s.operator == "blur") <= 0.6
    codecs = [step.params for step in steps if step.operator == "codec"]
    assert len(codecs) / 300 == pytest.approx(0.5, abs=0.1)
    assert all(c["quality"] <= {"libx264": 20, "mpeg4": 3.5}[c["codec"]] for c in codecs)


def test_web_video_is_soft_noisy_and_compressed_once():
    steps = list(draws("web"))
    assert [step.operator for step in steps[:4]] == ["resize", "blur", "gaussian", "codec"]
    assert len(steps) == 4 * 300
    assert all(s.params["mode"] == "bicubic" for s in steps if s.operator == "resize")
    limits = {"blur": ("sigma_x", 0.2, 0.8), "gaussian": ("sigma", 1 / 255, 5 / 255)}
    for operator, (name, low, high) in limits.items():
        values = [s.params[name][0] for s in steps if s.operator == operator]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    codecs = [s.params for s in steps if s.operator == "codec"]
    assert {c["codec"] for c in codecs} == {"libx264"}
    assert 20 <= min(c["quality"] for c in codecs) < 20.4
    assert 27.6 < max(c["quality"] for c in codecs) <= 28


def test_web_video_keeps_to_the_codecs_that_are_named():
    def drawn(codecs):
        generator = torch.Generator().manual_seed(0)
        options = {"num_frames": 1, "scale": 4, "generator": generator, "codecs": codecs}
        return {draw_recipe("web", **options)[-1].params["codec"] for _ in range(40)}

    assert drawn(("libx265", "libvpx-vp9", "mpeg4")) == {"libx265", "libvpx-vp9"}
    assert drawn(("mpeg4",)) == {"mpeg4"}


def test_web_video_lies_between_clean_and_the_real_world_chain():
    # The same smooth clip under many draws: each preset's distance from the plain resize.
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(2, 3, 16, 24, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(128, 192), mode="bicubic").clamp(0, 1)
    plain = torch.nn.functional.interpolate(
        smooth, size=(32, 48), mode="bicubic", antialias=True
    ).clamp(0, 1)

    def distance(preset):
        degraded = (degrade(smooth, preset=preset, seed=seed)[0] for seed in range(12))
        return sum(float((clip - plain).square().mean()) for clip in degraded)

    assert distance("clean") < distance("web") < distance("consistent")


def test_operators_come_in_the_published_shares():
    counts = Counter(step.operator for step in draws("consistent", 2000))
    assert counts["jpeg"] == 4000
    assert counts["codec"] / 2000 == pytest.approx(1.5, abs=0.04)
    noise = counts["gaussian"] + counts["poisson"]
    assert noise == 4000
    assert counts["gaussian"] / noise == pytest.approx(0.5, abs=0.03)
    # A tenth of the 1.5 blurs are sinc, and a final sinc follows with probability 0.8.
    assert counts["sinc"] / 2000 == pytest.approx(0.1 * 1.5 + 0.8, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"preset": "heavy"}, "preset must be one of"), ({"scale": 0.5}, "scale must be in")],
)
def test_bad_requests_are_one_sentence(arguments, message):
    with pytest.raises(DegradationError, match=message):
        degrade(clip(1), **arguments)
