import dataclasses
import json

import pytest
import torch

from oasis_core.families.catalog import restorer_of
from oasis_core.families.restorer import Traits
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale import plan as planning
from oasis_core.upscale.memory import _free_under, free_bytes, peak_rss_bytes
from oasis_core.upscale.model_bytes import measure_model_bytes
from oasis_core.upscale.tiles import plan_tiles
from oasis_core.upscale.workload import Workload

CPU = torch.device("cpu")
GIB = 1 << 30


@pytest.fixture
def workload():
    return Workload(
        source_width=480,
        source_height=270,
        width=1920,
        height=1080,
        bytes_per_channel=1,
        traits=Traits(name="counted", family="test", stride=(1, 16, 16)),
        model_bytes=40.0,
        dtype="bfloat16",
    )


def plan_with(workload, free, monkeypatch, **arguments):
    monkeypatch.setattr(planning, "free_bytes", lambda device: free)
    return planning.make_plan(workload, CPU, **arguments)


def cost_of(workload, plan):
    grid = plan_tiles(*workload.padded, plan.tile, plan.overlap_px, workload.stride[1:])
    return planning._relative_cost(workload, grid, plan.segment_frames, plan.halo_frames)


def test_more_memory_never_plans_worse(workload, monkeypatch):
    plans = [plan_with(workload, free * GIB, monkeypatch) for free in (1, 2, 4, 8, 64)]
    costs = [cost_of(workload, plan) for plan in plans]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]
    assert all(plan.estimated_bytes <= plan.free_bytes * 0.5 for plan in plans)


def test_planned_tiles_waste_little(workload, monkeypatch):
    for free, most in ((2, 2.0), (4, 1.7), (8, 1.7)):
        plan = plan_with(workload, free * GIB, monkeypatch)
        assert cost_of(workload, plan) < most
        assert min(plan.tile) >= planning.LEAST_TILE_PX


def test_fixed_values_are_kept(workload, monkeypatch):
    plan = plan_with(workload, 8 * GIB, monkeypatch, tile_px=256, segment_frames=5, halo_frames=2)
    assert (plan.tile, plan.segment_frames, plan.halo_frames) == ((256, 256), 5, 2)
    assert plan.num_tiles > 1


def test_an_earlier_plan_is_followed(workload, monkeypatch):
    earlier = plan_with(workload, 2 * GIB, monkeypatch)
    now = plan_with(workload, 64 * GIB, monkeypatch)
    following = now.following(json.loads(json.dumps(earlier.to_json())))
    assert following != earlier
    assert (
        dataclasses.replace(
            following, free_bytes=earlier.free_bytes, estimated_bytes=earlier.estimated_bytes
        )
        == earlier
    )


def test_short_clips_are_one_segment(workload, monkeypatch):
    assert plan_with(workload, 8 * GIB, monkeypatch, num_frames=3).segment_frames == 3


def test_absurd_sizes_are_refused_with_the_numbers(workload, monkeypatch):
    workload = dataclasses.replace(workload, width=30000, height=30000)
    with pytest.raises(ValueError, match=r"30000x30000 needs at least \d+\.\d GiB .* 4\.0 GiB"):
        plan_with(workload, 4 * GIB, monkeypatch)


def test_a_plan_says_itself_in_one_line(workload, monkeypatch):
    text = str(plan_with(workload, 8 * GIB, monkeypatch))
    assert "\n" not in text
    assert "GiB free memory" in text


def test_measured_bytes_are_those_of_the_live_tensors(conv_model):
    """Input 12, stem 2 twice (ReLU), head 12 and its reshaped copy 12: what the module holds."""
    measured = measure_model_bytes(restorer_of(conv_model), CPU, torch.float32)
    assert 24 <= measured <= 48


def test_estimate_is_above_what_a_segment_really_takes(conv_model, clip):
    upscaler = VideoUpscaler(conv_model, device="cpu", dtype="float32")
    plan = upscaler.plan((160, 90), (640, 360), num_frames=24)
    before = peak_rss_bytes()
    upscaler.upscale(clip(24, 90, 160), size=(640, 360), shots=False)
    result_bytes = 24 * 3 * 4 * 640 * 360
    assert peak_rss_bytes() - before - result_bytes < plan.estimated_bytes * 1.1


def test_control_group_limits_count(tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300000\nactive_file 7\n")
    assert _free_under(tmp_path) == 400000
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_under(tmp_path) is None
    assert _free_under(tmp_path / "missing") is None


def test_free_memory_is_plausible():
    assert 1 << 26 < free_bytes(CPU) < 1 << 46
