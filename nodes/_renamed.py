"""Nodes that had another id in an earlier release, so that old workflows still open and run."""

from __future__ import annotations

from typing import Any

from comfy_api import latest

RENAMED: list[dict[str, Any]] = []
"""Arguments of `io.NodeReplace`, one entry for each rename; none was needed yet."""


async def register_renamed(renamed: list[dict[str, Any]] = RENAMED) -> int:
    """Tell ComfyUI about renamed nodes.

    Returns:
        How many it was told; 0 before ComfyUI 0.14, which knows no replacements.
    """
    if not renamed or not hasattr(latest.io, "NodeReplace"):
        return 0
    replacements = latest.ComfyAPI().node_replacement
    for values in renamed:
        await replacements.register(latest.io.NodeReplace(**values))
    return len(renamed)
