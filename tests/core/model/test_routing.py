"""Calibration finds planted patterns; routings survive JSON and refuse what does not fit."""

import copy
import dataclasses
import json
import math

import pytest
import torch

from oasis_core.config import OASIS_TINY
from oasis_core.model.attention_window import window_mask
from oasis_core.model.denoiser import build_model
from oasis_core.model.head_distances import HeadDistances, head_distances
from oasis_core.model.routing import HeadPattern, HeadRouting, calibrate
from oasis_core.model.routing_picture import (
    CELL_H_PX,
    CELL_W_PX,
    COLORS,
    LEFT_PX,
    TOP_PX,
    draw_routing,
)

GRID, WINDOW = (5, 12, 13), (3, 5, 5)
GLOBAL, INTRA, LOCAL = HeadPattern


def planted_head(pattern, generator):
    """Queries and keys `n d` whose attention falls off with distance as the pattern wants."""
    axes = torch.meshgrid(*(torch.arange(size).double() for size in GRID), indexing="ij")
    t, h, w = (axis.flatten() for axis in axes)
    sharpness = {GLOBAL: (0, 0, 0), INTRA: (9, 0, 0), LOCAL: (6, 3, 3)}[pattern]
    q, k = [], []
    for position, sharp in zip((t, h, w), sharpness, strict=True):
        # -sharp (a - b)^2 up to a term of the query alone, which softmax cancels.
        q += [2 * sharp * position, torch.full_like(position, -sharp)]
        k += [position, position**2]
    noise = torch.randn(2, len(t), 2, generator=generator, dtype=torch.float64)
    q = torch.stack([*q, *noise[0].unbind(1)], dim=1)
    k = torch.stack([*k, *noise[1].unbind(1)], dim=1)
    return q * math.sqrt(q.shape[1]), k


def planted_layer(patterns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    heads = [planted_head(pattern, generator) for pattern in patterns]
    q, k = (torch.stack(part)[None].float() for part in zip(*heads, strict=True))
    return q, k


def measure(q, k, *, num_queries=64, seed=0, grid=GRID, window=WINDOW, **options):
    generator = torch.Generator().manual_seed(seed)
    return head_distances(
        q, k, grid=grid, window=window, num_queries=num_queries, generator=generator, **options
    )


def table(layers):
    """HeadDistances from normalised (intra, window) pairs."""
    rows = tuple(tuple(map(tuple, row)) for row in layers)
    return HeadDistances(raw=rows, normalized=rows, grid=GRID, window=WINDOW)


def as_distances(sample):
    raw = zip(sample.intra.tolist(), sample.window.tolist(), strict=True)
    normalized = zip(
        sample.normalized_intra.tolist(), sample.normalized_window.tolist(), strict=True
    )
    return HeadDistances(
        raw=(tuple(raw),), normalized=(tuple(normalized),), grid=GRID, window=WINDOW
    )


@pytest.mark.parametrize(
    "patterns",
    [
        (GLOBAL, INTRA, LOCAL, LOCAL, GLOBAL, INTRA),
        (LOCAL, LOCAL, GLOBAL, INTRA, INTRA, GLOBAL),
        (INTRA, GLOBAL, LOCAL, GLOBAL, LOCAL, INTRA),
    ],
)
def test_planted_heads_get_their_label_in_any_order(patterns):
    distances = as_distances(measure(*planted_layer(patterns)))
    routing = HeadRouting.from_thresholds(distances, max_intra=0.3, max_window=0.3)
    assert routing.patterns == (patterns,)
    for scope in ("layer", "network"):
        routing = HeadRouting.from_quotas(distances, counts=(2, 2, 2), scope=scope)
        assert routing.patterns == (patterns,)


def test_streamed_distance_is_the_explicit_divergence():
    grid = (3, 4, 5)
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, 2, 4, 60, 8, generator=generator, dtype=torch.float64).mul(2)
    sample = measure(q, k, grid=grid, num_queries=60, keys_per_chunk=7)
    attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8), dim=-1)
    frame = torch.arange(60) // 20
    for mask, result in (
        (frame[:, None] == frame[None, :], sample.intra),
        (window_mask(grid, WINDOW), sample.window),
    ):
        mass = (attention * mask).sum(dim=-1, keepdim=True)
        local = attention * mask / mass
        divergence = torch.where(mask, local * (local / attention).log(), 0).sum(dim=-1)
        assert (divergence.mean(dim=(0, 2)) - result).abs().max() <= 1e-12


def test_chunk_size_changes_nothing():
    q, k = (x.double() for x in planted_layer((GLOBAL, LOCAL)))
    whole = measure(q, k, keys_per_chunk=10_000)
    for keys_per_chunk in (1, 97, 512):
        part = measure(q, k, keys_per_chunk=keys_per_chunk)
        assert torch.allclose(part.intra, whole.intra, rtol=0, atol=1e-10)
        assert torch.allclose(part.window, whole.window, rtol=0, atol=1e-10)
        assert part[2:] == pytest.approx(whole[2:])


