"""File endings, in one place."""

from __future__ import annotations

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
        ".wmv", ".flv", ".3gp", ".ogv", ".gif", ".mxf", ".vob",
    )
)  # fmt: skip
"""What is taken for a video when a folder is searched; a file named outright may end otherwise."""

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr"))
"""What is taken for a still picture."""
