"""The engine: clips in memory, files, shots, tiles, memory plans and resuming."""

from .compare import compare_files, comparison_path
from .files import forecast_file, upscale_file
from .forecast import Forecast
from .journal import JournalError, journal_path
from .options import UpscaleOptions
from .partial import PartialReport, export_partial
from .plan import Plan
from .report import UpscaleReport
from .segment import Look
from .upscaler import VideoUpscaler

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
