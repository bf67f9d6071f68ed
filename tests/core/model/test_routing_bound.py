"""Routing by a bound on the pixels: what is chosen was measured, and more would break the bound."""

import torch

from oasis_core.checkpoint import BUNDLED, load_checkpoint
from oasis_core.model.agreement import psnr_db
from oasis_core.model.head_distances import measure_distances
from oasis_core.model.routing import HeadRouting
from oasis_core.model.routing_bound import route_within


def test_the_answer_keeps_the_bound_and_the_model_its_routing():
    model = load_checkpoint(BUNDLED["oasis-tiny"]).model
    own = model.transformer.routing
    generator = torch.Generator().manual_seed(0)
    clips = [torch.rand(1, 3, 3, 48, 64, generator=generator) for _ in range(2)]
    config = model.config
    everything = HeadRouting.all_global(
        config.num_layers, config.num_heads, window=config.window_size
    )
    model.transformer.apply_routing(everything)
    distances = measure_distances(model, clips, window=config.window_size, seed=0, num_queries=16)
    with torch.inference_mode():
        references = [(clip + model(clip)).clamp(0, 1) for clip in clips]
    model.transformer.apply_routing(own)
    tried = []
    bounds = {}
    for least_db in (1.0, 55.0, 1000.0):
        found = route_within(
            model, clips, distances, least_db, on_tried=lambda limit, db: tried.append((limit, db))
        )
        bounds[least_db] = found
        assert model.transformer.routing == own
        assert found.kept_db >= min(least_db, 200)
    total = config.num_layers * config.num_heads
    num_global = [
        sum(found.routing.counts(i)[0] for i in range(config.num_layers))
        for found in bounds.values()
    ]
    assert num_global[0] == 0
    assert num_global[0] <= num_global[1] <= num_global[2]
    assert num_global[2] <= total
    middle = bounds[55.0]
    model.transformer.apply_routing(middle.routing)
    with torch.inference_mode():
        pairs = [((c + model(c)).clamp(0, 1), r) for c, r in zip(clips, references, strict=True)]
    assert abs(min(psnr_db(*pair) for pair in pairs) - middle.kept_db) <= 1e-2
    assert middle.routing.rule["least_db"] == 55.0
    # The next head would have broken it.
    limit = middle.routing.rule.get("max_window", 0.0)
    worse = [db for threshold, db in tried if threshold > limit and db < 55.0]
    assert worse or num_global[1] == 0
