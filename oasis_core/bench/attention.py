"""Speed of routed attention: every pattern and backend on the same random heads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ..model.attention import attention_flops, choose_backend, routed_attention
from ..model.window import Grid

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
        `gflop`, `gflop_per_s`, `speedup` over global, and the settings.
    """
    device = torch.device(device)
    num_tokens = grid[0] * grid[1] * grid[2]
    generator = torch.Generator().manual_seed(seed)
    shape = (1, num_tokens, num_heads, head_size)
    # Laid out as a model's projections leave them.
    q, k, v = (
        torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2) for _ in range(3)
    )
    cases = [("global", (num_heads, 0, 0), "auto"), ("intra", (0, num_heads, 0), "auto")]
    backends = ["halo", "dense"] if num_tokens <= MAX_DENSE_TOKENS else ["halo"]
    if choose_backend(num_tokens, device) == "flex":
        backends.append("flex")
    cases += [("window", (0, 0, num_heads), backend) for backend in backends]
    results: list[dict[str, Any]] = []
    for pattern, counts, backend in cases:

        def attend(counts: Grid = counts, backend: str = backend) -> torch.Tensor:
            return routed_attention(
                q, k, v, grid=grid, counts=counts, window=window, backend=backend
            )

        seconds = _fastest(attend, device, num_repeats)
        gflop = attention_flops(grid, counts, head_size, window) / 1e9
        results.append(
            {
                "pattern": pattern,
                "backend": backend if pattern == "window" else "sdpa",
                "seconds": seconds,
                "seconds_per_frame": seconds / grid[0],
                "gflop": gflop,
                "gflop_per_s": gflop / seconds,
                "speedup": results[0]["seconds"] / seconds if results else 1.0,
                "grid": list(grid),
                "num_heads": num_heads,
                "head_size": head_size,
                "window": list(window),
                "device": str(device),
                "dtype": str(dtype).removeprefix("torch."),
                "num_threads": torch.get_num_threads(),
            }
        )
    return results


def _fastest(run: Callable[[], torch.Tensor], device: torch.device, num_repeats: int) -> float:
    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    times = []
    with torch.inference_mode():
        for _ in range(num_repeats + 1):
            finish()
            start_s = time.perf_counter()
            run()
            finish()
            times.append(time.perf_counter() - start_s)
    return min(times[1:])
