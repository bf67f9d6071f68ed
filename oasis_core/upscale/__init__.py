"""The engine: clips in memory, files, shots, tiles, memory plans and resuming."""

from .forecast import Forecast
from .journal import JournalError, journal_path
from .options import UpscaleOptions
from .partial import PartialReport, export_partial
from .plan import Plan
from .report import UpscaleReport
from .segment import Look
from .side_by_side import compare_files, comparison_path
from .upscaler import VideoUpscaler
from .upscaling_files import forecast_file, upscale_file

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
