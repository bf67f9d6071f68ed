"""How far a routing depends on the clips it was calibrated on.

Heads are routed from disjoint halves of the clips, and the two routings are compared; agreement
means something only next to what chance gives with the same numbers of heads per pattern.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from .head_distances import HeadDistances
from .routing import HeadPattern, HeadRouting

NUM_SPLITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingStability:
    """Agreement of routings from disjoint sets of clips; shares of heads from 0 to 1."""

    num_clips: int
    """Clips in all."""
    num_splits: int
    """Ways they were halved."""
    mean: float
    """Mean agreement of the two halves."""
    least: float
    """Agreement of the worst split."""
    by_chance: float
    """Agreement of routings that deal the same patterns to heads at random."""
    unstable_heads: int
    """Heads whose pattern differs in at least half of the splits."""

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return asdict(self)


def mean_distances(parts: Sequence[HeadDistances]) -> HeadDistances:
    """The mean of distances that were measured on one clip each.

    Raises:
        ValueError: There are none, or they were measured on different grids.
    """
    if not parts or len({(part.grid, part.window) for part in parts}) != 1:
        raise ValueError(
            f"distances must be of at least one clip and all of one grid and window, got "
            f"{sorted({part.grid for part in parts})}"
        )

    def mean(tables: list[tuple]) -> tuple:
        return tuple(
            tuple(
                tuple(sum(values) / len(values) for values in zip(*pairs, strict=True))
                for pairs in zip(*rows, strict=True)
            )
            for rows in zip(*tables, strict=True)
        )

    return replace(
        parts[0],
        raw=mean([part.raw for part in parts]),
        normalized=mean([part.normalized for part in parts]),
    )


def measure_stability(
    parts: Sequence[HeadDistances],
    route: Callable[[HeadDistances], HeadRouting],
    *,
    num_splits: int = NUM_SPLITS,
    seed: int = 0,
) -> RoutingStability:
    """Route from disjoint halves of the clips, again and again.

    Args:
        parts: Distances, one of each clip.
        route: The rule.
        num_splits: Ways to halve the clips.
        seed: Of the halving.

    Raises:
        ValueError: There are fewer than two clips.
    """
    if len(parts) < 2:
        raise ValueError(f"stability needs at least two clips, got {len(parts)}")
    generator, clips = random.Random(seed), list(parts)
    agreements: list[float] = []
    disagreements: dict[tuple[int, int], int] = {}
    for _ in range(num_splits):
        generator.shuffle(clips)
        half = len(clips) // 2
        first, second = (route(mean_distances(x)) for x in (clips[:half], clips[half:]))
        agreements.append(first.agreement(second))
        for layer, (row, twin) in enumerate(zip(first.patterns, second.patterns, strict=True)):
            for head in (i for i, (a, b) in enumerate(zip(row, twin, strict=True)) if a != b):
                disagreements[layer, head] = disagreements.get((layer, head), 0) + 1
    return RoutingStability(
        num_clips=len(clips),
        num_splits=num_splits,
        # fmean: rounding must not put the mean of equal values below the least.
        mean=fmean(agreements),
        least=min(agreements),
        by_chance=_chance(route(mean_distances(clips))),
        unstable_heads=sum(2 * count >= num_splits for count in disagreements.values()),
    )


def _chance(routing: HeadRouting) -> float:
    patterns = [pattern for row in routing.patterns for pattern in row]
    return sum((patterns.count(pattern) / len(patterns)) ** 2 for pattern in HeadPattern)
