"""The engine: clips in memory, files, shots, tiles, memory plans and resuming."""

from .compare import compare_files, comparison_path
from .files import upscale_file
from .journal import JournalError, journal_path
from .partial import PartialReport, export_partial
from .plan import Plan
from .report import UpscaleReport
from .segment import Look
from .upscaler import VideoUpscaler

__all__ = [
    "JournalError",
    "Look",
    "PartialReport",
    "Plan",
    "UpscaleReport",
    "VideoUpscaler",
    "compare_files",
    "comparison_path",
    "export_partial",
    "journal_path",
    "upscale_file",
]