def test_uniform_attention_has_distance_one_and_a_full_mask_zero():
    q = torch.zeros(1, 1, math.prod(GRID), 4)
    uniform = measure(q, q)
    assert uniform.normalized_intra.item() == pytest.approx(1, abs=1e-5)
    assert uniform.normalized_window.item() == pytest.approx(1, abs=1e-5)
    assert uniform.intra.item() == pytest.approx(math.log(5), abs=1e-5)
    one_frame = measure(q[:, :, :6], q[:, :, :6], grid=(1, 2, 3))
    assert one_frame.normalized_intra.item() == one_frame.normalized_window.item() == 0


def test_sampling_follows_the_seed():
    q, k = planted_layer((GLOBAL, INTRA, LOCAL))
    first, again, other = (measure(q, k, num_queries=16, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.window, again.window)
    assert not torch.equal(first.window, other.window)


def test_window_wins_over_intra_and_thresholds_are_strict():
    routing = HeadRouting.from_thresholds(
        table([[(0.1, 0.2), (0.1, 0.5), (0.4, 0.5), (0.3, 0.3)]]), max_intra=0.3, max_window=0.3
    )
    assert routing.patterns == ((LOCAL, INTRA, GLOBAL, GLOBAL),)


def test_network_quota_takes_the_most_local_heads_of_all_layers():
    distances = table([[(0.9, 0.1), (0.9, 0.2)], [(0.3, 0.8), (0.5, 0.9)]])
    routing = HeadRouting.from_quotas(distances, counts=(1, 1, 2), scope="network")
    assert routing.patterns == ((LOCAL, LOCAL), (INTRA, GLOBAL))
    routing = HeadRouting.from_quotas(distances, counts=(1, 0, 1), scope="layer")
    assert routing.patterns == ((LOCAL, GLOBAL), (LOCAL, GLOBAL))


@pytest.mark.parametrize(
    ("counts", "scope", "message"),
    [
        ((1, 1, 1), "layer", "add up to the 2 heads of a layer"),
        ((1, 1, 1), "network", "add up to the 4 heads of a network"),
        ((3, -1, 0), "layer", "add up to the 2 heads"),
        ((1, 1, 0), "block", "scope must be one of layer, network"),
    ],
)
def test_quotas_that_do_not_fit(counts, scope, message):
    with pytest.raises(ValueError, match=message):
        HeadRouting.from_quotas(table([[(0, 0)] * 2] * 2), counts=counts, scope=scope)


def test_counts_permutation_and_permuted_agree():
    patterns = ((LOCAL, GLOBAL, INTRA, LOCAL, GLOBAL),)
    routing = HeadRouting(patterns=patterns, window=WINDOW)
    assert routing.counts(0) == (2, 1, 2)
    assert routing.permutation(0) == (1, 4, 2, 0, 3)
    sorted_routing = routing.permuted([routing.permutation(0)])
    assert sorted_routing.patterns == ((GLOBAL, GLOBAL, INTRA, LOCAL, LOCAL),)
    assert sorted_routing.permutation(0) == (0, 1, 2, 3, 4)


def test_agreement_is_the_share_of_equal_labels():
    a = HeadRouting(patterns=((LOCAL, GLOBAL, INTRA, LOCAL),), window=WINDOW)
    b = HeadRouting(patterns=((LOCAL, GLOBAL, LOCAL, GLOBAL),), window=WINDOW)
    assert a.agreement(b) == 0.5
    with pytest.raises(ValueError, match="1 layers x 4 heads like the model, got 1 layers x 3"):
        a.agreement(HeadRouting.all_global(1, 3))


def example_json():
    rows = [[(0.1, 0.2), (0.7, 0.1)], [(0.9, 0.8), (0.2, 0.6)]]
    routing = HeadRouting.from_thresholds(table(rows), max_intra=0.5, max_window=0.15)
    return routing, json.loads(json.dumps(routing.to_json()))


def test_json_round_trip():
    routing, values = example_json()
    assert HeadRouting.from_json(values, num_layers=2, num_heads=2) == routing
    plain = HeadRouting.all_global(3, 4)
    assert HeadRouting.from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_json_for_another_model_is_refused():
    with pytest.raises(
        ValueError, match="must have 30 layers x 12 heads like the model, got 2 layers x 2 heads"
    ):
        HeadRouting.from_json(example_json()[1], num_layers=30, num_heads=12)


def _set(values, path, value):
    target = values
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("patterns", 0, 0), "diagonal", "pattern must be one of global, intra, window"),
        (("patterns", 0, 0), 1, "pattern must be one of global, intra, window"),
        (("patterns", 0, 0), ["global"], "pattern must be one of"),
        (("patterns", 0), ["global"], "same number"),
        (("patterns",), [], "table of 1 to 512 layers"),
        (("patterns",), [[]], "table of 1 to 512 layers"),
        (("patterns",), [["global"]] * 513, "table of 1 to 512 layers"),
        (("patterns",), {"0": "global"}, "list of lists"),
        (("window",), [3, 5], "window must be three positive whole numbers"),
        (("window",), [3, 4, 5], "window must be odd"),
        (("window",), [3, 5.0, 5], "window must be three positive whole numbers"),
        (("window",), None, "window must be three positive whole numbers"),
        (("distances", "raw", 0, 0), [math.nan, 0.1], "two finite numbers"),
        (("distances", "raw", 0, 0), [math.inf, 0.1], "two finite numbers"),
        (("distances", "raw", 0, 0), [10**400, 0.1], "two finite numbers"),
        (("distances", "normalized", 1, 0), [0.1], "two finite numbers"),
        (("distances", "normalized", 1, 0), ["0.1", True], "two finite numbers"),
        (("distances", "normalized", 1, 0), 0.1, "a pair of numbers for every head"),
        (("distances", "normalized"), [[[0, 0]]], "as many layers and heads as the raw"),
        (("distances", "grid"), [0, 4, 4], "grid must be three positive whole numbers"),
        (("distances", "grid"), [1 << 40, 4, 4], "grid must be three positive whole numbers"),
        (("distances",), {"raw": [[[0, 0]]]}, "must have the key"),
        (("rule",), [1], "rule must be a JSON object"),
        (("rule",), {"x": math.nan}, "rule must be a JSON object"),
        (("rule",), {"x": "y" * 20_000}, "rule must be a JSON object"),
        (("surprise",), 1, "unknown key.s. surprise"),
    ],
)
def test_bad_json_is_refused_in_one_sentence(path, value, message):
    values = copy.deepcopy(example_json()[1])
    _set(values, path, value)
    with pytest.raises(ValueError, match=message) as error:
        HeadRouting.from_json(values)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [None, [], "routing", 3, {}])
