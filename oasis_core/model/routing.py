"""Head routing: which attention pattern each head of each layer was assigned.

Source: OASIS (arXiv 2509.23980), attention specialization routing. The paper does not publish its
thresholds or head counts, so both a threshold and a quota rule are here and the one used is kept.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from .attention_window import Grid
from .head_distances import HeadDistances, measure_distances
from .routing_checks import (
    as_triple,
    check_keys,
    check_rule,
    check_window,
    is_number,
    table_by,
    table_rows,
    table_shape,
)

SCOPES = ("layer", "network")


class HeadPattern(enum.IntEnum):
    """Keys that a head's queries see, in the order in which the heads of a layer are grouped."""

    GLOBAL = 0
    """Every token."""
    INTRA = 1
    """The tokens of the same frame."""
    WINDOW = 2
    """A small box of tokens around the query, clipped at the borders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRouting:
    """The pattern of every head, in the checkpoint's own head order."""

    patterns: tuple[tuple[HeadPattern, ...], ...]
    """Layers x heads."""
    window: Grid
    """Box (t, h, w) of the window heads in tokens, centred, clipped at the borders."""
    distances: HeadDistances | None = None
    """What the assignment was made from, so that another rule needs no new measurement."""
    rule: dict[str, Any] = field(default_factory=dict)
    """The rule that was applied, as JSON values."""

    def __post_init__(self) -> None:
        shape = table_shape("patterns", self.patterns)
        check_window(self.window)
        check_rule(self.rule)
        if self.distances is not None and table_shape("distances", self.distances.raw) != shape:
            raise ValueError(
                f"routing distances must cover the same layers and heads as the patterns, got "
                f"{table_by(table_shape('distances', self.distances.raw))} and {table_by(shape)}"
            )

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return len(self.patterns)

    @property
    def num_heads(self) -> int:
        """Heads of each block."""
        return len(self.patterns[0])

    @classmethod
    def all_global(cls, num_layers: int, num_heads: int, window: Grid = (3, 5, 5)) -> HeadRouting:
        """A routing that changes nothing: every head sees every token.

        Args:
            num_layers: Transformer blocks.
            num_heads: Heads of each block.
            window: Box (t, h, w) in tokens that window heads would have.

        Returns:
            The routing.
        """
        row = (HeadPattern.GLOBAL,) * num_heads
        return cls(patterns=(row,) * num_layers, window=window, rule={"name": "all-global"})

    @classmethod
    def from_thresholds(
        cls, distances: HeadDistances, *, max_intra: float, max_window: float
    ) -> HeadRouting:
        """The cheapest pattern whose normalised distance is below its threshold.

        Args:
            distances: What the heads lose under each pattern.
            max_intra: Threshold of the intra-frame pattern, 0 (never) to above 1 (always).
            max_window: Threshold of the window, tested first.

        Returns:
            The routing; the numbers of heads per pattern vary from layer to layer.
        """

        def choose(intra: float, window: float) -> HeadPattern:
            if window < max_window:
                return HeadPattern.WINDOW
            return HeadPattern.INTRA if intra < max_intra else HeadPattern.GLOBAL

        if not (is_number(max_intra) and is_number(max_window)):
            raise ValueError(
                f"thresholds must be finite numbers, got {max_intra!r} and {max_window!r}"
            )
        patterns = tuple(tuple(choose(*pair) for pair in row) for row in distances.normalized)
        rule = {"name": "thresholds", "max_intra": max_intra, "max_window": max_window}
        return cls(patterns=patterns, window=distances.window, distances=distances, rule=rule)

    @classmethod
    def from_quotas(
        cls, distances: HeadDistances, *, counts: tuple[int, int, int], scope: str = "layer"
    ) -> HeadRouting:
        """A fixed number of heads per pattern, so a fixed cost.

        The heads that lose least under the window get it, then those of the rest that lose least
        inside their frame; ties go to the earlier head.

        Args:
            distances: What the heads lose under each pattern.
            counts: Heads that are global, intra-frame and window.
            scope: Whether `counts` holds for each "layer" or for the whole "network".

        Returns:
            The routing.

        Raises:
            ValueError: The counts do not add up to the heads in the scope.
        """
        num_layers, num_heads = len(distances.raw), len(distances.raw[0])
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
        total = num_heads if scope == "layer" else num_layers * num_heads
        if len(counts) != 3 or min(counts) < 0 or sum(counts) != total:
            raise ValueError(
                f"counts (global, intra, window) must add up to the {total} heads of a {scope}, "
                f"got {tuple(counts)}"
            )
        heads = [(layer, head) for layer in range(num_layers) for head in range(num_heads)]
        groups = [heads]
        if scope == "layer":
            groups = [heads[i : i + num_heads] for i in range(0, len(heads), num_heads)]
        chosen = dict.fromkeys(heads, HeadPattern.GLOBAL)
        for group in groups:
            left = sorted(group, key=lambda at: distances.normalized[at[0]][at[1]][1])
            chosen.update(dict.fromkeys(left[: counts[2]], HeadPattern.WINDOW))
            left = sorted(sorted(left[counts[2] :]), key=lambda at: _intra(distances, at))
            chosen.update(dict.fromkeys(left[: counts[1]], HeadPattern.INTRA))
        patterns = tuple(
            tuple(chosen[layer, head] for head in range(num_heads)) for layer in range(num_layers)
        )
        rule = {"name": "quotas", "scope": scope, "counts": list(counts)}
        return cls(patterns=patterns, window=distances.window, distances=distances, rule=rule)

    def counts(self, layer: int) -> tuple[int, int, int]:
        """Heads of a layer that are global, intra-frame and window."""
        row = self.patterns[layer]
        return tuple(row.count(pattern) for pattern in HeadPattern)

    def permutation(self, layer: int) -> tuple[int, ...]:
        """The order in which a layer's heads are laid out so that each pattern is contiguous.

        Args:
            layer: Index of the block.

        Returns:
            For each new position, the head of the checkpoint that goes there; stable.
        """
        row = self.patterns[layer]
        return tuple(sorted(range(len(row)), key=lambda head: row[head]))

    def permuted(self, orders: Sequence[Sequence[int]]) -> HeadRouting:
        """The same routing for weights whose heads were reordered.

        Args:
            orders: Per layer, the head that now comes first, second, ...

        Returns:
            The routing in the new head order.
        """

        def reorder(table: tuple) -> tuple:
            pairs = zip(table, orders, strict=True)
            return tuple(tuple(row[head] for head in order) for row, order in pairs)

        distances = self.distances
        if distances is not None:
            raw, normalized = reorder(distances.raw), reorder(distances.normalized)
            distances = replace(distances, raw=raw, normalized=normalized)
        return replace(self, patterns=reorder(self.patterns), distances=distances)

    def check_fits(self, num_layers: int, num_heads: int) -> None:
        """Refuse a routing made for another network.

        Args:
            num_layers: Blocks of the network.
            num_heads: Heads of each block.

        Raises:
            ValueError: The routing has other numbers of layers or heads.
        """
        got = (self.num_layers, self.num_heads)
        if got != (num_layers, num_heads):
            raise ValueError(
                f"routing must have {table_by((num_layers, num_heads))} like the model, got "
                f"{table_by(got)}; calibrate this model"
            )

    def agreement(self, other: HeadRouting) -> float:
        """The share of heads, 0 to 1, that another routing of the same network labels alike."""
        other.check_fits(self.num_layers, self.num_heads)
        pairs = zip(self.patterns, other.patterns, strict=True)
        same = sum(a == b for row, twin in pairs for a, b in zip(row, twin, strict=True))
        return same / (self.num_layers * self.num_heads)

    def to_json(self) -> dict[str, Any]:
        """The routing as plain JSON values."""
        return {
            "patterns": [[pattern.name.lower() for pattern in row] for row in self.patterns],
            "window": list(self.window),
            "distances": None if self.distances is None else self.distances.to_json(),
            "rule": self.rule,
        }

    @classmethod
    def from_json(
        cls, values: Any, *, num_layers: int | None = None, num_heads: int | None = None
    ) -> HeadRouting:
        """Read `to_json`'s values, strictly.

        Args:
            values: The parsed JSON.
            num_layers: Blocks of the network it is for; None to accept any.
            num_heads: Heads of each block; None to accept any.

        Returns:
            The routing.

        Raises:
            ValueError: A key is missing or unknown, a value is out of range, or the routing is
                for another number of layers or heads.
        """
        check_keys("routing", values, {"patterns", "window"}, {"distances", "rule"})
        names = {pattern.name.lower(): pattern for pattern in HeadPattern}
        rows = table_rows("routing patterns", values["patterns"])
        for name in (name for row in rows for name in row):
            if not isinstance(name, str) or name not in names:
                raise ValueError(
                    f"a head's pattern must be one of {', '.join(names)}, got {name!r:.60}"
                )
        rule, distances = values.get("rule", {}), values.get("distances")
        routing = cls(
            patterns=tuple(tuple(names[name] for name in row) for row in rows),
            window=as_triple(values["window"]),
            distances=None if distances is None else HeadDistances.from_json(distances),
            rule=rule,
        )
        if num_layers is not None and num_heads is not None:
            routing.check_fits(num_layers, num_heads)
        return routing


