"""What a run tells while it works, and that it can be stopped wherever it is."""

import itertools

import pytest
import torch

import oasis_core
from oasis_core.evaluation.clip_scores import compare_clips, match_clips
from oasis_core.upscale import upscale_file
from oasis_core.upscale.progress import BlockCounter
from oasis_core.upscale.tile_clips import split_tiles, stitch_tiles, upscale_tiles
from oasis_core.video import ClipSource


class Watcher:
    """Notes all it is told, and stops at the n-th call if asked to."""

    def __init__(self, stop_at=None):
        self.calls, self.shares, self.stages = itertools.count(), [], []
        self.stop_at = stop_at
        self.num_calls = 0

    def _count(self):
        self.num_calls += 1
        if self.stop_at is not None and self.num_calls > self.stop_at:
            raise KeyboardInterrupt

    def __call__(self, done, total):
        self.shares.append(done / total)
        self._count()

    def stage(self, name, done, total):
        self.stages.append((name, done, total))
        self._count()

    def num_steps(self, name):
        return sum(stage == name for stage, _, _ in self.stages)


@pytest.fixture(scope="module")
def tiny():
    return oasis_core.load(device="cpu", dtype="float32")


def waves(num_frames=5, height=48, width=64):
    x = torch.arange(width) + 2 * torch.arange(num_frames)[:, None]
    return (0.5 + 0.3 * torch.sin(x * 0.2))[None, None, :, None, :].expand(1, 3, -1, height, -1)


def test_every_stage_of_a_file_is_told_frame_by_frame(tiny, tmp_path):
    watcher = Watcher()
    clip = ClipSource(frames=waves()[0].transpose(0, 1), frame_rate=24)
    upscale_file(clip, tmp_path / "a.mp4", upscaler=tiny, scale=2, on_progress=watcher)
    for name in ("read", "resize", "motion", "blend", "encode"):
        assert watcher.num_steps(name) >= 5, name
    assert watcher.num_steps("model")
    first = [name for name, _ in itertools.groupby(name for name, *_ in watcher.stages)]
    assert first[:3] == ["read", "resize", "motion"]
    assert first[-1] == "mux"
    assert watcher.shares == sorted(watcher.shares)
    # The motion is part of the work: the share moves before the first block is done.
    place = next(i for i, share in enumerate(watcher.shares) if share > 0)
    assert watcher.shares[place] < 0.2
    assert watcher.shares[-1] == 1


def test_a_clip_in_memory_moves_within_a_tile(tiny):
    watcher = Watcher()
    tiny.upscale(waves(), scale=2, on_progress=watcher)
    assert {name for name, *_ in watcher.stages} == {"shots", "resize", "motion", "model", "blend"}
    assert watcher.shares == sorted(watcher.shares)
    assert sum(0 < share < 0.9 for share in watcher.shares) > 8


def test_tiles_are_counted_as_tiles(tiny):
    tiles = split_tiles(waves(4, 64, 160), tile_px=64, overlap_px=16)
    seen = []
    upscale_tiles(tiny, tiles, scale=1, on_progress=lambda *values: seen.append(values))
    assert {total for _, total in seen} == {len(tiles.clips)}
    assert seen[-1] == (len(tiles.clips), len(tiles.clips))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def jobs(tiny, tmp_path):
    """Everything that takes long, as functions of who is told."""
    before, after = (waves()[0].transpose(0, 1) * share for share in (1, 0.9))
    tiles = split_tiles(waves(4, 64, 160), tile_px=64, overlap_px=16)
    clip = ClipSource(frames=before, frame_rate=24)

    def degrade(watcher):
        oasis_core.degrade(before, preset="inconsistent", scale=2, seed=3, on_progress=watcher)

    def file(watcher):
        options = {"upscaler": tiny, "scale": 2, "overwrite": True, "fresh": True}
        upscale_file(clip, tmp_path / "a.mp4", on_progress=watcher, **options)

    return {
        "file": file,
        "clip": lambda watcher: tiny.upscale(waves(), scale=2, on_progress=watcher),
        "tiles": lambda watcher: upscale_tiles(tiny, tiles, scale=1, on_progress=watcher),
        "split": lambda watcher: split_tiles(
            waves(), tile_px=64, overlap_px=16, on_stage=watcher.stage
        ),
        "stitch": lambda watcher: stitch_tiles(tiles, watcher.stage),
        "degrade": degrade,
        "compare": lambda watcher: compare_clips(before, after, on_progress=watcher),
        "match": lambda watcher: match_clips(
            before, after[..., :32, :32], check=lambda: watcher.stage("resize", 0, 0)
        ),
    }


LEAST_STEPS = {
    "file": 40, "clip": 30, "tiles": 60, "split": 5, "stitch": 3, "degrade": 40, "compare": 80,
    "match": 5,
}  # fmt: skip


@pytest.mark.parametrize("name", LEAST_STEPS)
def test_a_run_can_be_stopped_at_every_step(tiny, tmp_path, name):
    job = jobs(tiny, tmp_path)[name]
    whole = Watcher()
    job(whole)
    assert whole.num_calls >= LEAST_STEPS[name]
    for stop_at in (0, whole.num_calls // 3, whole.num_calls - 1):
        watcher = Watcher(stop_at)
        with pytest.raises(KeyboardInterrupt):
            job(watcher)
        assert watcher.num_calls == stop_at + 1


def test_pieces_degrade_as_the_whole_does():
    for preset, seed in (("light", 1), ("consistent", 2), ("inconsistent", 3), ("web", 4)):
        for height, width in ((48, 64), (50, 66), (47, 33)):
            clip = waves(6, height, width)[0].transpose(0, 1)
            whole, steps = oasis_core.degrade(clip, preset=preset, scale=2, seed=seed)
            told, told_steps = oasis_core.degrade(
                clip, preset=preset, scale=2, seed=seed, on_progress=lambda *_: None
            )
            assert steps == told_steps
            # Rounding may differ by the size of a batch; a level that tips over is 1/255.
            assert (whole - told).abs().max() <= 2 / 255, (preset, height, width)
            assert ((whole - told).abs() > 0).float().mean() < 0.01


def test_the_share_of_motion_is_learned_from_the_first_tile(tiny):
    now = [0.0]
    shares = []
    counter = BlockCounter(tiny.model, shares.append, clock=lambda: now[0])

    def advance(*_):
        now[0] += 9.0

    def step(*_):
        now[0] += 1.0

    motion = [m for m in tiny.model.modules() if type(m).__name__ == "FrameChanges"]
    # Ours first: it moves the clock before the counter looks at it.
    handles = [layer.register_forward_hook(advance) for layer in motion]
    handles += [block.register_forward_hook(step) for block in counter._blocks]
    try:
        with counter.watching():
            for _ in range(2):
                counter.begin_tile()
                tiny.model(waves(5, 32, 32))
                counter.tile_done()
    finally:
        for handle in handles:
            handle.remove()
    second = shares[len(shares) // 2 :]
    num_blocks = len(counter._blocks)
    expected = 9 * 5 / (9 * 5 + num_blocks + 1)
    assert second[4] == pytest.approx(expected, abs=1e-6)
