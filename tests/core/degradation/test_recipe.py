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