def calibrate(
    model: nn.Module,
    clips: Iterable[torch.Tensor],
    *,
    seed: int = 0,
    num_queries: int = 256,
    quotas: Mapping[str, int] | None = None,
    scope: str = "network",
    thresholds: Mapping[str, float] | None = None,
    window: Grid | None = None,
    head_order: Sequence[Sequence[int]] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> HeadRouting:
    """Measure every head of a model on some clips and assign its pattern.

    Args:
        model: An `OasisModel`, meant to be routed all-global (see `measure_distances`).
        clips: Videos `b 3 t h w` in [0, 1], all of one size, a multiple of the token stride.
        seed: Seed of the sampled queries; the same seed and clips give the same routing.
        num_queries: Queries sampled per layer and clip.
        quotas: Heads to make "window" and "intra"; the others stay global. With neither quotas
            nor thresholds a third of the heads gets each pattern.
        scope: Whether the quotas count per "layer" or over the whole "network".
        thresholds: Largest normalised distance for "window" and "intra", instead of quotas.
        window: Box (t, h, w) in tokens; None for the model's own.
        head_order: Per layer, the stored head that stands first, second, ... in the model; None
            asks the model. The routing is in the stored order.
        on_progress: Called with the number of clips done.

    Returns:
        The routing with its distances and rule.

    Raises:
        ValueError: Both rules are given, one does not fit the model, or the clips are unusable.
    """
    if quotas is not None and thresholds is not None:
        raise ValueError("calibrate takes quotas or thresholds, got both; leave one out")
    rule = (quotas if thresholds is None else thresholds) or {}
    if unknown := sorted(set(rule) - {"window", "intra"}):
        raise ValueError(f"a rule names the patterns window and intra, got {', '.join(unknown)}")
    distances = measure_distances(
        model,
        clips,
        window=tuple(window or model.config.window_size),
        seed=seed,
        num_queries=num_queries,
        head_order=head_order,
        on_progress=on_progress,
    )
    if thresholds is not None:
        routing = HeadRouting.from_thresholds(
            distances,
            max_intra=thresholds.get("intra", 0.0),
            max_window=thresholds.get("window", 0.0),
        )
    else:
        routing = _by_quotas(distances, quotas, scope)
    return replace(routing, rule={**routing.rule, "num_queries": num_queries, "seed": seed})


def _by_quotas(
    distances: HeadDistances, quotas: Mapping[str, int] | None, scope: str
) -> HeadRouting:
    total = len(distances.raw[0]) * (1 if scope == "layer" else len(distances.raw))
    third = total // 3
    local = {"window": third, "intra": third} if quotas is None else quotas
    num_window, num_intra = local.get("window", 0), local.get("intra", 0)
    counts = (total - num_window - num_intra, num_intra, num_window)
    return HeadRouting.from_quotas(distances, counts=counts, scope=scope)


def _intra(distances: HeadDistances, at: tuple[int, int]) -> float:
    return distances.normalized[at[0]][at[1]][0]
