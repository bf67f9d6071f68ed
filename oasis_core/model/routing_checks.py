"""Checks shared by the routing tables: their shape, and JSON that may come from a stranger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

# Far above any network; a bound so that a hostile file cannot ask for endless work.
MAX_LAYERS = 512
MAX_HEADS = 512
MAX_GRID = 1 << 20
MAX_NUMBER = 1e30
MAX_RULE_CHARS = 10_000


def table_by(shape: tuple[int, int]) -> str:
    """The shape of a table in words."""
    return f"{shape[0]} layers x {shape[1]} heads"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number of sensible size."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) < MAX_NUMBER  # false for NaN


def table_shape(name: str, rows: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Layers and heads of a table, after checking that it is one."""
    heads = {len(row) for row in rows}
    num_heads = max(heads, default=0)
    if len(heads) != 1 or num_heads < 1 or num_heads > MAX_HEADS or len(rows) > MAX_LAYERS:
        raise ValueError(
            f"{name} must be a table of 1 to {MAX_LAYERS} layers with the same number (1 to "
            f"{MAX_HEADS}) of heads each, got {len(rows)} layers of {sorted(heads)[:4]} heads"
        )
    return len(rows), num_heads


def table_rows(name: str, values: Any) -> list[list[Any]]:
    """A JSON list of lists, after checking that it is a table of layers x heads."""
    if not isinstance(values, list) or not all(isinstance(row, list) for row in values):
        raise ValueError(f"{name} must be a list of lists (layers x heads), got {values!r:.60}")
    table_shape(name, values)
    return values


def as_triple(values: Any) -> Any:
    """A JSON list as a tuple; whether it is three whole numbers is checked by the class."""
    return tuple(values) if isinstance(values, list) else values


def check_grid(name: str, grid: Any) -> None:
    """Refuse what is not three positive whole numbers."""
    is_triple = isinstance(grid, tuple) and len(grid) == 3
    if not is_triple or not all(type(size) is int and 1 <= size <= MAX_GRID for size in grid):
        raise ValueError(f"{name} must be three positive whole numbers (t, h, w), got {grid!r:.60}")


def check_window(window: Any) -> None:
    """Refuse a window that is not three odd whole numbers."""
    check_grid("window", window)
    if any(size % 2 == 0 for size in window):
        raise ValueError(f"window must be odd on every axis, got {window}")


def check_keys(name: str, values: Any, required: set[str], optional: set[str]) -> None:
    """Refuse what is not a JSON object with these keys."""
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be a JSON object, got {values!r:.60}")
    if missing := sorted(required - set(values)):
        raise ValueError(f"{name} must have the key(s) {', '.join(missing)}")
    if unknown := sorted(map(str, set(values) - required - optional)):
        raise ValueError(f"{name} has the unknown key(s) {', '.join(unknown):.60}")


def check_rule(rule: Any) -> None:
    """Refuse a rule that is not a small JSON object."""
    try:
        is_small = len(json.dumps(rule, allow_nan=False)) <= MAX_RULE_CHARS
    except (TypeError, ValueError, RecursionError):
        is_small = False
    if not isinstance(rule, dict) or not is_small:
        raise ValueError(
            f"routing rule must be a JSON object of at most {MAX_RULE_CHARS} characters with "
            f"finite numbers, got {rule!r:.60}"
        )
