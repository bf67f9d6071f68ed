"""A family whose state is built up before each segment and never crosses one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oasis_core.geometry import next_segment_frames, plan_segments
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.assemble import SegmentAssembler
from oasis_core.video import VideoFrame

from . import streaming
from .streaming import LEAD, MULTIPLE, Noise, Streaming, new_segments, segment_sha256

CASES = [
    (segment, halo, lead, multiple)
    for multiple in (1, 4, 12)
    for segment in (multiple, 3 * multiple)
    for halo in (0, 2, 4)
    for lead in (0, 3, 9)
]


@pytest.mark.parametrize(("segment", "halo", "lead", "multiple"), CASES)
def test_segments_cover_a_shot_on_the_grid_of_chunks(segment, halo, lead, multiple):
    before = max(halo, lead)
    for num_frames in range(1, 5 * segment + lead + 3):
        planned = plan_segments(num_frames, segment, halo, lead_frames=lead, multiple=multiple)
        assert [s.start for s in planned] == [0, *(s.stop for s in planned[:-1])]
        assert planned[-1].stop == num_frames
        for index, each in enumerate(planned):
            assert each.read_start == max(0, each.start - before)
            assert each.read_stop == min(num_frames, each.stop + halo)
            lacking = max(0, lead - each.start)
            assert lacking == (lead if index == 0 else 0)
            assert 1 <= each.num_frames <= segment + lacking
            if index < len(planned) - 1:
                assert (each.num_frames - lacking) % multiple == 0
            if index < len(planned) - 2:
                assert each.num_frames == segment + lacking


def test_without_lead_and_multiple_segments_are_as_they_were():
    for segment in (1, 5, 8, 17):
        for num_left in range(1, 60):
            full = num_left >= segment + max(1, segment // 2)
            expected = segment if full else num_left if num_left <= segment else -(-num_left // 2)
            assert next_segment_frames(num_left, segment, is_shot_over=True) == expected


@pytest.mark.parametrize(("segment", "halo", "lead", "multiple"), CASES)
def test_a_stream_is_cut_like_a_clip_and_never_by_when_frames_come(segment, halo, lead, multiple):
    for num_frames in (1, lead + 1, segment + lead, 3 * segment + lead + 1, 4 * segment + 7):
        assembler = SegmentAssembler(
            segment, halo, has_shots=False, lead_frames=lead, multiple=multiple
        )
        stream = (VideoFrame(pixels=None, pts=index, duration=1) for index in range(num_frames))
        found = [
            (s.first_frame, [f.pts for f in s.frames], [f.pts for f in s.kept])
            for s in assembler.segments(stream)
        ]
        assert found == [
            (s.start, list(range(s.read_start, s.read_stop)), list(range(s.start, s.stop)))
            for s in plan_segments(num_frames, segment, halo, lead_frames=lead, multiple=multiple)
        ]


def test_a_piece_of_a_film_takes_its_lead_from_what_lies_before_it():
    for num_before in range(9):
        assembler = SegmentAssembler(12, 2, has_shots=False, lead_frames=5, multiple=6)
        stream = (
            VideoFrame(pixels=None, pts=i, duration=1, is_context=i < num_before)
            for i in range(num_before + 60)
        )
        first = next(assembler.segments(stream))
        assert first.keep.start == min(num_before, 5)
        assert len(first.kept) == 12 + max(0, 5 - num_before)


def test_every_call_sees_whole_chunks_and_one_size():
    upscaler = VideoUpscaler(Streaming(), device="cpu", dtype="float32")
    frames = torch.stack(streaming.frames_of_clip(), dim=1)[None]
    plan = upscaler.plan((32, 24), (64, 48), segment_frames=7)
    assert (plan.segment_frames, plan.lead_frames, plan.halo_frames) == (12, LEAD, 2)
    assert f"segments of 12 frames and {LEAD} more before, 2 behind" in str(plan)
    upscaler.model.chunks.clear()
    upscaler.upscale(frames, scale=2, segment_frames=7, shots=False)
    # 40 frames: 5 + 12, 12, and the last two share 11: 6 and 5.
    assert upscaler.model.chunks == [
        [LEAD, MULTIPLE, MULTIPLE, 2],
        [LEAD, MULTIPLE, MULTIPLE, 2],
        [LEAD, MULTIPLE, 5],
    ]


@pytest.mark.parametrize("num_frames", [1, 4, 5, 6, 17, 23, 24, 40])
def test_the_state_is_that_of_the_frames_before(num_frames):
    upscaler = VideoUpscaler(Streaming(), device="cpu", dtype="float32")
    frames = torch.stack(streaming.frames_of_clip(num_frames), dim=1)[None]
    options = {"scale": 1, "color_anchor": False, "shots": False}
    out = upscaler.upscale(frames, segment_frames=12, **options)
    for index in range(num_frames):
        expected = 0.9 * frames[:, :, index]
        if index >= LEAD:
            chunk = (index - LEAD) // MULTIPLE
            is_first = chunk % 2 == 0  # of its segment: after the lead
            stop = LEAD + chunk * MULTIPLE
            state = frames[:, :, stop - (LEAD if is_first else MULTIPLE) : stop]
            expected = expected + 0.25 * state.mean(dim=2)
        assert torch.allclose(out[:, :, index], expected.clamp(0, 1), atol=1e-6), index


def test_a_segment_gives_the_same_bytes_twice_in_another_order_and_in_another_process():
    planned = plan_segments(40, 12, 2, lead_frames=LEAD, multiple=MULTIPLE)
    places = [(s.read_start, s.read_stop, s.keep) for s in planned]
    segments = new_segments()
    in_order = [segment_sha256(segments, *place) for place in places]
    assert len(set(in_order)) == len(places) == 3
    assert [segment_sha256(segments, *place) for place in places[::-1]] == in_order[::-1]
    first, stop, keep = places[1]
    command = [sys.executable, Path(streaming.__file__), first, stop, keep.start, keep.stop]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        list(map(str, command)), cwd=root, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout.strip() == in_order[1]


def test_a_state_starts_empty_at_a_cut():
    upscaler = VideoUpscaler(Streaming(), device="cpu", dtype="float32")
    frames = torch.stack(streaming.frames_of_clip(20, 36, 64), dim=1)[None]
    second = frames.flip(3).flip(1) ** 3
    joined = upscaler.upscale(torch.cat([frames, second], dim=2), scale=1, segment_frames=6)
    assert torch.equal(joined[:, :, 20:], upscaler.upscale(second, scale=1, segment_frames=6))


def test_short_and_long_segments_are_planned_by_what_the_lead_costs():
    sizes = (320, 180), (640, 360)
    plans = {}
    for lead in (0, 21):
        upscaler = VideoUpscaler(
            Streaming(lead_frames=lead, segment_multiple=8), device="cpu", dtype="float32"
        )
        upscaler._model_bytes = 1.0
        plans[lead] = upscaler.plan(*sizes)
    assert plans[0].segment_frames == 48
    assert plans[21].segment_frames > 48
    assert plans[21].segment_frames % 8 == 0


def test_unfinished_runs_of_versions_without_leads_go_on_without():
    plan = VideoUpscaler(Streaming(), device="cpu", dtype="float32").plan((32, 24), (64, 48))
    earlier = {
        k: v for k, v in plan.to_json().items() if k not in ("lead_frames", "segment_multiple")
    }
    following = plan.following(earlier)
    assert (following.lead_frames, following.segment_multiple) == (0, 1)
    again = plan.following(plan.to_json())
    assert (again.lead_frames, again.segment_multiple) == (LEAD, MULTIPLE)


def test_noise_of_a_piece_is_that_of_the_whole():
    upscaler = VideoUpscaler(Noise(), device="cpu", dtype="float32")
    frames = torch.stack(streaming.frames_of_clip(11, 41, 53), dim=1)[None]
    options = {"scale": 1, "color_anchor": False, "shots": False}
    whole = upscaler.upscale(frames, **options)
    assert (whole - frames).std() > 0.05
    pieces = upscaler.upscale(frames, segment_frames=3, tile_px=24, **options)
    assert torch.allclose(pieces, whole, atol=1e-6)
