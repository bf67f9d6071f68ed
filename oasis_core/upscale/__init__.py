"""The engine: clips in memory, files, shots, tiles, memory plans and resuming."""

from .segment import Look
from .upscaler import VideoUpscaler

__all__ = ["Look", "VideoUpscaler"]
