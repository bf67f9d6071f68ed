import torch

from oasis_core.config import OASIS_TINY
from oasis_core.model.denoiser import build_model
from oasis_core.model.layers import TemporalBlock, neighbor_differences


def open_block():
    block = TemporalBlock(4)
    torch.nn.init.normal_(block.conv_neighbors.weight)
    return block


def test_neighbor_differences_stay_inside_the_clip():
    x = torch.arange(6.0).square().reshape(6, 1, 1, 1)
    differences = neighbor_differences(x, num_frames=3).flatten(1)
    assert differences[:, 0].tolist() == [0, -1, -3, 0, -7, -9]
    assert differences[:, 1].tolist() == [1, 3, 0, 7, 9, 0]


def test_temporal_block_uses_the_frames_beside_and_no_others():
    torch.manual_seed(0)
    block, clip = open_block(), torch.randn(5, 4, 6, 7)
    other = clip.clone()
    other[0] += 1
    changed = (block(clip, 5) - block(other, 5)).abs().amax(dim=(1, 2, 3)) > 0
    assert changed.tolist() == [True, True, False, False, False]


def test_temporal_block_treats_a_clip_that_stands_still_as_single_frames():
    torch.manual_seed(0)
    block, frame = open_block(), torch.randn(1, 4, 6, 7)
    still = block(frame.expand(3, -1, -1, -1), 3)
    assert torch.allclose(still, block(frame, 1).expand(3, -1, -1, -1), atol=1e-6)


def test_untrained_neighbors_contribute_nothing():
    fusion = build_model(OASIS_TINY, seed=1).decoder.fusion
    clip = torch.randn(3, OASIS_TINY.stem_channels, 4, 4)
    singly = torch.cat([fusion(frame[None], 1) for frame in clip])
    assert torch.allclose(fusion(clip, 3), singly, atol=1e-5)
