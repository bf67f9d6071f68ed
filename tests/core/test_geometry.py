import json
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from oasis_core import geometry as g
from oasis_core.geometry import middle
from oasis_core.sizes import target_size, wanted_size
from oasis_core.upscale import UpscaleOptions
from oasis_core.video import nearest_rate

RANDOM = random.Random(0)  # one fixed stream: a failure is reproducible


@pytest.mark.parametrize(
    ("source", "request_", "expected"),
    [
        ((320, 180), {"scale": 4}, (1280, 720)),
        ((50, 51), {"scale": 1.1}, (55, 56)),
        ((45, 45), {"scale": 1.1}, (50, 50)),  # 49.5 rounds up although 45 * 1.1 < 49.5 in floats
        ((15, 9), {"scale": 1.5}, (23, 14)),
        ((853, 480), {"scale": 1}, (853, 480)),
        ((853, 480), {"scale": Fraction(2, 3)}, (569, 320)),
        ((64, 64), {"scale": 0.125}, (8, 8)),
        ((1920, 1080), {"size": (3840, 2160)}, (3840, 2160)),
        ((1081, 1921), {"size": (8, 32768)}, (8, 32768)),
    ],
)
def test_target_size(source, request_, expected):
    assert target_size(*source, **request_) == expected


@pytest.mark.parametrize(
    ("source", "request_", "expected"),
    [
        ((640, 360), {"size": "1080p"}, (1920, 1080)),
        ((360, 640), {"size": "1080p"}, (1080, 1920)),  # upright: still the shorter side
        ((720, 576), {"size": "4k"}, (2700, 2160)),
        ((853, 480), {"size": "720p"}, (1280, 720)),  # 1279.5
        ((101, 57), {"size": "480p"}, (850, 480)),  # 850.5: the nearest even number
        ((720, 576), {"fit": (1920, 1080)}, (1350, 1080)),
        ((1920, 800), {"fit": (1280, 720)}, (1280, 534)),  # 533.3: even
        ((333, 251), {"fit": (333, 251)}, (333, 251)),  # an odd box that fits is filled
        ((640, 360), {"scale": 4, "max_side": 1920}, (1920, 1080)),
        ((360, 640), {"scale": 4, "max_side": 1920}, (1080, 1920)),
        ((640, 360), {"scale": 2, "max_side": 1920}, (1280, 720)),  # short enough
        ((101, 101), {"scale": 1, "max_side": 99}, (99, 99)),
        ((853, 481), {"scale": 1, "even": True}, (852, 480)),
        ((64, 1), {"scale": 1, "even": True}, (64, 2)),
        ((64, 64), {"size": (65, 63), "even": True}, (64, 62)),
    ],
)
def test_size_by_name_box_and_limit(source, request_, expected):
    assert wanted_size(*source, **request_) == expected


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({}, "exactly one of scale, size and fit must be given, got none"),
        ({"scale": 2, "fit": (9, 9)}, "exactly one of .*, got scale=2, fit="),
        ({"size": "1080i"}, "size must be .* or one of 240p, .*, got '1080i'"),
        ({"fit": (7, 900)}, "fit must be at least 8x8 pixels, got 7x900"),
        ({"fit": (8.5, 900)}, "fit must be two whole numbers"),
        ({"scale": 2, "max_side": 4}, "max_side must be .* at least 8 pixels, got 4"),
        ({"scale": 2, "max_side": True}, "max_side must be"),
        ({"scale": 2, "max_side": 99.5}, "max_side must be a whole number"),
    ],
)
def test_size_that_cannot_be_is_refused(request_, sentence):
    with pytest.raises(ValueError, match=sentence):
        wanted_size(64, 48, **request_)


def test_shape_stays_in_every_box():
    for _ in range(300):
        width, height = RANDOM.randint(8, 4000), RANDOM.randint(8, 4000)
        box = RANDOM.randint(8, 9000), RANDOM.randint(8, 9000)
        sides = wanted_size(width, height, fit=box)
        factor = min(box[0] / width, box[1] / height)
        assert sides[0] == box[0] or sides[1] == box[1]
        for side, length, most in zip(sides, (width, height), box, strict=True):
            assert side <= most
            assert abs(side - max(2, length * factor)) <= 1


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "4", True])
def test_scale_must_be_a_positive_number(scale):
    with pytest.raises(ValueError, match="scale must be"):
        target_size(64, 64, scale=scale)


@pytest.mark.parametrize(
    ("source", "request_", "text"),
    [
        ((1, 0), {"scale": 16}, "source must have pixels"),
        ((64, 64), {"scale": 0.001}, "between 1 and 32768"),
        ((64, 64), {"size": (40000, 64)}, "between 1 and 32768"),
        ((64, 64), {"size": (64.5, 64)}, "two whole numbers"),
        ((64, 64), {}, "exactly one of scale and size"),
        ((64, 64), {"scale": 2, "size": (128, 128)}, "exactly one of scale and size"),
    ],
)
def test_impossible_sizes_are_refused(source, request_, text):
    with pytest.raises(ValueError, match=text):
        target_size(*source, **request_)


def test_padding_reflects_back_and_forth():
    assert g.padding_indices(5, 8) == [3, 2, 1]
    assert g.padding_indices(3, 10) == [1, 0, 1, 2, 1, 0, 1]
    assert g.padding_indices(1, 4) == [0, 0, 0]
    assert g.padding_indices(7, 7) == []


