"""The engine: clips in memory, files, shots, tiles, memory plans and resuming."""

from .files import upscale_file
from .journal import JournalError, journal_path
from .plan import Plan
from .report import UpscaleReport
from .segment import Look
from .upscaler import VideoUpscaler

__all__ = [
    "JournalError",
    "Look",
    "Plan",
    "UpscaleReport",
    "VideoUpscaler",
    "journal_path",
    "upscale_file",
]
