"""The means of an evaluation as Markdown tables, ready for a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .benchmark import ClipResult, method_means
from .suite import METRICS


def markdown_tables(results: Sequence[ClipResult]) -> str:
    """One table per degradation: methods by metrics, mean of the clips."""
    parts = []
    for degradation, methods in method_means(results).items():
        count = sum(result.degradation == degradation for result in results)
        rows = {method: values for method, values in methods.items() if values}
        names = [name for name in METRICS if any(name in values for values in rows.values())]
        if not names:
            continue
        titles = [METRICS[name].title for name in names]
        lines = [f"| `{degradation}`, {_counted(count)} | {' | '.join(titles)} |"]
        lines.append("| --- " * (1 + len(names)) + "|")
        for method, values in rows.items():
            cells = [
                f"{values[name]:.{METRICS[name].digits}f}" if name in values else "-"
                for name in names
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _counted(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"


def write_markdown(folder: Path, results: Sequence[ClipResult]) -> Path:
    """Write results.md into a folder; returns its path."""
    path = folder / "results.md"
    path.write_text(markdown_tables(results), encoding="utf-8")
    return path
