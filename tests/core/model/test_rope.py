import pytest
import torch

from oasis_core.model.rope import apply_rope, axis_sizes, rope_rotations


def test_axes_share_a_head_of_128_as_wan_does():
    assert axis_sizes(128) == (44, 42, 42)


@pytest.mark.parametrize("head_size", [2, 8, 12, 32, 64])
def test_axes_use_every_channel(head_size):
    assert sum(axis_sizes(head_size)) == head_size
    assert all(size % 2 == 0 for size in axis_sizes(head_size))


def test_frequencies_match_the_published_table():
    cos, _ = rope_rotations((2, 2, 2), 128, torch.device("cpu"))
    angle = torch.acos(cos)
    step_t, step_h = angle[4, :22], angle[2, 22:43]
    assert torch.allclose(step_t[:2], torch.tensor([1.0, 0.65793]), atol=1e-4)
    assert torch.allclose(step_h[:2], torch.tensor([1.0, 0.64495]), atol=1e-4)


def test_scores_depend_on_relative_position_only():
    grid, size = (3, 4, 5), 24
    cos, sin = rope_rotations(grid, size, torch.device("cpu"))
    q, k = torch.randn(size), torch.randn(size)
    n = 3 * 4 * 5
    rotated_q = apply_rope(q.expand(1, n, 1, size), cos, sin)[0, :, 0]
    rotated_k = apply_rope(k.expand(1, n, 1, size), cos, sin)[0, :, 0]
    scores = (rotated_q @ rotated_k.T).view(*grid, *grid)
    assert torch.allclose(scores[0, 0, 0, 1, 2, 2], scores[1, 1, 2, 2, 3, 4], atol=1e-4)
    assert not torch.allclose(scores[0, 0, 0, 1, 2, 2], scores[0, 0, 0, 2, 1, 2], atol=1e-2)


def test_rotation_keeps_lengths():
    cos, sin = rope_rotations((2, 3, 2), 12, torch.device("cpu"))
    x = torch.randn(1, 12, 2, 12)
    assert torch.allclose(apply_rope(x, cos, sin).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
