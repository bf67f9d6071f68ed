from types import SimpleNamespace

import pytest
import torch
from torch import nn

from oasis_core.bench.boundaries import _fade_weights, measure_boundaries
from oasis_core.geometry import plan_segments
from oasis_core.upscale import VideoUpscaler


class Neighbours(nn.Module):
    """Adds the mean over `reach` frames on both sides: borders show unless the halo covers it."""

    def __init__(self, reach):
        super().__init__()
        self.reach = reach
        self.config = SimpleNamespace(name="neighbours", token_stride=(1, 8, 8))

    def forward(self, video):
        size = 2 * self.reach + 1
        padded = nn.functional.pad(video, (0, 0, 0, 0, self.reach, self.reach), mode="replicate")
        return nn.functional.avg_pool3d(padded, (size, 1, 1), stride=1) - video


def test_a_halo_as_wide_as_the_model_reaches_hides_the_boundaries():
    video = torch.rand(1, 3, 26, 12, 12, generator=torch.Generator().manual_seed(0))
    upscaler = VideoUpscaler(Neighbours(3), device="cpu", dtype="float32")
    scores = measure_boundaries(upscaler, video, scale=1, halos=(0, 1, 6), segment_frames=(7, 13))
    discard = {row.halo_frames: row for row in scores if row.variant == "discard"}
    fade = {row.halo_frames: row for row in scores if row.variant == "cross_fade"}
    agreement = [discard[halo].agreement_db for halo in (0, 1, 6)]
    assert agreement == sorted(agreement)
    assert agreement[0] < 30
    assert agreement[2] > 60
    assert discard[6].boundary_ratio == pytest.approx(1, abs=0.15)
    assert fade[6].agreement_db > 25
    assert discard[1].extra_work == pytest.approx(2 / 7)


@pytest.mark.parametrize("halo", [0, 1, 3])
def test_cross_fade_weights_sum_to_one(halo):
    total = torch.zeros(40)
    for segment in plan_segments(40, 9, halo):
        total[segment.read_start : segment.read_stop] += _fade_weights(segment, 40, halo)
    assert torch.allclose(total, torch.ones(40))


def test_a_clip_of_one_segment_has_no_boundary():
    upscaler = VideoUpscaler(Neighbours(1), device="cpu", dtype="float32")
    with pytest.raises(ValueError, match="longer than one segment"):
        measure_boundaries(upscaler, torch.rand(1, 3, 5, 8, 8), scale=1, halos=(1,))
