"""Attention among chosen blocks: the choice by hand, and every way of computing it."""

import math

import pytest
import torch

from oasis_core.model.attention import attention_flops, routed_attention
from oasis_core.model.noise import keyed_noise
from oasis_core.model.sparse_attention import (
    SparsePattern,
    _dense,
    _flex,
    _in_blocks,
    local_blocks,
    local_frame_attention,
    select_blocks,
    sparse_attention,
)
from oasis_core.model.window_flex import flex_is_available

BLOCK = (1, 2, 2)


def pattern(ratio, local_range=11):
    return SparsePattern(BLOCK, local_range, ratio)


def ratio_for(number, grid):
    """The ratio with which a slice has `number` choices."""
    blocks = grid[1] * grid[2] // 4
    return (number + 1.5) * 256 * grid[1] * grid[2] / (768 * 1280 * blocks**2)


def heads_of(scores, grid, num_past=0):
    """Queries and keys whose blocks have given scores `q n`: queries are unit vectors."""
    size = len(scores)
    q = math.sqrt(size) * torch.eye(size, dtype=torch.float64)
    k = scores.T.double()

    def as_tokens(x, frames):
        blocks = x.view(frames, grid[1] // 2, grid[2] // 2, size)
        return blocks.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(1, 1, -1, size)

    return as_tokens(q, grid[0]), as_tokens(k, grid[0] + num_past)


def test_blocks_of_one_slice_compete_and_one_may_get_none():
    grid = (1, 2, 6)  # three blocks in a row
    scores = torch.tensor([[5.0, 4.9, 0.0], [0.1, 0.0, 0.05], [3.0, 0.0, 0.0]])
    q, k = heads_of(scores, grid)
    shares = scores.double().softmax(dim=1)
    assert shares[1].max() < shares[0, 1]
    chosen = select_blocks(q, k, grid=grid, pattern=pattern(ratio_for(3, grid)))
    assert chosen[0, 0].tolist() == [[True, True, False], [False] * 3, [True, False, False]]


def test_equal_shares_at_the_threshold_are_not_chosen():
    grid = (1, 2, 4)
    q, k = heads_of(torch.zeros(2, 2), grid)
    chosen = select_blocks(q, k, grid=grid, pattern=pattern(ratio_for(2, grid)))
    assert not chosen.any()
    q, k = heads_of(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), grid)
    for number, expected in ((1, 0), (2, 2), (3, 2)):  # shares: a b a b with a > b
        chosen = select_blocks(q, k, grid=grid, pattern=pattern(ratio_for(number, grid)))
        assert int(chosen.sum()) == expected, number


def test_choices_that_exceed_all_blocks_leave_out_the_least():
    """As published: the threshold is then the least share, and equals are not chosen."""
    grid = (1, 2, 4)
    q, k = heads_of(torch.tensor([[1.0, 0.0], [0.5, 0.0]]), grid)
    chosen = select_blocks(q, k, grid=grid, pattern=pattern(100.0))
    assert chosen[0, 0].tolist() == [[True, False], [True, True]]


