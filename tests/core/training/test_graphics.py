"""Drawn stills: the same for a seed, hard-edged, and part of a training's stills."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from oasis_core.training.config import TrainingConfig, TrainingError
from oasis_core.training.data import load_footage
from oasis_core.training.graphics import SIDE_PX, draw_stills

pytest.importorskip("PIL")


def test_drawings_follow_the_seed():
    first, again, other = (draw_stills(3, [], seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert {(tuple(still.shape), still.dtype) for still in first} == {
        ((1, 3, SIDE_PX, SIDE_PX), torch.uint8)
    }


def test_drawings_have_hard_edges():
    for still in draw_stills(4, [], 3):
        steps = still[0].float().diff(dim=-1).abs()
        # Most neighbours are equal, some differ by far more than in a photograph.
        assert (steps == 0).float().mean() > 0.3
        assert steps.max() > 64


def test_some_drawings_lie_on_a_photograph():
    photo = torch.full((1, 3, 40, 60), 0, dtype=torch.uint8)
    photo[:, 0] = torch.arange(60, dtype=torch.uint8) * 4
    drawings = draw_stills(12, [photo], 5)
    on_photo = [still for still in drawings if len(still[0, 0].unique()) > 150]
    assert 1 <= len(on_photo) < 12


def test_a_training_takes_none_by_default_and_no_negative_number():
    config = {"model": "oasis-tiny", "data_dirs": (), "output_dir": "x", "stages": ()}
    with pytest.raises(TrainingError, match="drawn_stills must be at least 0, got -1"):
        TrainingConfig(**config, drawn_stills=-1)
    assert TrainingConfig.__dataclass_fields__["drawn_stills"].default == 0


def test_drawings_join_the_stills_of_every_stage(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path, drawn_stills=3)
    plain = load_footage(configuration(footage, tmp_path), config.stages[0])
    sources = load_footage(config, config.stages[1])
    assert len(sources.stills) == len(plain.stills) + 3
    expected = draw_stills(3, plain.stills, config.seed)
    assert all(map(torch.equal, sources.stills[-3:], expected))


def test_drawings_are_refused_where_they_would_not_fit(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path, drawn_stills=3)
    large = dataclasses.replace(config.stages[1], crop_px=512)
    config = dataclasses.replace(config, stages=(config.stages[0], large))
    with pytest.raises(TrainingError, match="crop_px must be at most 480, got 512"):
        load_footage(config, config.stages[0])
    config = configuration(footage, tmp_path, drawn_stills=3, data_archives=("clips.tar",))
    with pytest.raises(TrainingError, match="leave one of them out"):
        load_footage(config, config.stages[0])
