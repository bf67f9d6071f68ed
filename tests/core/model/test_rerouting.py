import pytest
import torch

from oasis_core.checkpoint import load_checkpoint, resolve_model
from oasis_core.model.denoiser import OasisModel
from oasis_core.model.rerouting import Rerouter, calibration_clips
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
    rerouter = Rerouter(loaded.model)
    rerouter.apply(HeadRouting.all_global(3, 6))
    rerouter.apply(turned())
    fresh = OasisModel(loaded.model.config).eval()
    fresh.load_state_dict(load_checkpoint(resolve_model("oasis-tiny")).model.state_dict())
    fresh.transformer.apply_routing(turned())
    assert torch.equal(loaded.model(clip), fresh(clip))


@torch.inference_mode()
def test_own_routing_comes_back_exactly(loaded, clip):
    before = loaded.model(clip)
    rerouter = Rerouter(loaded.model)
    rerouter.apply(turned())
    assert rerouter.current == turned()
    rerouter.apply(rerouter.own)
    assert torch.equal(loaded.model(clip), before)


def test_calibrating_leaves_the_routing_and_measures_in_the_files_order(loaded, clip):
    rerouter = Rerouter(loaded.model)
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
    rerouter = Rerouter(loaded.model)
    with pytest.raises(ValueError, match="like the model"):
        rerouter.apply(HeadRouting.all_global(2, 6))
    assert rerouter.current == loaded.routing


@pytest.mark.parametrize(
    ("shape", "stride", "expected"),
    [
        ((1, 3, 12, 130, 70), (1, 16, 16), [(5, 96, 64)] * 2),
        ((1, 3, 3, 500, 500), (1, 16, 16), [(3, 96, 96)]),
        ((1, 3, 12, 100, 100), (4, 16, 16), [(5, 96, 96)] * 2),
        ((1, 3, 4, 100, 100), (4, 16, 16), [(1, 96, 96)] * 4),
    ],
)
def test_calibration_clips_fit_the_model(shape, stride, expected):
    clips = calibration_clips(torch.rand(shape), num_frames=5, side_px=100, stride=stride)
    assert [tuple(clip.shape[2:]) for clip in clips] == expected


def test_pictures_below_one_token_are_refused():
    with pytest.raises(ValueError, match="at least 16x16"):
        calibration_clips(torch.rand(1, 3, 2, 8, 40), num_frames=5, side_px=64, stride=(1, 16, 16))
