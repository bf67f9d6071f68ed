import random

import torch

from oasis_core.geometry import plan_tile_axis
from oasis_core.upscale.tiles import axis_weights, plan_tiles

CPU = torch.device("cpu")


def test_weights_sum_to_exactly_one_everywhere():
    stream = random.Random(1)
    for _ in range(300):
        stride = stream.choice([4, 8, 16])
        length = stride * stream.randint(1, 60)
        axis = plan_tile_axis(length, stream.randint(16, 300), stream.randint(0, 120), stride)
        total = torch.zeros(length)
        for start, weight in zip(axis.starts, axis_weights(axis), strict=True):
            total[start : start + axis.tile] += weight
        assert torch.equal(total, torch.ones(length))


def test_weights_of_a_picture_sum_to_exactly_one_and_do_not_fade_at_its_edge():
    grid = plan_tiles(168, 232, (64, 64), 24, (8, 8))
    total = torch.zeros(168, 232)
    for tile in grid.tiles(CPU):
        weight = tile.weight_rows * tile.weight_columns
        total[tile.rows, tile.columns] += weight
        if tile.top == 0 and tile.left == 0:
            assert weight[0, 0] == 1
    assert grid.num_tiles == 4 * 6
    assert torch.equal(total, torch.ones(168, 232))


def test_fade_is_smooth_and_leaves_the_outer_quarters_out():
    axis = plan_tile_axis(128, 96, 64, 16)
    first, second = axis_weights(axis)
    (start, stop) = axis.seams[0]
    assert (start - axis.starts[1], axis.tile - stop) == (8, 8) or axis.overlap < 64
    assert torch.equal(first[:start], torch.ones(start))
    assert not first[stop:].any()
    assert not second[: start - axis.starts[1]].any()
    assert (first[start:stop].diff() <= 0).all()
    assert first.diff().abs().max() < 0.15
