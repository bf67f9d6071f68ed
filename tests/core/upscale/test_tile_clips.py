import re
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

import oasis_core
from oasis_core.upscale.tile_clips import split_tiles, stitch_tiles, upscale_tiles


def clip(height=150, width=210, num_frames=2, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, num_frames, height, width, generator=generator)


def through(tiles, function):
    return tiles.with_clips([function(tile) for tile in tiles.clips])


def per_frame(function):
    return lambda video: function(video[0].transpose(0, 1)).transpose(0, 1)[None]


@pytest.mark.parametrize("size", [(150, 210), (64, 64), (33, 500), (96, 97), (8, 8)])
@pytest.mark.parametrize(("tile_px", "overlap_px"), [(64, 32), (96, 0), (100, 90), (4096, 64)])
def test_untouched_tiles_give_back_the_very_clip(size, tile_px, overlap_px):
    video = clip(*size, channels=4)
    tiles = split_tiles(video, tile_px=tile_px, overlap_px=overlap_px)
    assert torch.equal(stitch_tiles(tiles), video)


@pytest.mark.parametrize("factor", [Fraction(2), Fraction(3, 2), Fraction(1, 2), Fraction(17, 16)])
def test_any_scale_gives_what_the_whole_picture_would_give(factor):
    video = clip()
    size = [int(side * factor + Fraction(1, 2)) for side in video.shape[3:]]

    def resize(frames):
        # Looking up the nearest pixel is local and exact, so any seam or shift would show.
        rows, columns = (
            ((torch.arange(int(n * factor)) + 0.5) / float(factor)).long().clamp(max=n - 1)
            for n in frames.shape[3:]
        )
        return frames[..., rows, :][..., columns]

    tiles = split_tiles(video, tile_px=80, overlap_px=32)
    result = stitch_tiles(through(tiles, resize))
    assert list(result.shape[3:]) == size
    rows, columns = (
        ((torch.arange(n) + 0.5) / float(factor)).long().clamp(max=m - 1)
        for n, m in zip(size, video.shape[3:], strict=True)
    )
    assert torch.equal(result, video[..., rows, :][..., columns])


def test_local_processing_leaves_no_seam():
    video = clip()
    blur = per_frame(lambda x: F.avg_pool2d(F.pad(x, (4, 4, 4, 4), "reflect"), 9, stride=1))
    tiles = split_tiles(video, tile_px=96, overlap_px=32)
    result = stitch_tiles(through(tiles, blur))
    inside = (..., slice(0, 140), slice(0, 200))  # past it, padding to whole tokens is seen
    torch.testing.assert_close(result[inside], blur(video)[inside], rtol=0, atol=1e-6)


def test_tiles_that_disagree_fade_into_each_other():
    tiles = split_tiles(torch.zeros(1, 3, 1, 64, 224), tile_px=128, overlap_px=32)
    left, right = tiles.clips
    line = stitch_tiles(tiles.with_clips([left, right + 1]))[0, 0, 0, 10]
    steps = line.diff()
    assert line[0] == 0
    assert line[-1] == 1
    assert (steps >= 0).all()
    assert steps.max() < 0.1  # no line where one stops and the other begins


def test_upscaling_tiles_comes_near_upscaling_the_whole():
    upscaler = oasis_core.load(device="cpu", dtype="float32")
    video = F.interpolate(clip(12, 18)[0], (72, 108), mode="bicubic").clamp(0, 1)[None]
    seen = []
    tiles = split_tiles(video, tile_px=64, overlap_px=32)
    large = upscale_tiles(
        upscaler, tiles, scale=2, color_anchor=False, on_progress=lambda *at: seen.append(at)
    )
    whole = upscaler.upscale(video, scale=2, color_anchor=False)
    result = stitch_tiles(large)
    assert result.shape == whole.shape
    assert -10 * (result - whole).square().mean().log10() > 40
    assert seen == sorted(seen)
    assert seen[-1] == (len(tiles.clips), len(tiles.clips))


def test_all_tiles_are_cut_at_the_same_frames():
    dark, bright = clip(96, 96, 6, seed=1) * 0.3, 1 - clip(96, 96, 6, seed=2) * 0.3
    tiles = split_tiles(torch.cat([dark, bright], dim=2), tile_px=64, overlap_px=32)
    assert tiles.cuts == (6,)
    upscaler = oasis_core.load(device="cpu", dtype="float32")
    together = upscale_tiles(upscaler, tiles, scale=1)
    alone = upscale_tiles(upscaler, split_tiles(dark, tile_px=64, overlap_px=32), scale=1)
    for tile, expected in zip(together.clips, alone.clips, strict=True):
        assert torch.equal(tile[:, :, :6], expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda clips: clips[:-1], "all 4 tiles must come back, got 3"),
        (lambda clips: [clips[0][:, :, :1], *clips[1:]], "tile 0 must have 2 frames, got 1"),
        (lambda clips: [*clips[:3], clips[3][..., :-1]], "tile 3 must keep its size"),
        (lambda clips: [c[..., :-1] for c in clips], "tile 0 must keep its size"),
        (lambda clips: [c[..., :-1, :-1] for c in clips], "multiple of 1/16"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(change, said):
    tiles = split_tiles(clip(100, 100), tile_px=64, overlap_px=16)
    assert len(tiles.clips) == 4
    with pytest.raises(ValueError, match=re.escape(said)):
        tiles.with_clips(change(list(tiles.clips)))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="tile_px must be at least 64"):
        split_tiles(clip(), tile_px=32, overlap_px=16)
    tiles = split_tiles(clip(), tile_px=64, overlap_px=16)
    with pytest.raises(ValueError, match="multiple of 1/16"):
        upscale_tiles(oasis_core.load(device="cpu", dtype="float32"), tiles, scale=1.3)
