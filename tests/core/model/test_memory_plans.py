"""Plans of the full-size model for GPUs of usual sizes, counted: no GPU is needed for that."""

import pytest
import torch

from oasis_core.config import FLASHVSR, INFVSR, OASIS_1_3B
from oasis_core.families.catalog import restorer_of
from oasis_core.families.wan_memory import MemoryModel, weight_bytes
from oasis_core.lab.golden import golden_model, golden_video
from oasis_core.lab.gpu_plan import counted_workload, plan_for_gpu
from oasis_core.model.live_bytes import DEVICE_SHARE, SAFETY
from oasis_core.options import HALO_FRAMES
from oasis_core.upscale.memory import free_bytes
from oasis_core.upscale.plan import make_plan
from oasis_core.upscale.segment import Look, SegmentUpscaler

GIB = 1 << 30
SOURCE, RESULT = (1920, 1080), (3840, 2160)


@pytest.fixture(scope="module")
def plans():
    return {gib: plan_for_gpu(OASIS_1_3B, gib * GIB, SOURCE, RESULT) for gib in (6, 8, 12, 16, 24)}


@pytest.mark.parametrize("gib", [6, 8, 12, 16, 24])
def test_weights_and_a_tile_of_1080p_to_4k_fit(plans, gib):
    plan = plans[gib]
    model = MemoryModel(OASIS_1_3B, 2)
    num_read = plan.segment_frames + 2 * plan.halo_frames
    assert num_read % 4 == 1
    tile = SAFETY * model(num_read, *plan.tile)
    assert tile < plan.estimated_bytes <= plan.free_bytes * DEVICE_SHARE
    assert weight_bytes(OASIS_1_3B, 2) + plan.estimated_bytes < gib * GIB
    assert min(plan.tile) >= 192


def test_decoder_tiles_leave_memory_for_larger_tiles_of_the_transformer(plans):
    tiled = plan_for_gpu(OASIS_1_3B, 8 * GIB, SOURCE, RESULT, decoder_tile=256)
    area, whole_area = (plan.tile[0] * plan.tile[1] for plan in (tiled, plans[8]))
    assert area > 2 * whole_area
    assert weight_bytes(OASIS_1_3B, 2) + tiled.estimated_bytes < 8 * GIB


def test_a_larger_gpu_computes_less_twice(plans):
    def work(plan):
        frames = (plan.segment_frames + 2 * plan.halo_frames) / plan.segment_frames
        return plan.num_tiles * plan.tile[0] * plan.tile[1] * frames

    works = [work(plan) for plan in plans.values()]
    assert works == sorted(works, reverse=True)
    # What the overlaps and the halo cost; with the segment on the GPU it was 8.3 and 3.3 times.
    least = [work / (RESULT[0] * RESULT[1]) for work in works]
    assert least[0] < 2.7
    assert least[1] < 1.9
    assert least[-1] < 1.4


def test_segments_wait_in_main_memory_where_that_buys_larger_tiles(plans):
    assert plans[6].on_host
    assert "the segment in main memory" in str(plans[6])
    assert plans[6].to_json()["on_host"]
    poor = plan_for_gpu(OASIS_1_3B, 6 * GIB, SOURCE, RESULT, free_host=2 * GIB)
    assert poor.segment_frames < plans[6].segment_frames
    rich = plan_for_gpu(OASIS_1_3B, 80 * GIB, SOURCE, RESULT)
    assert not rich.on_host
    assert not plan_for_gpu(OASIS_1_3B, 24 * GIB, (480, 270), (960, 540)).on_host


def test_an_earlier_plan_decides_where_segments_wait(plans):
    earlier = plans[6].to_json()
    assert plans[24].following(earlier).on_host
    del earlier["on_host"]  # as older versions wrote it
    assert not plans[24].following(earlier).on_host


def test_where_segments_wait_changes_no_bit():
    model, frames = golden_model("tiny"), list(golden_video()[0, :, :5, :48, :64].unbind(1))
    options = {"tile": (48, 32), "overlap_px": 16}
    results = [
        list(
            SegmentUpscaler(
                restorer_of(model.to(device)), torch.device(device), torch.float32,
                Look(width=64, height=48),
                on_host=on_host, **options,
            ).run(frames, slice(0, 5))
        )
        for device in (["cpu"] + ["cuda"] * torch.cuda.is_available())
        for on_host in (False, True)
    ]  # fmt: skip
    for plain, waiting in zip(results[::2], results[1::2], strict=True):
        assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(plain, waiting, strict=True))


def test_three_gib_do_not_hold_it():
    with pytest.raises(ValueError, match=r"needs at least \d+\.\d GiB of memory"):
        plan_for_gpu(OASIS_1_3B, 3 * GIB, SOURCE, RESULT)


def test_float16_is_planned_as_float16():
    workload = counted_workload(OASIS_1_3B, SOURCE, RESULT, dtype="float16")
    plan = make_plan(workload, torch.device("cpu"), free=64 * GIB, halo_frames=HALO_FRAMES)
    assert plan.dtype == "float16"
    assert plan.free_bytes == 64 * GIB


@pytest.mark.gpu
def test_a_part_of_a_gpu_is_what_is_free():
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(0.25, device)
    try:
        assert free_bytes(device) <= 0.25 * total
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@pytest.mark.parametrize("config", [INFVSR, FLASHVSR], ids=lambda config: config.name)
@pytest.mark.parametrize("gib", [8, 12, 16, 24])
def test_public_models_fit_with_what_they_keep_between_chunks(config, gib):
    config = config.with_decoder("tiny-both" if config.tiny_encoder_width else "tiny")
    plan = plan_for_gpu(config, gib * GIB, SOURCE, RESULT)
    model = MemoryModel(config, 2)
    num_read = plan.segment_frames + plan.lead_frames + plan.halo_frames
    assert num_read % 4 in (0, 1)
    tile = SAFETY * model(num_read, *plan.tile)
    assert tile < plan.estimated_bytes <= plan.free_bytes * DEVICE_SHARE
    assert weight_bytes(config, 2) + plan.estimated_bytes < gib * GIB
    assert plan.segment_frames % plan.segment_multiple == 0
    # Of what is read before a segment no more is computed twice than the segment is long.
    assert plan.segment_frames >= plan.lead_frames
