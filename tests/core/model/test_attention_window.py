"""Every window backend against a plain definition, on grids that are awkward to tile."""

import itertools
import math

import pytest
import torch

from oasis_core.model import attention_window as window_module
from oasis_core.model.attention_window import (
    dense_window_attention,
    halo_window_attention,
    window_mask,
)
from oasis_core.model.window_flex import (
    FLEX_BLOCK,
    flex_block_lists,
    flex_block_mask,
    flex_is_available,
    flex_window_attention,
)

GRIDS = [
    (3, 9, 13),
    (2, 5, 7),
    (1, 7, 9),
    (1, 1, 1),
    (4, 1, 11),
    (4, 11, 1),
    (2, 3, 3),
    (9, 4, 4),
    (5, 2, 17),
]
WINDOWS = [(3, 5, 5), (1, 1, 1), (5, 3, 7), (7, 15, 31)]


def random_heads(grid, *, num=3, size=16, dtype=torch.float32, batch=2, requires_grad=False):
    generator = torch.Generator().manual_seed(sum(grid))
    shape = (batch, num, math.prod(grid), size)
    return tuple(
        torch.randn(shape, generator=generator).to(dtype).requires_grad_(requires_grad)
        for _ in range(3)
    )


def relative_error(result, reference):
    return ((result - reference).abs().max() / reference.abs().max()).item()


def test_mask_is_the_box_clipped_at_the_borders():
    grid, window = (3, 4, 6), (3, 3, 5)
    mask = window_mask(grid, window)
    tokens = list(itertools.product(*map(range, grid)))
    for (i, query), (j, key) in itertools.product(enumerate(tokens), enumerate(tokens)):
        near = [abs(a - b) <= size // 2 for a, b, size in zip(query, key, window, strict=True)]
        assert mask[i, j].item() == all(near)


def test_mask_sizes_of_corner_edge_and_inside():
    counts = window_mask((5, 9, 9), (3, 5, 5)).sum(dim=1).view(5, 9, 9)
    assert counts[2, 4, 4] == 75
    assert counts[2, 0, 4] == 45
    assert counts[2, 0, 0] == 27
    assert counts[0, 4, 4] == 50
    assert counts[0, 0, 0] == 18


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_halo_equals_dense(grid, window):
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        q, k, v = random_heads(grid, dtype=dtype)
        reference = dense_window_attention(q, k, v, grid=grid, window=window)
        result = halo_window_attention(q, k, v, grid=grid, window=window)
        assert relative_error(result, reference) <= tolerance
        assert result.dtype == dtype


@pytest.mark.parametrize("tile", [(1, 1), (3, 5), (16, 16)])
@pytest.mark.parametrize("budget", [1, 20_000])
def test_halo_does_not_depend_on_tile_or_chunk(monkeypatch, tile, budget):
    monkeypatch.setattr(window_module, "CPU_TILE", tile)
    monkeypatch.setattr(window_module, "CPU_CHUNK_SCORES", budget)
    for grid in ((3, 9, 13), (4, 1, 11), (5, 6, 2)):
        q, k, v = random_heads(grid)
        reference = dense_window_attention(q, k, v, grid=grid, window=(3, 5, 5))
        result = halo_window_attention(q, k, v, grid=grid, window=(3, 5, 5))
        assert relative_error(result, reference) <= 1e-5


def test_halo_takes_low_precision_and_strided_heads():
    grid = (3, 9, 13)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in random_heads(grid)]
    reference = dense_window_attention(*strided, grid=grid, window=(3, 5, 5))
    assert relative_error(
        halo_window_attention(*strided, grid=grid, window=(3, 5, 5)), reference
    ) <= 1e-5  # fmt: skip
    for dtype in (torch.bfloat16, torch.float16):
        low = [x.to(dtype) for x in strided]
        result = halo_window_attention(*low, grid=grid, window=(3, 5, 5))
        assert result.dtype == dtype
        exact = dense_window_attention(*(x.float() for x in low), grid=grid, window=(3, 5, 5))
        assert relative_error(result.float(), exact) <= torch.finfo(dtype).eps


def test_halo_survives_large_scores():
    # A masked score must lose against any real one, and no exponential may overflow.
    grid = (2, 5, 9)
    q, k, v = random_heads(grid)
    reference = dense_window_attention(300 * q, 300 * k, v, grid=grid, window=(3, 3, 3))
    result = halo_window_attention(300 * q, 300 * k, v, grid=grid, window=(3, 3, 3))
    assert relative_error(result, reference) <= 1e-4