def test_valid_num_frames():
    assert [n for n in range(-1, 18) if g.is_valid_num_frames(n, 4)] == [1, 5, 9, 13, 17]
    assert all(g.is_valid_num_frames(n, 1) for n in range(1, 40))
    for n in range(1, 40):
        following = g.next_valid_num_frames(n, 4)
        assert n <= following < n + 4
        assert g.is_valid_num_frames(following, 4)
        assert g.next_valid_num_frames(n, 1) == n


def test_tiles_cover_every_axis_on_the_token_grid():
    for _ in range(2000):
        stride = RANDOM.choice([1, 4, 8, 16, 24])
        length = stride * RANDOM.randint(1, 90)
        axis = g.plan_tile_axis(length, RANDOM.randint(1, 700), RANDOM.randint(0, 200), stride)
        assert axis.starts[0] == 0
        assert axis.starts[-1] + axis.tile == length
        assert axis.tile % stride == 0
        assert all(start % stride == 0 for start in axis.starts)
        assert list(axis.starts) == sorted(set(axis.starts))
        for first, second in zip(axis.starts, axis.starts[1:], strict=False):
            assert first + axis.tile - second >= axis.overlap
        edges = [edge for seam in axis.seams for edge in seam]
        assert edges == sorted(edges)  # fades follow each other and never meet
        if axis.overlap >= 4:
            for (start, stop), first, second in zip(
                axis.seams, axis.starts, axis.starts[1:], strict=False
            ):
                assert second <= start < stop <= first + axis.tile


def test_one_tile_when_it_fits():
    assert g.plan_tile_axis(720, 720, 64, 16).starts == (0,)
    assert g.plan_tile_axis(720, 5000, 64, 16).tile == 720
    with pytest.raises(ValueError, match="multiple of the token size 16"):
        g.plan_tile_axis(721, 256, 64, 16)


def test_segments_partition_the_shot():
    for _ in range(2000):
        num_frames, length = RANDOM.randint(1, 300), RANDOM.randint(1, 40)
        halo = RANDOM.randint(0, 9)
        segments = g.plan_segments(num_frames, length, halo)
        assert [s.start for s in segments] == [0, *[s.stop for s in segments[:-1]]]
        assert segments[-1].stop == num_frames
        for s in segments:
            assert 1 <= s.num_frames <= length
            assert s.read_start == max(0, s.start - halo)
            assert s.read_stop == min(num_frames, s.stop + halo)
            assert len(range(s.read_stop - s.read_start)[s.keep]) == s.num_frames
            if len(segments) > 1:
                assert s.num_frames >= length // 2  # no sliver at the end


def test_segments_do_not_depend_on_when_frames_arrive():
    for _ in range(500):
        num_frames, length = RANDOM.randint(1, 120), RANDOM.randint(1, 30)
        streamed, known, taken = [], 0, 0
        while taken < num_frames:
            known = min(num_frames, known + RANDOM.randint(0, 5))
            size = g.next_segment_frames(known - taken, length, is_shot_over=known == num_frames)
            if size:
                streamed.append(size)
                taken += size
        assert streamed == [s.num_frames for s in g.plan_segments(num_frames, length, 0)]


@pytest.mark.parametrize("counts", [(0, 8, 1), (8, 0, 1), (8, 8, -1)])
def test_segment_counts_are_checked(counts):
    with pytest.raises(ValueError, match="must be at least"):
        g.plan_segments(*counts)


def test_shots_from_cuts():
    assert g.shots_from_cuts(10, [7, 3]) == [(0, 3), (3, 7), (7, 10)]
    assert g.shots_from_cuts(10, [0, 10]) == [(0, 10)]


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.uint8, np.array])
def test_a_scale_may_be_a_number_of_numpy(kind):
    assert target_size(320, 180, scale=kind(2)) == (640, 360)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_a_scale_may_be_a_number_of_torch(dtype):
    assert target_size(320, 180, scale=torch.tensor(2, dtype=dtype)) == (640, 360)


@pytest.mark.parametrize("scale", [np.float32(1.1), np.float64(1.1), torch.tensor(1.1)])
def test_single_precision_means_the_decimal_that_was_written(scale):
    assert target_size(45, 45, scale=scale) == (50, 50)
    assert nearest_rate(scale) == Fraction(11, 10)


@pytest.mark.parametrize(
    "scale", [np.bool_(True), np.array([2, 2]), torch.ones(2), np.float32("nan")]
)
def test_what_is_no_scalar_of_numpy_or_torch_is_no_scale(scale):
    with pytest.raises(ValueError, match="scale must be"):
        target_size(320, 180, scale=scale)


def test_options_of_numpy_become_plain_numbers():
    options = UpscaleOptions(
        scale=np.float32(1.5), tile_px=np.int64(64), strength=torch.tensor(0.5)
    )
    assert json.dumps(options.fixed_plan) == json.dumps(
        {"tile_px": 64, "segment_frames": None, "halo_frames": 2}
    )
    assert (options.scale, options.strength) == (1.5, 0.5)
    assert UpscaleOptions(size=(np.int64(64), np.int64(48))).size == (64, 48)


@pytest.mark.parametrize(("length", "part"), [(5, 3), (4, 4), (7, 2), (8, 1)])
def test_the_middle_has_as_much_on_both_sides(length, part):
    place = middle(length, part)
    assert len(range(length)[place]) == part
    assert 0 <= length - place.stop - place.start <= 1
