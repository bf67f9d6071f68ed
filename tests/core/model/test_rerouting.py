import pytest
import torch
from safetensors.torch import load_file

from oasis_core.checkpoint import load_checkpoint, resolve_model
from oasis_core.model.denoiser import OasisModel
from oasis_core.model.rerouting import Rerouter
from oasis_core.model.routing import HeadPattern, HeadRouting, calibrate

TURNED = (HeadPattern.WINDOW, HeadPattern.INTRA, HeadPattern.GLOBAL) * 2


@pytest.fixture
def loaded():
    return load_checkpoint(resolve_model("oasis-tiny"))


@pytest.fixture
def clip():
    return torch.rand(1, 3, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def turned():
    return HeadRouting(patterns=(TURNED,) * 3, window=(3, 5, 5))


@torch.inference_mode()
def test_network_runs_as_if_it_had_been_loaded_with_the_routing(loaded, clip):
    rerouter = Rerouter(loaded.model, loaded.routing)
    rerouter.apply(HeadRouting.all_global(3, 6))
    rerouter.apply(turned())
    fresh = OasisModel(loaded.model.config).eval()
    fresh.load_state_dict(load_file(resolve_model("oasis-tiny")))
    fresh.transformer.apply_routing(turned())
    assert torch.equal(loaded.model(clip), fresh(clip))


@torch.inference_mode()
def test_own_routing_comes_back_exactly(loaded, clip):
    before = loaded.model(clip)
    rerouter = Rerouter(loaded.model, loaded.routing)
    rerouter.apply(turned())
    assert rerouter.current == turned()
    rerouter.apply(rerouter.own)
    assert torch.equal(loaded.model(clip), before)


def test_calibrating_leaves_the_routing_and_measures_in_the_files_order(loaded, clip):
    rerouter = Rerouter(loaded.model, loaded.routing)
    rerouter.apply(turned())
    with torch.inference_mode():
        before = loaded.model(clip)
        found = rerouter.calibrate([clip], quotas={"window": 6, "intra": 6}, num_queries=36)
        assert torch.equal(loaded.model(clip), before)
    plain = load_checkpoint(resolve_model("oasis-tiny"))
    orders = [plain.routing.permutation(layer) for layer in range(3)]
    layers = plain.model.transformer.blocks
    for block in layers:
        block.attention.counts = (6, 0, 0)
    expected = calibrate(
        plain.model, [clip], quotas={"window": 6, "intra": 6}, num_queries=36, head_order=orders
    )
    assert found.patterns == expected.patterns
    pairs = zip(found.distances.raw, expected.distances.raw, strict=True)
    for row, twin in pairs:
        for measured, same in zip(row, twin, strict=True):
            assert measured == pytest.approx(same, abs=1e-4)


def test_routing_of_another_network_is_refused(loaded):
    rerouter = Rerouter(loaded.model, loaded.routing)
    with pytest.raises(ValueError, match="like the model"):
        rerouter.apply(HeadRouting.all_global(2, 6))
    assert rerouter.current == loaded.routing
