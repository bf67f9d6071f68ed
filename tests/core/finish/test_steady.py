"""Flicker taken out by an average along motion."""

import pytest
import torch
import torch.nn.functional as F

from oasis_core.finish import STEADY_REACH
from oasis_core.finish.alike import cell_px
from oasis_core.finish.steady import SteadyFilter

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def textured(height, width, seed=0):
    """A picture `3 h w` with structure of a few pixels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, height // 4 + 1, width // 4 + 1, generator=generator)
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0]


def small(picture, scale=4):
    """A frame of the source, `h w 3` uint8."""
    size = [side // scale for side in picture.shape[1:]]
    less = F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]
    return (less * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def steadied(pictures, frames, keep=slice(None), share=1.0):
    height, width = pictures[0].shape[1:]
    steady = SteadyFilter(height, width, CPU, share)
    return torch.stack(list(steady.run(iter(pictures), frames, keep)))


def flickering(num_frames, height=96, width=128, sigma=0.04):
    """A still scene: noisy sources, and results that differ at random."""
    generator = torch.Generator().manual_seed(3)
    scene = textured(height, width)
    pictures = [
        (scene + sigma * torch.randn(scene.shape, generator=generator)).clamp(0, 1)
        for _ in range(num_frames)
    ]
    noisy = torch.from_numpy(small(scene)).float()
    frames = [
        (noisy + 4 * torch.randn(noisy.shape, generator=generator)).clamp(0, 255).round().byte()
        for _ in range(num_frames)
    ]
    return scene, pictures, [frame.numpy() for frame in frames]


def test_on_a_tripod_the_deviation_over_time_falls_to_a_third():
    _, pictures, frames = flickering(21)
    before = torch.stack(pictures).std(0).mean()
    assert steadied(pictures, frames).std(0).mean() < before / 3


def test_a_share_goes_part_of_the_way_and_none_changes_nothing_but_rounding():
    _, pictures, frames = flickering(9)
    whole, half, none = (steadied(pictures, frames, share=s) for s in (1.0, 0.5, 0.0))
    plain = torch.stack(pictures)
    assert torch.allclose(half, 0.5 * (plain + whole), atol=1e-4)
    assert torch.allclose(none, plain, atol=1 / 32767)


def test_frames_further_away_than_the_reach_do_not_count():
    _, pictures, frames = flickering(24)
    whole = steadied(pictures, frames)
    first, last = 8, 13
    wide = slice(first - STEADY_REACH, last + STEADY_REACH)
    part = steadied(pictures[wide], frames[wide], slice(STEADY_REACH, STEADY_REACH + last - first))
    assert torch.equal(part, whole[first:last])


@pytest.mark.parametrize(("num_frames", "most"), [(1, 1.01), (2, 0.75), (3, 0.62), (6, 0.5)])
def test_short_runs_use_what_there_is(num_frames, most):
    scene, pictures, frames = flickering(num_frames)
    out = steadied(pictures, frames)
    assert out.shape == (num_frames, *scene.shape)
    error = (out - scene).square().mean().sqrt()
    before = (torch.stack(pictures) - scene).square().mean().sqrt()
    if num_frames == 1:
        assert torch.allclose(out[0], pictures[0], atol=1 / 32767)
    assert error < most * before


@pytest.mark.parametrize("step", [2, 8, 16, 32])
def test_a_square_that_moves_leaves_no_trace(step):
    scene, square = textured(160, 256, 1), textured(48, 48, 2)
    pictures, places = [], []
    for index in range(13):
        left = 104 + (index - 6) * step
        place = torch.zeros(160, 256, dtype=torch.bool)
        place[56:104, max(0, left) : max(0, min(256, left + 48))] = True
        picture = scene.clone()
        x = torch.arange(256) - left
        picture[:, place] = square[:, :, x.clamp(0, 47)].repeat(1, 4, 1)[:, :160][:, place]
        pictures.append(picture)
        places.append(place)
    out = steadied(pictures, [small(picture) for picture in pictures])
    for index in (5, 6, 7):
        for away in (-2, 2):
            where = places[index + away] & ~places[index]
            trace = (out[index] - pictures[index]).abs()[:, where]
            assert not trace.numel() or trace.max() <= 1 / 255


def test_what_pans_is_averaged_where_it_went():
    wide, shift = textured(96, 400), 8
    generator = torch.Generator().manual_seed(5)
    clean = [wide[:, :, i * shift : i * shift + 192] for i in range(13)]
    pictures = [(c + 0.04 * torch.randn(c.shape, generator=generator)).clamp(0, 1) for c in clean]
    out = steadied(pictures, [small(picture) for picture in clean])
    before = (torch.stack(pictures) - torch.stack(clean))[4:9, :, 16:-16, 72:-72].std()
    after = (out - torch.stack(clean))[4:9, :, 16:-16, 72:-72].std()
    assert after < 0.7 * before


def test_odd_sizes_and_tensors_as_frames():
    _, pictures, _ = flickering(4, 97, 131)
    frames = [F.interpolate(p[None], (33, 44), mode="bilinear")[0] for p in pictures]
    assert steadied(pictures, frames).shape == (4, 3, 97, 131)


@pytest.mark.parametrize(
    ("scale", "expected"), [(1, 4), (1.5, 4), (2, 4), (3, 8), (4, 8), (8, 16), (64, 32)]
)
def test_cells_are_about_two_pixels_of_the_source(scale, expected):
    assert cell_px(round(180 * scale), round(320 * scale), 180, 320) == expected


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match="steady must be between 0 and 1, got"):
        SteadyFilter(16, 16, CPU, share)
