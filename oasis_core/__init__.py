"""OASIS: one-step diffusion video super-resolution with attention specialization routing.

Axis letters used in every shape of this package: b batch, c channels, t frames, h height, w width,
n tokens, d model width, k heads. Video tensors are ``b c t h w``, float, in [0, 1].

Source: OASIS, arXiv 2509.23980.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .upscale import UpscaleReport, VideoUpscaler

__all__ = ["__version__", "calibrate", "degrade", "load", "upscale_file"]


# Each function imports what it needs when it is called: importing this package costs nothing, which
# ComfyUI's start and the shell's `--help` rely on.
def load(
    model: str | os.PathLike[str] = "oasis-tiny",
    device: str = "auto",
    dtype: str = "auto",
    decoder: str | None = None,
    *,
    compiled: bool = False,
    int8: bool = False,
    decoder_tile: int | None = None,
    transformer: bool = True,
    detail: float | None = None,
) -> VideoUpscaler:
    """Load a model and make it ready.

    Args:
        model: Name of a bundled model or path of a model file of any family.
        device: "auto" (CUDA, then MPS, then the CPU) or a torch device.
        dtype: "auto" (what the device is decides), "float32", "bfloat16" or "float16".
        decoder: "wan" or "tiny", for a model with both; None for the file's own choice.
        compiled: Compile a latent model's blocks by torch.compile: minutes at the start of each
            shape, for long clips on a GPU; what cannot be compiled runs as it is.
        int8: Hold a latent model's matrices in 8 bits: half the memory, not faster.
        decoder_tile: Side in pixels of the tiles that Wan's decoder works in, which leaves memory
            for larger ones of the transformer; None: as large as those.
        transformer: False leaves it out, for models that have convolutions too: faster.
        detail: From 0, faithful to the source, to 1, vivid: sharp, with texture that may not have
            been there; None for the model's own choice.

    Raises:
        ValueError: The model, device, dtype, decoder, its tile or the detail cannot be used, the
            model is nothing without its transformer, or 8 bits change its result by more than they
            may.
    """
    from .checkpoint import resolve_model
    from .families.catalog import open_restorer
    from .families.files import LoadOptions
    from .upscale import VideoUpscaler

    options = LoadOptions(
        decoder=decoder,
        compiled=compiled,
        int8=int8,
        decoder_tile=decoder_tile,
        transformer=transformer,
        detail=detail,
    )
    restorer = open_restorer(resolve_model(model), options)
    return VideoUpscaler(restorer, device=device, dtype=dtype)


def upscale_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | VideoUpscaler = "oasis-tiny",
    **options: Any,
) -> UpscaleReport:
    """Upscale a video file; see `oasis_core.upscale.upscale_file` for the options."""
    from .upscale import upscale_file as run

    # A name is loaded once the files and options have been checked.
    upscaler = partial(load, model) if isinstance(model, (str, os.PathLike)) else model
    return run(source, destination, upscaler=upscaler, **options)


def degrade(*args: Any, **options: Any) -> Any:
    """Make a low-quality copy of a clip; see `oasis_core.degradation.degrade`."""
    from .degradation import degrade as run

    return run(*args, **options)


def calibrate(*args: Any, **options: Any) -> Any:
    """Measure a model's heads and route them; see `oasis_core.model.routing.calibrate`."""
    from .model.routing import calibrate as run

    return run(*args, **options)
