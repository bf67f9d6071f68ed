"""Packages that only some features need: asked for by the name of their extra, before the work."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

PACKAGE = "oasis-video-upscaler"
MODULES = {
    "image-models": ("spandrel", "torchvision"),
    "url": ("fsspec", "aiohttp"),
    "s3": ("s3fs",),
    "plot": ("matplotlib", "PIL"),
    "evaluate": ("lpips", "piq", "torchvision", "pycvvdp", "ncnn"),
    "train": ("accelerate", "tensorboard", "PIL", "webdataset", "fsspec", "aiohttp"),
    "cluster": ("ray", "fsspec", "aiohttp"),
}
"""What each extra of pyproject.toml brings, by the names that are imported."""


class MissingExtraError(ValueError):
    """A feature was asked for whose package is not installed; one sentence with the remedy."""


def install_hint(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{PACKAGE}[{extra}]'"


def need(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Its name as imported, such as "ray".
        extra: The extra of pyproject.toml that brings it.
        purpose: What needs it, such as "--engine ray"; the sentence begins with it.

    Raises:
        MissingExtraError: It is not installed, or one of its own packages is not.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {error.name or module}, which is not installed: "
            f"{install_hint(extra)}"
        ) from error


def missing_modules(extra: str) -> tuple[str, ...]:
    """What an extra would bring and is not installed; nothing is imported.

    Args:
        extra: One of `MODULES`.
    """
    return tuple(name for name in MODULES[extra] if not _is_installed(name))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # it broke while being looked for, or was hidden
        return False
