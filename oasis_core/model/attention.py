"""Routed attention: each group of heads pays only for the pattern it was assigned.

Source: OASIS (arXiv 2509.23980), attention specialization routing.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange

from .attention_window import Grid, dense_window_attention, halo_window_attention
from .sparse_attention import SparsePattern, local_frame_attention, sparse_attention, sparse_flops
from .window_choice import fastest_backend
from .window_flex import flex_is_available, flex_window_attention

BACKENDS = ("auto", "dense", "halo", "flex")

# Up to here one masked dense call was measured to cost less than cutting the grid into tiles; the
# backward pass of the tiles costs more, so training changes over later.
MAX_DENSE_TOKENS = 512
MAX_DENSE_TOKENS_TRAINING = 1024

logger = logging.getLogger(__name__)


def routed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    grid: Grid,
    counts: tuple[int, int, int],
    window: Grid,
    backend: str = "auto",
    num_past: int = 0,
    sparse: SparsePattern | None = None,
) -> torch.Tensor:
    """Attend with each head's own pattern; heads lie in the order global, intra-frame, window.

    Keys and values may begin with frames before those of the queries. Global heads see all of them,
    intra-frame heads none, window heads those that their box reaches.

    Args:
        q: Queries `b k n d`, normalised and rotated, n = t h w in raster order.
        k: Keys `b k m d`: those of `num_past` frames before the queries, then like `q`.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        counts: Heads that are global, intra-frame and window, in this order; their sum is k.
        window: Box (t, h, w) in tokens, odd on every axis, clipped at the borders.
        backend: How the window heads are computed, all to the same result: "dense" (masked, the
            reference), "halo" (any device), "flex" (FlexAttention) or "auto".
        num_past: Frames of keys that lie before the queries' own.
        sparse: How global heads choose blocks of keys; None: they see all. Intra-frame heads then
            keep to the same local range.

    Returns:
        `b k n d`; under autocast in its dtype.

    Raises:
        ValueError: Grid, counts, window or backend do not fit the tensors.
    """
    options = {"grid": grid, "counts": counts, "window": window, "backend": backend}
    parts = head_groups(q, k, v, num_past=num_past, sparse=sparse, **options)
    outputs = [part() for part in parts]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def head_groups(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    grid: Grid,
    counts: tuple[int, int, int],
    window: Grid,
    backend: str = "auto",
    num_past: int = 0,
    sparse: SparsePattern | None = None,
) -> list[Callable[[], torch.Tensor]]:
    """What `routed_attention` has to do, group by group; their results joined are its result.

    Args:
        q: As `routed_attention`, as are the arguments below.
        k: Keys.
        v: Values.
        grid: Tokens (t, h, w).
        counts: Heads that are global, intra-frame and window.
        window: Box (t, h, w) in tokens.
        backend: Of the window heads.
        num_past: Frames of keys before the queries' own.
        sparse: How global heads choose.

    Returns:
        One function for each pattern that has heads, in the order of `counts`.

    Raises:
        ValueError: Grid, counts, window or backend do not fit the tensors.
    """
    _check(q, k, grid, counts, window, backend, num_past)
    groups = list(zip(*(x.split(counts, dim=1) for x in _autocast(q, k, v)), strict=True))
    see_all: Callable[..., torch.Tensor] = F.scaled_dot_product_attention
    see_frame: Callable[..., torch.Tensor] = functools.partial(intra_attention, grid=grid)
    if sparse is not None:
        see_all = functools.partial(sparse_attention, grid=grid, pattern=sparse, backend=backend)
        see_frame = functools.partial(local_frame_attention, grid=grid, pattern=sparse)
    attend = (
        see_all,
        see_frame,
        functools.partial(
            window_attention, grid=grid, window=window, backend=backend, num_past=num_past
        ),
    )
    return [
        functools.partial(function, *group)
        for function, group, count in zip(attend, groups, counts, strict=True)
        if count
    ]


def intra_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, grid: Grid
) -> torch.Tensor:
    """Attend inside each frame: the frames become a batch, so no mask is needed.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys `b k m d`, those of earlier frames in front; they are not looked at.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.

    Returns:
        `b k n d`.
    """
    k, v = (x[:, :, -q.shape[2] :] for x in (k, v))
    q, k, v = (rearrange(x, "b k (t n) d -> (b t) k n d", t=grid[0]) for x in (q, k, v))
    output = F.scaled_dot_product_attention(q, k, v)
    return rearrange(output, "(b t) k n d -> b k (t n) d", t=grid[0])


def window_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    grid: Grid,
    window: Grid,
    backend: str = "auto",
    num_past: int = 0,
) -> torch.Tensor:
    """Attend inside the window by the backend that suits the device and the grid.

    Args:
        q: Queries `b k n d`, n = t h w in raster order.
        k: Keys `b k m d`: those of `num_past` frames before the queries, then like `q`.
        v: Values, like `k`.
        grid: Tokens (t, h, w) of the queries.
        window: Box (t, h, w) in tokens, odd on every axis.
        backend: As in `routed_attention`.
        num_past: Frames of keys that lie before the queries' own.

    Returns:
        `b k n d`.
    """
    near = min(num_past, window[0] // 2)
    # What no box reaches is left out, so that no backend has to know of it.
    unreached = (num_past - near) * grid[1] * grid[2]
    k, v, num_past = k[:, :, unreached:], v[:, :, unreached:], near
    options = {"grid": grid, "window": window, "num_past": num_past}
    if backend == "auto":
        is_training = torch.is_grad_enabled() and q.requires_grad
        backend = choose_backend(q.shape[2], q.device, is_training=is_training)
        if backend == "flex" and not is_training:
            backend = _measured_backend(q, k, v, **options)
    if backend == "dense":
        return dense_window_attention(q, k, v, **options)
    if backend == "flex" and not _flex_failures():
        try:
            return flex_window_attention(q, k, v, **options)
        except torch.cuda.OutOfMemoryError:
            raise  # not flex's fault: the caller tries a smaller tile
        except Exception as error:
            # A compiler can fail in any way; halo gives the same result on every device.
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
            _flex_failures().append(reason)
            logger.warning("FlexAttention failed, using halo attention from now on (%s)", reason)
    return halo_window_attention(q, k, v, **options)


def _measured_backend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Grid | int
) -> str:
    """The faster of halo and flex for this shape on this GPU."""
    key_frames = (*options["grid"], options["num_past"])
    sizes = (q.shape[0], q.shape[1], q.shape[3], q.dtype, q.device)
    shape = (key_frames, tuple(options["window"]), *sizes)
    candidates = {
        "halo": lambda: halo_window_attention(q, k, v, **options),
        "flex": lambda: flex_window_attention(q, k, v, **options),
    }
    return fastest_backend(shape, candidates, q.device)


def choose_backend(num_tokens: int, device: torch.device, *, is_training: bool = False) -> str:
    """The window backend that "auto" stands for.

    Args:
        num_tokens: Tokens n of the grid.
        device: Where the tensors are.
        is_training: Whether a backward pass will follow.

    Returns:
        "dense", "flex" or "halo".
    """
    if num_tokens <= (MAX_DENSE_TOKENS_TRAINING if is_training else MAX_DENSE_TOKENS):
        return "dense"
    if device.type == "cuda" and flex_is_available() and not _flex_failures():
        return "flex"
    return "halo"


def attention_flops(
    grid: Grid,
    counts: tuple[int, int, int],
    head_size: int,
    window: Grid,
    num_past: int = 0,
    sparse: SparsePattern | None = None,
) -> int:
    """Floating-point operations of one layer's attention, from the true clipped mask sizes.

    Args:
        grid: Tokens (t, h, w) of the queries.
        counts: Heads that are global, intra-frame and window.
        head_size: Channels of one head.
        window: Box (t, h, w) in tokens.
        num_past: Frames of keys before the queries' own.
        sparse: How global heads choose; None: they see all.

    Returns:
        Two operations per multiply-add of both products; softmax and projections not included.
    """
    t, h, w = grid
    pairs_window = 1
    for size, extent, past in zip(grid, window, (num_past, 0, 0), strict=True):
        radius, last = extent // 2, past + size - 1
        at = range(past, past + size)
        pairs_window *= sum(min(last, i + radius) - max(0, i - radius) + 1 for i in at)
    if sparse is not None:
        reach = sparse.num_near(grid)
        pairs_frame = t * reach * (sparse.block[1] * sparse.block[2]) ** 2
        of_all = sparse_flops(grid, counts[0], head_size, sparse, num_past)
        local = counts[1] * pairs_frame + counts[2] * pairs_window
        return of_all + 4 * head_size * local
    pairs = (t * (num_past + t) * (h * w) ** 2, t * (h * w) ** 2, pairs_window)
    return 4 * head_size * sum(n * pair for n, pair in zip(counts, pairs, strict=True))


@functools.lru_cache(maxsize=1)
def _flex_failures() -> list[str]:
    """Why flex failed in this process; kept so that it is tried, and reported, only once."""
    return []


def _autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Bring q, k and v to one dtype: autocast's, where it is on."""
    device_type = tensors[0].device.type
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    else:
        dtype = tensors[-1].dtype
    return tuple(x.to(dtype) for x in tensors)


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    grid: Grid,
    counts: Grid,
    window: Grid,
    backend: str,
    num_past: int,
) -> None:
    if grid[0] * grid[1] * grid[2] != q.shape[2]:
        raise ValueError(f"grid must hold {q.shape[2]} tokens (t h w = n), got {tuple(grid)}")
    if num_past < 0 or (num_past + grid[0]) * grid[1] * grid[2] != k.shape[2]:
        raise ValueError(
            f"the keys must be those of num_past + {grid[0]} frames of {grid[1]}x{grid[2]} tokens, "
            f"got {k.shape[2]} and num_past {num_past}"
        )
    if sum(counts) != q.shape[1] or min(counts) < 0:
        raise ValueError(f"counts must add up to {q.shape[1]} heads, got {tuple(counts)}")
    if any(size < 1 or size % 2 == 0 for size in window):
        raise ValueError(f"window must be odd on every axis, got {tuple(window)}")
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