def test_json_that_is_no_routing_is_refused(values):
    with pytest.raises(ValueError, match="routing must"):
        HeadRouting.from_json(values)


@pytest.fixture(scope="module")
def model():
    return build_model(dataclasses.replace(OASIS_TINY, width=128, num_heads=8, ffn_width=64))


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, 3, 48, 64, generator=generator) for _ in range(2)]


def test_calibrate_is_deterministic_and_leaves_the_model_as_it_was(model, clips):
    done = []
    quotas = {"window": 7, "intra": 5}
    routing = calibrate(model, clips, seed=4, quotas=quotas, on_progress=done.append)
    assert routing == calibrate(model, iter(clips), seed=4, quotas=quotas)
    assert done == [1, 2]
    totals = [sum(routing.counts(i)[j] for i in range(3)) for j in range(3)]
    assert totals == [12, 5, 7]
    assert routing.distances.grid == (3, 3, 4)
    assert routing.rule["name"] == "quotas"
    assert model.training
    assert all(b.attention.attention_observer is None for b in model.transformer.blocks)


def test_calibrate_reports_the_checkpoints_head_order(model, clips):
    # Every query is used, so the labels cannot depend on which ones are drawn.
    options = {"quotas": {"window": 7, "intra": 5}, "num_queries": 10_000}
    routing = calibrate(model, clips, **options)
    orders = [(3, 1, 0, 7, 6, 2, 5, 4), tuple(range(8)), (7, 6, 5, 4, 3, 2, 1, 0)]
    shuffled = copy.deepcopy(model)
    for block, order in zip(shuffled.transformer.blocks, orders, strict=True):
        block.attention.permute_heads(order)
    assert calibrate(shuffled, clips, head_order=orders, **options).agreement(routing) == 1
    moved = calibrate(shuffled, clips, **options)
    assert moved.patterns == routing.permuted(orders).patterns


def test_calibrate_refuses_what_it_cannot_use(model, clips):
    with pytest.raises(ValueError, match=r"at least one clip .* got the token grids \[\]"):
        calibrate(model, [])
    with pytest.raises(ValueError, match="all of one size"):
        calibrate(model, [clips[0], clips[0][..., :32]])
    with pytest.raises(ValueError, match="quotas or thresholds, got both"):
        calibrate(model, clips, quotas={}, thresholds={})
    with pytest.raises(ValueError, match="names the patterns window and intra, got global"):
        calibrate(model, clips, quotas={"global": 3})
    with pytest.raises(ValueError, match="layer 0 must be finite"):
        calibrate(model, [clips[0] * math.nan])
    assert all(b.attention.attention_observer is None for b in model.transformer.blocks)


def test_thresholds_that_accept_everything_or_nothing(model, clips):
    every = calibrate(model, clips, thresholds={"window": 10.0})
    assert every.counts(0) == (0, 0, 8)
    none = calibrate(model, clips, thresholds={"window": 0.0, "intra": 0.0})
    assert none.agreement(HeadRouting.all_global(3, 8)) == 1


def test_the_picture_has_every_head_in_the_colour_of_its_pattern():
    pytest.importorskip("PIL")
    for routing in (example_json()[0], HeadRouting.all_global(30, 12)):
        picture = draw_routing(routing)
        for layer, row in enumerate(routing.patterns):
            for head, pattern in enumerate(row):
                corner = (LEFT_PX + CELL_W_PX * head + 2, TOP_PX + CELL_H_PX * layer + 2)
                assert "#{:02X}{:02X}{:02X}".format(*picture.getpixel(corner)) == COLORS[pattern]
