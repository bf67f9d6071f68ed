"""Pictures that repeat are computed once, and flicker is taken out over segments of every kind."""

import pytest
import torch

from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.segment import Look


def doubled(video, times=2):
    return video.repeat_interleave(times, dim=2)


@pytest.mark.parametrize("color_anchor", [True, False])
@pytest.mark.parametrize("steady", [0.0, 1.0])
def test_a_doubled_clip_runs_the_model_for_half_of_its_frames(native, clip, color_anchor, steady):
    restorer, video = native(), clip(11, 16, 20)
    upscaler = VideoUpscaler(restorer, device="cpu", dtype="float32")
    options = {"scale": 2, "color_anchor": color_anchor, "shots": False, "steady": steady}
    held = doubled(video)
    upscaler.upscale(held, segment_frames=4, **options)
    restorer.network.seen.clear()
    out = upscaler.upscale(held, segment_frames=4, **options)
    # At most one picture whose result was let go of is computed again.
    assert len(restorer.network.seen) in (11, 12)
    computed = VideoUpscaler(native(numbers_frames=True), device="cpu", dtype="float32")
    assert torch.equal(out, computed.upscale(held, segment_frames=4, **options))


def test_a_still_title_runs_the_model_once(native, clip):
    restorer = native()
    upscaler = VideoUpscaler(restorer, device="cpu", dtype="float32")
    still = doubled(clip(1, 16, 20), 40)
    upscaler.upscale(still[:, :, :1], scale=2)
    restorer.network.seen.clear()
    out = upscaler.upscale(still, scale=2, segment_frames=8)
    assert len(restorer.network.seen) == 1
    assert torch.equal(out, out[:, :, :1].expand_as(out))


def test_a_model_of_several_frames_is_run_again_only_for_what_it_has_not_seen(native, clip):
    restorer = native(is_per_frame=False)
    upscaler = VideoUpscaler(restorer, device="cpu", dtype="float32")
    frames = list(doubled(clip(1, 16, 20), 60)[0].unbind(1))
    plan = upscaler.plan((20, 16), (40, 32), segment_frames=8)
    segments = upscaler.segment_upscaler(Look(width=40, height=32), plan)
    restorer.network.seen.clear()
    parts = [
        list(segments.run(frames[start : start + 12], slice(2, 10), first=start + 2))
        for start in (0, 8, 16, 24)
    ]
    assert len(restorer.network.seen) == 1
    assert segments.num_held == 24
    assert all(torch.equal(a, b) for part in parts for a, b in zip(part, parts[0], strict=True))
    other = list(segments.run(frames[:11], slice(2, 9), first=2))
    assert len(restorer.network.seen) == 2
    assert len(other) == 7


@pytest.mark.parametrize("is_per_frame", [True, False])
def test_a_steady_segment_alone_is_the_same_as_among_others(
    native, clip, alone_as_among_others, is_per_frame
):
    frames = list(clip(30, 24, 24)[0].unbind(1))
    upscaler = VideoUpscaler(native(is_per_frame=is_per_frame), device="cpu", dtype="float32")
    look = Look(width=60, height=60, steady=0.8)
    plan = upscaler.plan((24, 24), (60, 60), segment_frames=8, frames_beyond=look.frames_beyond)
    assert plan.halo_frames == 9
    reads = [(0, 17, slice(0, 8)), (0, 25, slice(8, 16)), (7, 30, slice(9, 23))]
    together = alone_as_among_others(lambda: upscaler.segment_upscaler(look, plan), frames, reads)
    whole = upscaler.upscale(
        torch.stack(frames, 1)[None], size=(60, 60), segment_frames=8, steady=0.8, shots=False
    )
    parts = torch.cat([together[index] for index in range(3)]).transpose(0, 1)
    assert torch.equal(parts[:, :16], whole[0][:, :16])


def test_nothing_of_one_shot_is_seen_in_another(native, clip):
    upscaler = VideoUpscaler(native(), device="cpu", dtype="float32")
    first, second = clip(12, 24, 24, seed=1), 1 - clip(12, 24, 24, seed=2)
    options = {"scale": 2, "steady": 1.0}
    both = upscaler.upscale(torch.cat([first, second], 2), **options)
    alone = [upscaler.upscale(shot, **options) for shot in (first, second)]
    assert torch.equal(both, torch.cat(alone, 2))


def test_steady_is_nothing_without_the_models_work(native, clip):
    upscaler = VideoUpscaler(native(), device="cpu", dtype="float32")
    video = clip(5, 24, 24)
    plain = upscaler.upscale(video, scale=2, strength=0)
    assert torch.equal(upscaler.upscale(video, scale=2, strength=0, steady=1.0), plain)
