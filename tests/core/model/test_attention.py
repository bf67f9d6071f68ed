"""Routed attention: each group of heads equals plain attention under its own mask."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F

from oasis_core.bench.attention import bench_attention
from oasis_core.model import attention
from oasis_core.model.attention import attention_flops, choose_backend, routed_attention
from oasis_core.model.attention_window import window_mask

WINDOW = (3, 5, 5)


@pytest.fixture(autouse=True)
def _forget_flex_failures():
    attention._flex_failures.cache_clear()
    yield
    attention._flex_failures.cache_clear()


def random_heads(grid, num_heads, dtype=torch.float32):
    generator = torch.Generator().manual_seed(num_heads)
    shape = (2, num_heads, math.prod(grid), 8)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for _ in range(3))


def plain_routed(q, k, v, grid, counts, window):
    """One boolean mask per head."""
    n, frame = math.prod(grid), torch.arange(math.prod(grid)) // (grid[1] * grid[2])
    masks = [torch.ones(n, n, dtype=torch.bool)] * counts[0]
    masks += [frame[:, None] == frame[None, :]] * counts[1]
    masks += [window_mask(grid, window)] * counts[2]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.stack(masks)[None])


@pytest.mark.parametrize("backend", ["auto", "dense", "halo"])
@pytest.mark.parametrize(
    "counts", [(1, 2, 3), (0, 0, 2), (2, 0, 0), (0, 2, 0), (0, 1, 1), (3, 0, 1)]
)
@pytest.mark.parametrize("grid", [(3, 5, 7), (1, 6, 4), (4, 1, 1)])
def test_every_head_follows_its_pattern(grid, counts, backend):
    q, k, v = random_heads(grid, sum(counts))
    result = routed_attention(
        q, k, v, grid=grid, counts=counts, window=WINDOW, backend=backend
    )  # fmt: skip
    reference = plain_routed(q, k, v, grid, counts, WINDOW)
    assert (result - reference).abs().max() <= 1e-5 * reference.abs().max()


def test_all_global_is_plain_attention():
    q, k, v = random_heads((3, 4, 5), 2)
    result = routed_attention(q, k, v, grid=(3, 4, 5), counts=(2, 0, 0), window=WINDOW)
    assert torch.equal(result, F.scaled_dot_product_attention(q, k, v))


def test_patterns_that_hold_every_key_are_global():
    q, k, v = random_heads((1, 4, 5), 3)
    options = {"grid": (1, 4, 5), "window": (1, 9, 9)}
    result = routed_attention(q, k, v, counts=(1, 1, 1), **options)
    reference = routed_attention(q, k, v, counts=(3, 0, 0), **options)
    assert (result - reference).abs().max() <= 1e-6


@pytest.mark.parametrize("backend", ["dense", "halo"])
def test_autocast_gives_one_dtype_and_gradients(backend):
    grid, counts = (3, 5, 7), (1, 1, 1)
    heads = [x.requires_grad_() for x in random_heads(grid, 3)]
    with torch.autocast("cpu", torch.bfloat16):
        # Norms and rotation leave q and k in float32 while v comes from a bfloat16 product.
        result = routed_attention(
            heads[0], heads[1], heads[2].bfloat16(),
            grid=grid, counts=counts, window=WINDOW, backend=backend,
        )  # fmt: skip
        result.float().square().sum().backward()
    assert result.dtype == torch.bfloat16
    reference = plain_routed(*heads, grid, counts, WINDOW)
    assert (result - reference).abs().max() <= 0.03
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in heads)


def test_inputs_of_different_dtype_are_brought_together_without_autocast():
    q, k, v = random_heads((2, 3, 4), 2)
    result = routed_attention(
        q.double(), k, v, grid=(2, 3, 4), counts=(0, 1, 1), window=WINDOW
    )  # fmt: skip
    assert result.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (3, 5, 8)}, "grid must hold 105 tokens"),
        ({"counts": (1, 1, 0)}, "counts must add up to 3 heads"),
        ({"counts": (4, -1, 0)}, "counts must add up to 3 heads"),
        ({"window": (3, 4, 5)}, "window must be odd"),
        ({"backend": "magic"}, "backend must be one of auto, dense, halo, flex"),
    ],
)
def test_refusals(change, message):
    options = {"grid": (3, 5, 7), "counts": (1, 1, 1), "window": WINDOW, **change}
    with pytest.raises(ValueError, match=message):
        routed_attention(*random_heads((3, 5, 7), 3), **options)


def test_auto_is_dense_for_small_grids_and_halo_on_a_cpu():
    assert choose_backend(512, torch.device("cpu")) == "dense"
    assert choose_backend(513, torch.device("cpu")) == "halo"
    assert choose_backend(513, torch.device("mps")) == "halo"
    assert choose_backend(1024, torch.device("cpu"), is_training=True) == "dense"
    assert choose_backend(1025, torch.device("cpu"), is_training=True) == "halo"


def test_failing_flex_falls_back_once_and_says_so(monkeypatch, caplog):
    tries = []

    def fail(*args, **options):
        tries.append(1)
        raise RuntimeError("no compiler\nand a long trace")

    monkeypatch.setattr(attention, "flex_window_attention", fail)
    q, k, v = random_heads((3, 5, 7), 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            result = routed_attention(
                q, k, v, grid=(3, 5, 7), counts=(0, 0, 2), window=WINDOW, backend="flex"
            )
    reference = plain_routed(q, k, v, (3, 5, 7), (0, 0, 2), WINDOW)
    assert (result - reference).abs().max() <= 1e-5
    assert len(tries) == 1
    assert [record.message.count("no compiler") for record in caplog.records] == [1]


def test_running_out_of_memory_is_not_a_reason_to_fall_back(monkeypatch):
    def fail(*args, **options):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(attention, "flex_window_attention", fail)
    q, k, v = random_heads((3, 5, 7), 1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        routed_attention(
            q, k, v, grid=(3, 5, 7), counts=(0, 0, 1), window=WINDOW, backend="flex"
        )  # fmt: skip
    assert not attention._flex_failures()


@pytest.mark.parametrize(
    ("grid", "gflop"),
    [
        ((9, 45, 80), (537.5, 59.7, 1.10)),
        ((9, 68, 120), (2761, 307, 2.54)),
        ((9, 135, 240), (43536, 4837, 10.2)),
    ],
)
def test_flops_of_the_large_preset(grid, gflop):
    for i, expected in enumerate(gflop):
        counts = tuple(int(i == j) for j in range(3))
        assert attention_flops(grid, counts, 128, WINDOW) / 1e9 == pytest.approx(expected, rel=5e-3)


def test_flops_count_the_mask():
    grid = (3, 4, 6)
    pairs = int(window_mask(grid, WINDOW).sum())
    assert attention_flops(grid, (0, 0, 2), 16, WINDOW) == 2 * pairs * 4 * 16
    assert attention_flops(grid, (1, 1, 0), 16, WINDOW) == (72**2 + 3 * 24**2) * 4 * 16


def test_bench_reports_every_pattern():
    results = bench_attention(grid=(2, 8, 8), num_heads=2, head_size=16, num_repeats=1)
    assert [(r["pattern"], r["backend"]) for r in results] == [
        ("global", "sdpa"),
        ("intra", "sdpa"),
        ("window", "halo"),
        ("window", "dense"),
    ]
    assert all(r["seconds"] > 0 and r["gflop_done"] >= r["gflop"] > 0 for r in results)
    done = {r["backend"]: r["gflop_done"] for r in results}
    assert done["dense"] == results[0]["gflop_done"] == 4 * 2 * 16 * 128**2 / 1e9


def test_pairs_done_are_those_of_the_blocks_in_use():
    from oasis_core.bench.attention import _pairs_done

    grid, cpu = (9, 45, 80), torch.device("cpu")
    # Counted independently: 29.0 GFLOP in blocks of 128x128, where the pattern itself has 1.1.
    assert 4 * 128 * _pairs_done("window", "flex", grid, WINDOW, cpu) / 1e9 == pytest.approx(
        29.0, rel=0.01
    )
    halo = _pairs_done("window", "halo", grid, WINDOW, cpu)
    assert attention_flops(grid, (0, 0, 1), 1, WINDOW) / 4 < halo < 10 * 32400 * 75
