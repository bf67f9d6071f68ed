"""Speed of routed attention: every pattern and backend on the same random heads."""

from __future__ import annotations

from typing import Any

import torch

from ..model.attention import attention_flops, choose_backend, routed_attention
from ..model.attention_window import Grid, halo_pairs
from ..model.timing import fastest
from ..model.window_flex import FLEX_BLOCK, flex_block_lists

# A mask over more tokens would take longer to make than everything else.
MAX_DENSE_TOKENS = 8192


def bench_attention(
    *,
    grid: Grid = (9, 45, 80),
    num_heads: int = 1,
    head_size: int = 128,
    window: Grid = (3, 5, 5),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    num_repeats: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time global, intra-frame and window attention on one token grid.

    Args:
        grid: Tokens (t, h, w).
        num_heads: Heads attended together.
        head_size: Channels of one head.
        window: Box (t, h, w) in tokens.
        device: Where to measure.
        dtype: Of queries, keys and values.
        num_repeats: Runs after one that warms up; the fastest counts, since others only add noise.
        seed: Seed of the random heads.

    Returns:
        One entry per pattern and backend: `pattern`, `backend`, `seconds`, `seconds_per_frame`,
        `gflop` that the pattern needs, `gflop_done` by the backend (more: it works in blocks),
        `gflop_per_s` of these, `share_of_dense_rate` (of global attention's), `speedup` over
        global, and the settings.
    """
    device = torch.device(device)
    q, k, v = _random_heads(grid, num_heads, head_size, seed, device, dtype)
    settings = {
        "grid": list(grid),
        "num_heads": num_heads,
        "head_size": head_size,
        "window": list(window),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "num_threads": torch.get_num_threads(),
    }
    results: list[dict[str, Any]] = []
    for pattern, counts, backend in _cases(grid, num_heads, device):
        options = {"grid": grid, "counts": counts, "window": window, "backend": backend}
        with torch.inference_mode():
            seconds, _ = fastest(
                lambda options=options: routed_attention(q, k, v, **options), device, num_repeats
            )
        pairs = num_heads * _pairs_done(pattern, backend, grid, window, device)
        gflop, done = attention_flops(grid, counts, head_size, window) / 1e9, 4 * head_size * pairs
        row = {
            "pattern": pattern,
            "backend": backend if pattern == "window" else "sdpa",
            "seconds": seconds,
            "seconds_per_frame": seconds / grid[0],
            "gflop": gflop,
            "gflop_done": done / 1e9,
            "gflop_per_s": done / 1e9 / seconds,
        }
        results.append(_against(results[0] if results else row, row) | settings)
    return results


def _against(dense: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A row with what it says next to global attention's."""
    return row | {
        "share_of_dense_rate": row["gflop_per_s"] / dense["gflop_per_s"],
        "speedup": dense["seconds"] / row["seconds"],
    }


def _random_heads(
    grid: Grid,
    num_heads: int,
    head_size: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """Queries, keys and values `1 k n d`, laid out as a model's projections leave them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, grid[0] * grid[1] * grid[2], num_heads, head_size)
    return [
        torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2) for _ in range(3)
    ]


def _cases(grid: Grid, num_heads: int, device: torch.device) -> list[tuple[str, Grid, str]]:
    """Pattern, heads of each kind and backend; global first, for the others are compared to it."""
    num_tokens = grid[0] * grid[1] * grid[2]
    backends = ["halo", "dense"] if num_tokens <= MAX_DENSE_TOKENS else ["halo"]
    if choose_backend(num_tokens, device) == "flex":
        backends.append("flex")
    return [
        ("global", (num_heads, 0, 0), "auto"),
        ("intra", (0, num_heads, 0), "auto"),
        *(("window", (0, 0, num_heads), backend) for backend in backends),
    ]


def _pairs_done(pattern: str, backend: str, grid: Grid, window: Grid, device: torch.device) -> int:
    """Pairs of tokens that one head multiplies, those that a mask then hides included."""
    frame = grid[1] * grid[2]
    if pattern == "intra":
        return grid[0] * frame**2
    if backend == "halo":
        return halo_pairs(grid, window, device)
    if backend == "flex":
        return int(flex_block_lists(grid, window)[0].sum()) * FLEX_BLOCK**2
    return (grid[0] * frame) ** 2
