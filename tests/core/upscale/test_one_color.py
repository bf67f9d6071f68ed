"""Clips of one colour come back as they are: no border, no corner, no seam, no grid."""

import itertools

import pytest
import torch

import oasis_core

LEVELS = range(0, 256, 15)


def colors():
    """Greys, and every level of every channel beside dark, middling and bright others."""
    found = [(level, level, level) for level in LEVELS]
    for channel, others, level in itertools.product(range(3), (0, 102, 255), LEVELS):
        color = [others] * 3
        color[channel] = level
        found.append(tuple(color))
    return torch.tensor(found, dtype=torch.float32).view(-1, 3, 1, 1, 1) / 255


@pytest.fixture(scope="module", params=[0, 1])
def upscaler(request):
    options = {"transformer": False, "detail": request.param}
    return oasis_core.load(device="cpu", dtype="float32", **options)


def test_every_level_of_every_channel_stays_within_one(upscaler):
    clips = colors().expand(-1, 3, 1, 8, 12)
    restored = upscaler.upscale(clips, scale=2)
    off = (restored - colors()).abs().amax((1, 2, 3, 4)) * 255
    assert off.max() <= 1, f"{off.max():.2f} levels off at {colors()[off.argmax()].flatten() * 255}"


@pytest.mark.parametrize("color_anchor", [True, False])
def test_borders_corners_and_seams_do_not_show(upscaler, color_anchor):
    for color in ((255, 0, 0), (0, 255, 0), (250, 30, 120), (200, 200, 200)):
        clip = (torch.tensor(color).view(1, 3, 1, 1, 1) / 255).expand(1, 3, 3, 40, 56)
        options = {"scale": 2, "color_anchor": color_anchor, "shots": False}
        tiled = upscaler.upscale(clip, tile_px=64, **options)
        # Cells of 4x4 pixels are all alike, wherever they lie.
        cells = tiled.unfold(3, 4, 4).unfold(4, 4, 4).flatten(5)
        spread = cells.amax((3, 4)) - cells.amin((3, 4))
        assert spread.max() * 255 <= (1 if color_anchor else 0.01)
        assert torch.allclose(tiled, upscaler.upscale(clip, **options), atol=1e-3)
