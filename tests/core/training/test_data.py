import dataclasses

import pytest
import torch

from oasis_core.training.config import TrainingError
from oasis_core.training.data import (
    ShardStream,
    batches,
    make_shard,
    pan_over_still,
    steps_per_shard,
)
from oasis_core.training.footage import load_sources


def test_shards_depend_on_seed_and_index_only(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path)
    sources = load_sources(config.data_dirs, 64, 3)
    assert (len(sources.clips), len(sources.stills)) == (2, 1)
    first, again, other = (make_shard(config, 0, index, sources) for index in (0, 0, 1))
    assert torch.equal(first.truth, again.truth)
    assert torch.equal(first.resized, again.resized)
    assert not torch.equal(first.resized, other.resized)
    assert first.truth.shape == first.resized.shape == (4, 3, 3, 64, 64)


def test_a_process_makes_its_places_of_the_batch_only(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path)
    sources = load_sources(config.data_dirs, 64, 3)
    whole = list(batches(make_shard(config, 0, 3, sources), config, 0, 3))
    assert len(whole) == steps_per_shard(config, config.stages[0]) == 4
    for place in (0, 1):
        places = range(place, place + 1)
        shard = make_shard(config, 0, 3, sources, places)
        assert len(shard.truth) == 2
        parts = list(batches(shard, config, 0, 3, places, skip=1))
        for part, batch in zip(parts, whole[1:], strict=True):
            for piece, everything in zip(part, batch, strict=True):
                assert torch.equal(piece[0], everything[place])


def test_single_frames_come_from_clips_that_were_degraded_whole(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path)
    changes = {"num_frames": 1, "degraded_frames": 4, "degradations": {"consistent": 1.0}}
    stage = dataclasses.replace(config.stages[0], **changes)
    config = dataclasses.replace(config, stages=(stage,))
    sources = load_sources((str(footage / "only_video"),), 64, 4)
    shard = make_shard(config, 0, 0, sources)
    assert shard.truth.shape[1] == shard.resized.shape[1] == 4
    used = [resized for resized, _ in batches(shard, config, 0, 0)]
    assert all(resized.shape == (2, 3, 1, 32, 32) for resized in used)
    assert len({resized.sum().item() for resized in used}) == len(used)


def test_a_frame_inside_its_clip_comes_with_the_frames_around_it(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path)
    stage = dataclasses.replace(config.stages[0], num_frames=1, context_frames=1, degraded_frames=4)
    config = dataclasses.replace(config, stages=(stage,))
    shard = make_shard(config, 0, 0, load_sources(config.data_dirs, 64, 4))
    assert shard.truth.shape[1] == 4
    assert all(x.shape == (2, 3, 3, 32, 32) for pair in batches(shard, config, 0, 0) for x in pair)


def test_some_cameras_stand_on_a_tripod_and_most_move():
    generator = torch.Generator().manual_seed(0)
    still = torch.randint(256, (1, 3, 160, 160), generator=generator, dtype=torch.uint8)
    clips = [pan_over_still(still, 3, 64, generator) for _ in range(60)]
    num_still = sum(bool((clip == clip[:1]).all()) for clip in clips)
    assert 5 <= num_still <= 20


@pytest.mark.slow
def test_degrading_on_the_device_makes_the_same_samples(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path, samples_per_shard=6)
    stage = dataclasses.replace(config.stages[0], degradations={"light": 0.5, "consistent": 0.5})
    config = dataclasses.replace(config, stages=(stage,))
    sources = load_sources(config.data_dirs, 64, 3)
    here = make_shard(config, 0, 0, sources)
    stream = ShardStream(config, 0, sources)
    index, there = next(stream.load(0, 1, torch.device("cpu")))
    assert index == 0
    assert torch.equal(there.truth, here.truth)
    gap = (there.resized.float() - here.resized.float()).abs()
    assert gap.mean() < 0.2 / 255
    assert (gap.amax(dim=(1, 2, 3, 4)) < 6 / 255).all()


def test_codecs_of_the_configuration_are_checked(footage, tmp_path, configuration):
    assert configuration(footage, tmp_path, codecs=("libx265",)).codecs == ("libx265",)
    with pytest.raises(TrainingError, match="codec must be one of"):
        configuration(footage, tmp_path, codecs=("theora",))