def test_the_local_range_is_not_moved_at_borders():
    near = local_blocks(3, 4, 3, torch.device("cpu")).view(3, 4, 3, 4)
    assert near[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert near[1, 2].sum() == 9
    # Of an even range one more lies before.
    near = local_blocks(1, 5, 2, torch.device("cpu"))
    assert near.int().tolist() == [[int(c - 1 <= j <= c) for j in range(5)] for c in range(5)]
    grid = (1, 2, 10)
    q, k = heads_of(torch.zeros(5, 5), grid)
    inside = local_blocks(1, 5, 3, torch.device("cpu"))
    chosen = select_blocks(q, k, grid=grid, pattern=pattern(100.0, local_range=3))
    # Rows of two there have shares of a half, those of three of a third, others none.
    assert not chosen[0, 0][~inside].any()
    assert chosen[0, 0][inside].all()


def test_each_slice_of_queries_ranks_on_its_own():
    grid = (2, 2, 4)
    scores = torch.tensor([[9.0, 0, 0, 0], [0, 0, 0, 0], [0.2, 0.1, 0, 0], [0, 0, 0, 0]])
    q, k = heads_of(scores, grid)
    chosen = select_blocks(q, k, grid=grid, pattern=pattern(ratio_for(1, grid)))[0, 0]
    assert chosen.sum(dim=1).tolist() == [1, 0, 1, 0]


def test_number_of_choices_is_the_published_one():
    """At 1280x768 each query block may see 120 blocks on average, of 240."""
    wide = SparsePattern((2, 8, 8), 11, 2.0)
    assert wide.num_choices((6, 48, 80)) == 60 * 120 - 1
    assert wide.num_choices((2, 72, 120)) == int(135**2 * (2.0 * 768 * 1280 / (1152 * 1920))) - 1


CASES = [((2, 4, 6), 0, 5), ((2, 4, 6), 2, 9), ((1, 8, 4), 3, 3), ((3, 6, 2), 0, 100)]


@pytest.mark.parametrize(("grid", "num_past", "number"), CASES)
@pytest.mark.parametrize("local_range", [11, 3])
def test_all_ways_of_computing_agree(grid, num_past, number, local_range):
    generator = torch.Generator().manual_seed(number)
    tokens, past = math.prod(grid), num_past * grid[1] * grid[2]
    q, k, v = (
        torch.randn(2, 3, n, 8, generator=generator) for n in (tokens, tokens + past, tokens + past)
    )
    choice = pattern(ratio_for(number, grid), local_range)
    chosen = select_blocks(q, k, grid=grid, pattern=choice)
    results = {
        backend: sparse_attention(q, k, v, grid=grid, pattern=choice, backend=backend)
        for backend in ("dense", "halo", "auto")
    }
    assert torch.equal(results["auto"], results["dense"])
    assert (results["halo"] - results["dense"]).abs().max() <= 1e-5
    # Token by token, by the blocks they lie in.
    frames = torch.arange(num_past + grid[0]).repeat_interleave(grid[1] * grid[2])
    rows = torch.arange(grid[1]).repeat_interleave(grid[2]).repeat(num_past + grid[0]) // 2
    columns = torch.arange(grid[2]).repeat((num_past + grid[0]) * grid[1]) // 2
    block = (frames * (grid[1] // 2) + rows) * (grid[2] // 2) + columns
    own = block[:tokens]
    scores = torch.einsum("bkqd,bknd->bkqn", q, k).double() / math.sqrt(8)
    scores = scores.masked_fill(~chosen[:, :, own][..., block], -math.inf)
    expected = scores.softmax(dim=-1).nan_to_num(0) @ v.double()
    assert (results["dense"] - expected).abs().max() <= 1e-5
    is_empty = ~chosen.any(dim=-1)[:, :, own]
    assert results["dense"][is_empty].abs().sum() == 0


@pytest.mark.skipif(not flex_is_available(), reason="torch without FlexAttention")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_agrees():
    grid, num_past = (2, 16, 16), 2
    generator = torch.Generator().manual_seed(3)
    tokens = math.prod(grid)
    past = num_past * grid[1] * grid[2]
    sizes = (tokens, tokens + past, tokens + past)
    q, k, v = (torch.randn(1, 2, n, 8, generator=generator) for n in sizes)
    choice = SparsePattern((2, 8, 8), 11, 0.06)
    chosen = select_blocks(q, k, grid=grid, pattern=choice)
    assert 0 < chosen.float().mean() < 0.9
    blocks = [_in_blocks(x, grid, choice) for x in (q, k, v)]
    got, expected = _flex(*blocks, chosen, compiled=False), _dense(*blocks, chosen)
    assert (got - expected).abs().max() <= 1e-5
    chosen[:, :, 1] = False
    got = _flex(*blocks, chosen, compiled=False)
    assert got[:, :, 1].abs().sum() == 0
    assert (got - _dense(*blocks, chosen)).abs().max() <= 1e-5


def test_heads_of_other_patterns_keep_to_the_local_range():
    grid, num_past = (2, 4, 10), 2
    generator = torch.Generator().manual_seed(4)
    tokens, past = math.prod(grid), num_past * grid[1] * grid[2]
    sizes = (tokens, tokens + past, tokens + past)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator) for n in sizes)
    choice = pattern(ratio_for(9, grid), local_range=3)
    got = routed_attention(
        q, k, v, grid=grid, counts=(1, 1, 1), window=(3, 5, 5), num_past=num_past, sparse=choice
    )
    first = sparse_attention(q[:, :1], k[:, :1], v[:, :1], grid=grid, pattern=choice)
    assert torch.equal(got[:, :1], first)
    near = local_blocks(2, 5, 3, q.device)
    rows = torch.arange(4).repeat_interleave(10) // 2
    block = rows * 5 + torch.arange(10).repeat(4) // 2
    frame = torch.arange(2).repeat_interleave(40)
    mask = near[block][:, block].repeat(2, 2) & (frame[:, None] == frame[None, :])
    keys, values = (x[:, 1:2, past:] for x in (k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(
        q[:, 1:2], keys, values, attn_mask=mask
    )
    assert (got[:, 1:2] - expected).abs().max() <= 1e-5
    alone = local_frame_attention(q, k, v, grid=grid, pattern=choice)
    assert torch.allclose(alone[:, 1:2], got[:, 1:2], atol=1e-6)
    pairs = int(mask.sum())
    assert attention_flops(grid, (0, 1, 0), 8, (3, 5, 5), num_past, choice) == 4 * 8 * pairs
    expected = 4 * 8 * 2 * 9 * 4**2  # nine choices in each of two slices of 2x2 tokens
    assert attention_flops(grid, (1, 0, 0), 8, (3, 5, 5), num_past, choice) == expected


def test_noise_belongs_to_its_place():
    whole = keyed_noise(3, (5, 12, 14), at=(40, 0, 0), time_step=4)
    piece = keyed_noise(3, (2, 7, 6), at=(48, 5, 8), time_step=4)
    assert torch.equal(piece, whole[:, :, 2:4, 5:12, 8:14])
    assert not torch.equal(keyed_noise(3, (5, 12, 14), at=(40, 0, 0), time_step=4, seed=1), whole)
    many = keyed_noise(16, (4, 64, 64))
    assert abs(float(many.mean())) < 0.01
    assert abs(float(many.std()) - 1) < 0.01
    assert 4 < float(many.abs().max()) < 7
    flat = many[0].flatten(1)
    assert (flat @ flat.T / flat.shape[1] - torch.eye(16)).abs().max() < 0.05
    for dim in (2, 3, 4):  # neighbours know nothing of each other
        a, b = many.narrow(dim, 0, many.shape[dim] - 1), many.narrow(dim, 1, many.shape[dim] - 1)
        assert abs(float((a * b).mean())) < 0.01
    # The same for ever, and on every machine.
    assert keyed_noise(1, (1, 1, 3), at=(8, 1, 2)).flatten().tolist() == pytest.approx(
        NOISE_AT_8_1_2, abs=1e-4
    )


NOISE_AT_8_1_2 = [-0.3592, 0.1981, 1.6389]
