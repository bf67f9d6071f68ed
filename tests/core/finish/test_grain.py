"""Grain: laid as measured, new in every frame, and the same for the same frame and seed."""

import json
import math

import pytest
import torch

from oasis_core.finish.grain import (
    LUMA,
    PIXEL_SIZE,
    Grain,
    GrainLayer,
    GrainProfile,
    print_grain,
)
from oasis_core.finish.grain_measure import FlatPlace, measure_grain, share_left
from oasis_core.words import read_grain

CPU = torch.device("cpu")


def profile(size=1.0, color=0.3):
    return GrainProfile(
        sigma=tuple(0.01 + 0.002 * step for step in range(11)),
        size_px=(size, size),
        color=(color, color),
        color_size_px=(1.3 * size, 1.3 * size),
    )


def grey(height, width, level=0.5):
    return torch.full((3, height, width), level)


def slope(height, width):
    rows = torch.linspace(0.1, 0.9, height)[:, None].expand(height, width)
    return torch.stack([rows, rows, rows])


def luma(picture):
    return sum(share * plane for share, plane in zip(LUMA, picture, strict=True))


def as_bytes(picture):
    return (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [PIXEL_SIZE, 0.7, 1.5, 3.0])
def test_noise_has_the_size_and_strength_that_were_asked_for(size):
    layer = GrainLayer(Grain(profile=profile(size)), CPU)
    noise = layer.noise(3, 0, 512, 640)
    # A correlated field holds fewer independent values: its own statistics scatter by so much.
    scatter = 4 * max(1.0, 2 * math.sqrt(math.pi) * size) / math.sqrt(noise.numel())
    assert abs(float(noise.mean())) < scatter
    assert float(noise.std()) == pytest.approx(1, abs=scatter)
    common = float((noise[:, 1:] * noise[:, :-1]).mean())
    expected = 0.0 if size == PIXEL_SIZE else math.exp(-1 / (4 * size * size))
    assert common == pytest.approx(expected, abs=scatter + 0.01)


def test_grain_is_the_same_for_frame_and_seed_and_another_for_others():
    def laid(number, seed):
        picture = grey(96, 128)
        GrainLayer(Grain(profile=profile(), seed=seed), CPU).lay_(picture, number)
        return picture - 0.5

    assert torch.equal(laid(7, 1), laid(7, 1))
    for other in (laid(8, 1), laid(7, 2)):
        together = torch.corrcoef(torch.stack([laid(7, 1).flatten(), other.flatten()]))[0, 1]
        assert abs(float(together)) < 0.05


def test_the_numbers_behind_the_grain_are_the_same_everywhere():
    noise = GrainLayer(Grain(profile=profile(PIXEL_SIZE)), CPU).noise(5, 0, 2, 3)
    whole = noise * math.sqrt(4 * (256**2 - 1) / 12) + 510
    assert whole.round().int().tolist() == [[727, 612, 458], [333, 567, 544]]


def test_strength_follows_brightness_and_a_size_of_the_picture_changes_nothing_else():
    layer = GrainLayer(Grain(profile=profile(color=0.0)), CPU)
    for level, sigma in ((0.2, 0.014), (0.5, 0.02), (0.8, 0.026)):
        picture = grey(256, 256, level)
        layer.lay_(picture, 0)
        assert float(luma(picture).std()) == pytest.approx(sigma, rel=0.05)
        assert float(picture.mean()) == pytest.approx(level, abs=0.001)
        assert torch.equal(picture[0], picture[1])


def test_black_and_white_stay_and_nothing_leaves_the_scale():
    layer = GrainLayer(Grain(profile=print_grain(1.0, 1080)), CPU)
    for level in (0.0, 1.0):
        picture = grey(64, 64, level)
        layer.lay_(picture, 0)
        assert torch.equal(picture, grey(64, 64, level))
    dark = grey(256, 256, 0.02)
    layer.lay_(dark, 0)
    assert float(dark.min()) >= 0
    assert float(dark.mean()) == pytest.approx(0.02, abs=0.0005)


@pytest.mark.parametrize("size", [PIXEL_SIZE, 0.7, 1.2])
def test_measured_grain_is_the_grain_that_was_laid(size):
    layer, runs = GrainLayer(Grain(profile=profile(size), seed=4), CPU), []
    for start in (0, 50):
        run = []
        for number in (start, start + 1):
            picture = slope(360, 480)
            layer.lay_(picture, number)
            run.append(as_bytes(picture))
        runs.append(run)
    found, place = measure_grain(runs)
    wanted = profile(size).sigma
    for step in range(2, 9):  # the ends of the slope are not covered
        assert found.sigma[step] == pytest.approx(wanted[step], rel=0.08)
    assert found.size_px == pytest.approx((size, size), rel=0.15)
    assert found.color == pytest.approx((0.3, 0.3), rel=0.12)
    assert len(place.blocks) > 20


