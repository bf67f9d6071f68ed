"""Results as the rows of a table: `python -m tests.campaign.report FILE.json ...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def rows(paths: list[Path]) -> list[str]:
    """One Markdown row per kind of fault, from files of `--json`."""
    lines = ["| fault | tried | survived | failed | seed | seconds | note |", "|" + " --- |" * 7]
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        for fault in found["faults"]:
            cells = [fault[name] for name in ("fault", "tried", "survived", "failed")]
            cells += [found["seed"], fault["seconds"], fault["note"].replace("|", "/")]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


if __name__ == "__main__":
    sys.stdout.write("\n".join(rows([Path(name) for name in sys.argv[1:]])) + "\n")
