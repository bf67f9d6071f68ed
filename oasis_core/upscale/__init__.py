"""The engine: clips in memory, files, shots, tiles, memory plans and resuming.

Names are imported when they are first asked for: what names, files and arguments alone decide is
answered without loading torch, which takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..options import UpscaleOptions
    from .forecast import Forecast
    from .journal import JournalError, journal_path
    from .look import Look
    from .partial import PartialReport, export_partial
    from .plan import Plan
    from .report import UpscaleReport
    from .side_by_side import compare_files, comparison_path
    from .upscaler import VideoUpscaler
    from .upscaling_files import forecast_file, upscale_file

_HOMES = {
    "Forecast": ".forecast",
    "JournalError": ".journal",
    "Look": ".look",
    "PartialReport": ".partial",
    "Plan": ".plan",
    "UpscaleOptions": "..options",
    "UpscaleReport": ".report",
    "VideoUpscaler": ".upscaler",
    "compare_files": ".side_by_side",
    "comparison_path": ".side_by_side",
    "export_partial": ".partial",
    "forecast_file": ".upscaling_files",
    "journal_path": ".journal",
    "upscale_file": ".upscaling_files",
}
"""The module that each public name lives in, seen from here."""

__all__ = [
    "Forecast",
    "JournalError",
    "Look",
    "PartialReport",
    "Plan",
    "UpscaleOptions",
    "UpscaleReport",
    "VideoUpscaler",
    "compare_files",
    "comparison_path",
    "export_partial",
    "forecast_file",
    "journal_path",
    "upscale_file",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
