import random

import pytest

from oasis_core.model.head_distances import HeadDistances
from oasis_core.model.routing import HeadRouting
from oasis_core.model.routing_stability import mean_distances, measure_stability

LAYERS, HEADS = 3, 4


def distances(locality, noise=0.0, seed=0):
    """Distances of one clip, normalised from 0 to 1, around a locality per head."""
    generator = random.Random(seed)
    table = tuple(
        tuple(
            (1 - locality[layer][head] + noise * generator.random(),
             locality[layer][head] + noise * generator.random())
            for head in range(HEADS)
        )
        for layer in range(LAYERS)
    )  # fmt: skip
    return HeadDistances(raw=table, normalized=table, grid=(2, 4, 4), window=(3, 5, 5))


PLANTED = [[(layer + head) % HEADS / HEADS for head in range(HEADS)] for layer in range(LAYERS)]


def quotas(table):
    # Three heads of each planted value: six are the most local, then three.
    return HeadRouting.from_quotas(table, counts=(3, 3, 6), scope="network")


def test_heads_that_differ_clearly_are_stable():
    parts = [distances(PLANTED, noise=0.01, seed=seed) for seed in range(6)]
    stability = measure_stability(parts, quotas)
    assert stability.mean == stability.least == 1
    assert stability.unstable_heads == 0
    assert stability.by_chance == pytest.approx(6 / 16)


def test_noise_is_as_stable_as_chance():
    flat = [[0.5] * HEADS] * LAYERS
    parts = [distances(flat, noise=0.4, seed=seed) for seed in range(40)]
    stability = measure_stability(parts, quotas, num_splits=200)
    assert abs(stability.mean - stability.by_chance) < 0.15
    assert stability.least < 0.3
    assert stability.unstable_heads > LAYERS * HEADS / 2


def test_mean_of_clips():
    one, two = distances([[0.2] * HEADS] * LAYERS), distances([[0.6] * HEADS] * LAYERS)
    assert mean_distances([one, two]).normalized[1][2] == pytest.approx((0.6, 0.4))
    assert mean_distances([one]) == one


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="at least two clips, got 1"):
        measure_stability([distances(PLANTED)], quotas)
    with pytest.raises(ValueError, match="at least one clip"):
        mean_distances([])