def test_laid_at_four_times_the_size_it_is_as_strong_as_measured_and_as_large_in_the_picture():
    source, layer = [], GrainLayer(Grain(profile=profile(0.7), seed=4), CPU)
    for number in (0, 1):
        picture = slope(240, 320)
        layer.lay_(picture, number)
        source.append(as_bytes(picture))
    found, _ = measure_grain([source])
    large, again = GrainLayer(Grain(profile=found.enlarged((4, 4)), left=0.0), CPU), []
    for number in (0, 1):
        picture = grey(512, 512, 0.5)
        large.lay_(picture, number)
        again.append(picture - 0.5)
    assert float(luma(again[0]).std()) == pytest.approx(found.sigma[5], rel=0.05)
    together = torch.corrcoef(torch.stack([a.flatten() for a in again]))[0, 1]
    assert abs(float(together)) < 0.05
    noise = large.noise(0, 0, 512, 512)
    common = float((noise[:, 1:] * noise[:, :-1]).mean())
    assert 0.5 / math.sqrt(-math.log(common)) == pytest.approx(4 * found.size_px[0], rel=0.1)


def moving(step, noise=None):
    """A texture that goes `step` pixels a frame, without any noise of its own."""
    generator = torch.Generator().manual_seed(0)
    texture = 0.5 + 0.03 * torch.randn(1, 240, 400, generator=generator)
    frames = [texture[:, :, n * step : n * step + 320].expand(3, -1, -1) for n in range(3)]
    return [as_bytes(frame.clamp(0, 1)) for frame in frames]


def test_clean_sources_have_none():
    smooth = [as_bytes(slope(240, 320) + 0.01 * number) for number in range(3)]
    for run in (smooth, moving(0), moving(3), moving(8)):
        assert measure_grain([run]) == (None, None)


def test_frames_that_are_held_are_passed_over():
    layer, frames = GrainLayer(Grain(profile=profile(), seed=4), CPU), []
    for number in (0, 1):
        picture = slope(240, 320)
        layer.lay_(picture, number)
        frames.append(as_bytes(picture))
    held, _ = measure_grain([[frames[0], frames[0], frames[0], frames[1]]])
    assert held == measure_grain([frames])[0]
    assert measure_grain([[frames[0], frames[0]]]) == (None, None)


def test_too_small_a_source_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"at least 64x64 pixels to measure, got 8x8; give an am"):
        measure_grain([[as_bytes(grey(8, 8)), as_bytes(grey(8, 8, 0.4))]])


def test_what_a_model_leaves_counts_and_what_the_resize_leaves_where_it_counts_little():
    grain = Grain(profile=profile(), left=0.6)
    assert grain.share(1.0, None) == pytest.approx(0.8)
    assert grain.share(0.0, None) == 0
    mask = torch.tensor([[0.0, 0.5, 1.0]])
    assert grain.share(1.0, mask)[0].tolist() == pytest.approx([0, 0.6, 0.8])
    amount = Grain(profile=profile())
    assert amount.share(0.0, None) == 1
    assert torch.equal(amount.share(1.0, mask), mask)


def test_where_the_share_is_0_nothing_is_touched():
    picture = slope(64, 64)
    share = torch.zeros(64, 64)
    share[:, 32:] = 1
    GrainLayer(Grain(profile=profile()), CPU).lay_(picture, 0, share)
    assert torch.equal(picture[..., :32], slope(64, 64)[..., :32])
    assert not torch.equal(picture[..., 32:], slope(64, 64)[..., 32:])


def test_the_share_left_is_that_of_the_grain():
    layer, source = GrainLayer(Grain(profile=profile()), CPU), grey(96, 96)
    layer.lay_(source, 0)
    place = FlatPlace(run=0, top=0, left=0, side_px=96, block_px=16, blocks=((0, 0), (16, 32)))
    halved = 0.5 + 0.5 * (source - 0.5)
    assert share_left(source, halved, place) == pytest.approx(0.5, abs=1e-4)
    assert share_left(source, grey(384, 384), place) == pytest.approx(0, abs=1e-4)


def test_json_brings_the_same_grain_back():
    for grain in (Grain(profile=profile(), left=0.25, seed=9), Grain(profile=print_grain(1, 720))):
        assert Grain.from_json(json.loads(json.dumps(grain.to_json()))) == grain


@pytest.mark.parametrize(
    ("said", "meant"), [("off", None), (0, None), ("0", None), ("auto", "auto"), ("0.25", 0.25)]
)
def test_amounts_are_read(said, meant):
    assert read_grain(said) == meant


@pytest.mark.parametrize("wrong", ["1.5", -0.1, "much", float("nan"), [1]])
def test_other_amounts_are_refused(wrong):
    with pytest.raises(ValueError, match="grain must be a number from 0 to 1, or auto, got"):
        read_grain(wrong)