@pytest.mark.parametrize("grid", [(3, 9, 13), (1, 7, 9), (2, 3, 3), (4, 1, 11)])
def test_halo_gradients_equal_dense(grid):
    heads = random_heads(grid, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(heads[0].shape, generator=torch.Generator().manual_seed(1))
    results = []
    for attend in (dense_window_attention, halo_window_attention):
        output = attend(*heads, grid=grid, window=(3, 5, 5))
        results.append((output, *torch.autograd.grad((output * weight).sum(), heads)))
    for reference, result in zip(*results, strict=True):
        assert relative_error(result, reference) <= 1e-12


def test_mask_made_in_inference_mode_serves_training_later():
    grid = (3, 2, 19)
    heads = random_heads(grid, requires_grad=True)
    with torch.inference_mode():
        dense_window_attention(*heads, grid=grid, window=(3, 5, 5))
    dense_window_attention(*heads, grid=grid, window=(3, 5, 5)).sum().backward()
    assert heads[0].grad.isfinite().all()


needs_flex = pytest.mark.skipif(not flex_is_available(), reason="torch without FlexAttention")


@needs_flex
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("grid", [*GRIDS, (5, 9, 13), (3, 16, 24), (4, 8, 8), (2, 3, 300)])
def test_analytic_blocks_equal_the_exhaustive_ones(grid, window):
    from torch.nn.attention.flex_attention import create_block_mask

    block_mask = flex_block_mask(grid, window, torch.device("cpu"))
    length = math.prod(grid)
    exhaustive = create_block_mask(
        block_mask.mask_mod, 1, 1, length, length, device="cpu", BLOCK_SIZE=FLEX_BLOCK
    )
    for kind in ("kv", "full_kv", "q", "full_q"):
        counts = getattr(exhaustive, f"{kind}_num_blocks")[0, 0]
        indices = getattr(exhaustive, f"{kind}_indices")[0, 0]
        own_counts = getattr(block_mask, f"{kind}_num_blocks")[0, 0]
        own_indices = getattr(block_mask, f"{kind}_indices")[0, 0]
        assert own_counts.tolist() == counts.tolist()
        for row, own_row, count in zip(indices, own_indices, counts, strict=True):
            assert own_row[:count].tolist() == row[:count].tolist()


@pytest.mark.parametrize("block", [4, 7, 128])
@pytest.mark.parametrize("grid", [(3, 4, 5), (2, 9, 3), (5, 2, 16)])
def test_block_lists_of_any_block_size(grid, block):
    window = (3, 5, 5)
    length = math.prod(grid)
    num_blocks = -(-length // block)
    mask = torch.zeros(num_blocks * block, num_blocks * block, dtype=torch.bool)
    mask[:length, :length] = window_mask(grid, window)
    blocks = mask.view(num_blocks, block, num_blocks, block).sum(dim=(1, 3))
    touched, full = flex_block_lists(grid, window, block)
    assert torch.equal(touched, blocks > 0)
    assert torch.equal(full, blocks == block * block)


@needs_flex
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("grid", [(3, 9, 13), (1, 7, 9), (2, 3, 3)])
def test_flex_equals_dense(grid):
    q, k, v = random_heads(grid)
    reference = dense_window_attention(q, k, v, grid=grid, window=(3, 5, 5))
    result = flex_window_attention(q, k, v, grid=grid, window=(3, 5, 5), compiled=False)
    assert relative_error(result, reference) <= 1e-5


@needs_flex
@pytest.mark.slow
def test_compiled_flex_equals_dense_on_a_cpu():
    grid = (3, 9, 13)
    q, k, v = random_heads(grid, size=32)
    reference = dense_window_attention(q, k, v, grid=grid, window=(3, 5, 5))
    with torch.inference_mode():
        result = flex_window_attention(q, k, v, grid=grid, window=(3, 5, 5))
    assert relative_error(result, reference) <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [(3, 9, 13), (5, 17, 31)])
def test_backends_equal_dense_on_cuda(grid):
    heads = [x.cuda().requires_grad_() for x in random_heads(grid, size=64)]
    results = []
    for attend in (dense_window_attention, halo_window_attention, flex_window_attention):
        output = attend(*heads, grid=grid, window=(3, 5, 5))
        results.append((output, *torch.autograd.grad(output.square().sum(), heads)))
    for other in results[1:]:
        for reference, result in zip(results[0], other, strict=True):
            assert relative_error(result, reference) <= 1e-2
