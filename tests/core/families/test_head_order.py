"""The network keeps the order of its heads, whatever holds its matrices and whoever routes it."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch

from oasis_core.checkpoint import load_checkpoint, save_checkpoint
from oasis_core.cli import main
from oasis_core.model.cost import model_costs
from oasis_core.model.int8 import hold_int8
from oasis_core.model.rerouting import Rerouter, calibration_clips
from oasis_core.model.routing import HeadRouting, calibrate

from .models import CONFIGS, OTHER, ROUTING, WAN, random_network, save_model

FILM = Path(__file__).parents[3] / "workflows" / "example_inputs" / "hand_held.mp4"


@pytest.fixture
def clip():
    return torch.rand(1, 3, 5, 64, 80, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
@pytest.mark.parametrize("name", CONFIGS)
def test_routing_may_be_applied_again_and_again(name, clip):
    once, often = (random_network(CONFIGS[name]) for _ in range(2))
    once.transformer.apply_routing(OTHER)
    for routing in (ROUTING, OTHER, ROUTING, ROUTING, OTHER):
        often.transformer.apply_routing(routing)
        assert often.transformer.routing == routing
    assert torch.equal(often(clip), once(clip))
    assert often.transformer.head_orders == [OTHER.permutation(layer) for layer in range(2)]


@torch.inference_mode()
def test_loading_weights_and_settling_start_a_new_order(tmp_path, clip):
    path = save_model(tmp_path / "model.safetensors", "tiny")
    loaded = load_checkpoint(path)
    expected = loaded.model(clip)
    settled = loaded.model
    settled.transformer.settle_heads()
    assert torch.equal(settled(clip), expected)
    again = settled.transformer.routing
    assert again == ROUTING.permuted([ROUTING.permutation(layer) for layer in range(2)])
    save_checkpoint(tmp_path / "settled.safetensors", settled, again, {})
    assert torch.equal(load_checkpoint(tmp_path / "settled.safetensors").model(clip), expected)
    fresh = random_network(CONFIGS["tiny"], seed=1)
    fresh.transformer.apply_routing(OTHER)
    fresh.load_state_dict(settled.state_dict())
    fresh.transformer.apply_routing(again)
    assert torch.equal(fresh(clip), expected)


@torch.inference_mode()
def test_networks_can_be_copied_and_pickled_with_their_order(clip):
    model = random_network(CONFIGS["tiny"])
    model.transformer.apply_routing(ROUTING)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.transformer.apply_routing(OTHER)
        twin.transformer.apply_routing(ROUTING)
        assert torch.equal(twin(clip), model(clip))


@torch.inference_mode()
def test_matrices_in_8_bits_move_with_their_scales(clip):
    config = dataclasses.replace(WAN, width=96)
    before, after = (random_network(config) for _ in range(2))
    for model in (before, after):
        for block in model.transformer.blocks:  # rows of unlike size, so that scales matter
            for linear in (block.attention.query, block.attention.key, block.attention.value):
                linear.weight.mul_(torch.linspace(0.2, 3, len(linear.weight))[:, None])
    hold_int8(before, clip)
    plain = before(clip)
    before.transformer.apply_routing(ROUTING)
    after.transformer.apply_routing(ROUTING)
    hold_int8(after, clip)
    assert torch.allclose(before(clip), after(clip), atol=1e-5)
    before.transformer.apply_routing(HeadRouting.all_global(2, 4, window=(3, 3, 3)))
    assert torch.allclose(before(clip), plain, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_routed_family_can_be_calibrated(name):
    """Those with the stem "latent" have their clips encoded once, not twice."""
    model = random_network(CONFIGS[name])
    model.transformer.apply_routing(ROUTING)
    rerouter = Rerouter(model)
    stride = model.config.token_stride
    video = torch.rand(1, 3, 9, 70, 90, generator=torch.Generator().manual_seed(0))
    clips = calibration_clips(video, num_frames=6, side_px=64, stride=stride)
    found = rerouter.calibrate(clips, quotas={"window": 2, "intra": 2}, num_queries=16)
    assert [sum(row.count(kind) for row in found.patterns) for kind in (2, 1, 0)] == [2, 2, 4]
    assert model.transformer.routing == rerouter.own == ROUTING
    # In the stored order, whatever order the heads stand in.
    stored = random_network(CONFIGS[name])
    options = {"quotas": {"window": 2, "intra": 2}, "num_queries": 16}
    assert found.agreement(calibrate(stored, clips, **options)) == 1


@pytest.mark.parametrize("name", ["tiny", "wan, stem latent"])
def test_the_shell_calibrates_on_whole_tokens(tmp_path, name, capsys):
    """A crop of 100 px and 6 frames fit no model: 96 px and as many frames as it takes."""
    path = save_model(tmp_path / "model.safetensors", name)
    arguments = ["--model", str(path), "--crop", "100", "--frames", "6", "--queries", "16"]
    assert main(["calibrate", str(FILM), *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["routing"]
    stride = CONFIGS[name].token_stride
    frames = 6 if stride[0] == 1 else 2  # latent frames of 5
    assert found["distances"]["grid"] == [frames, 96 // stride[1], 96 // stride[2]]
    assert main(["calibrate", str(FILM), "--model", str(path), "--crop", "12"]) == 1
    assert "--crop must be at least 32" in capsys.readouterr().err


def test_costs_count_the_routings_own_window():
    sizes = {"num_frames": 33, "height": 256, "width": 256}
    counts = [(1, 1, 2)] * 2
    small, own, large = (
        {stage.name: stage.flops for stage in model_costs(WAN, counts, **sizes, window=window)}
        for window in ((1, 3, 3), None, (3, 5, 5))
    )
    name = "window attention"
    assert small[name] < own[name] < large[name]
    assert own == {
        stage.name: stage.flops
        for stage in model_costs(WAN, counts, **sizes, window=WAN.window_size)
    }
    assert all(small[other] == large[other] for other in small if other != name)
