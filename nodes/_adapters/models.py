"""Models that ComfyUI may move between memories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import torch

from .folders import model_path, public_files
from .reporting import Progress, check, progress

if TYPE_CHECKING:
    from ...oasis_core.families.restorer import HasRouting, Restorer
    from ...oasis_core.model.routing import HeadRouting
    from ...oasis_core.upscale import VideoUpscaler

WANTED_PIXELS = 1024 * 1024
WANTED_FRAMES = 24
WANTED_LATENT_FRAMES, WANTED_LATENT_SIDE_PX = 25, 512
"""Working memory asked of ComfyUI is for a tile of this size: larger ones gain little."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LoadedModel:
    """A model that ComfyUI may move between memories and unload at any time between two uses."""

    patcher: comfy.model_patcher.ModelPatcher
    """Holds the network; ComfyUI finds it under this name. Models made of one another share it."""
    restorer: Restorer
    """The model as the engine sees it; it prepares the network before every run."""
    dtype: str
    """Arithmetic asked for."""

    def __repr__(self) -> str:
        # ComfyUI prints inputs into error reports.
        return f"OASIS model {self.name} {self.identity[:12]}"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.restorer.traits.name

    @property
    def identity(self) -> str:
        """Differs for whatever gives other pixels."""
        return self.restorer.identity

    @property
    def routing(self) -> HasRouting:
        """The model as one whose heads can be routed.

        Raises:
            ValueError: It has no heads.
        """
        from ...oasis_core.families.restorer import routing_of

        return routing_of(self.restorer)

    def routed(self, routing: HeadRouting | None) -> LoadedModel:
        """The same model with another routing, or with its own for None.

        Raises:
            ValueError: The routing is of another network, or the model has no heads.
        """
        return replace(self, restorer=self.routing.routed(routing))

    def all_global(self) -> LoadedModel:
        """The same model with heads that all see everything."""
        from ...oasis_core.model.routing import HeadRouting

        own = self.routing.rerouter.own
        return self.routed(HeadRouting.all_global(own.num_layers, own.num_heads, own.window))

    def without_transformer(self) -> LoadedModel:
        """The same model, its convolutions alone.

        Raises:
            ValueError: It has none that could do without.
        """
        from ...oasis_core.families.restorer import without_transformer

        return replace(self, restorer=without_transformer(self.restorer))


def load_model(path: Path, dtype: str, **options: Any) -> tuple[LoadedModel, dict[str, Any]]:
    """Read a model into main memory.

    Args:
        path: A model file of any family.
        dtype: "auto" or one of the engine's.
        **options: Of `LoadOptions`.

    Returns:
        The model and facts about it.

    Raises:
        ValueError: The file, the dtype or an option cannot be used.
    """
    from ...oasis_core.families.catalog import open_restorer
    from ...oasis_core.families.files import LoadOptions

    _check_dtype(dtype)
    # ComfyUI runs nodes in inference mode and moves models outside of it; tensors of inference
    # mode could not be moved there.
    with torch.inference_mode(False):
        restorer = open_restorer(path, LoadOptions(**options))
    facts = {
        "model": restorer.traits.name,
        "file": path.name,
        "sha256": restorer.identity,
        "detail": restorer.facts.get("detail", 0.0),
        "parameters": sum(weight.numel() for weight in restorer.network.parameters()),
        "licence": restorer.facts.get("licence", "not stated"),
        "source": restorer.facts.get("source", "not stated"),
    }
    return managed(restorer, dtype), facts


def make_model(name: str) -> Path:
    """The file of a model, made of the public files beside it if it is not there yet.

    Args:
        name: From `model_names`.

    Raises:
        ValueError: A public file is missing or another one, or disk or memory do not suffice.
    """
    from ...oasis_core.convert.folders import convert_set
    from ...oasis_core.upscale.memory import free_host_bytes

    path = model_path(name)
    files = None if path.exists() else public_files(name)
    if files is None:
        return path
    with progress("megabytes") as report, torch.inference_mode(False):
        report.stage("convert")
        return convert_set(
            files, lambda done, total: report(done / 1e6, total / 1e6), free_host_bytes()
        )


def from_upscale_model(upscale_model: Any, dtype: str) -> tuple[LoadedModel, dict[str, Any]]:
    """A copy of an image model that ComfyUI loaded.

    Args:
        upscale_model: What an UPSCALE_MODEL socket carries.
        dtype: "auto" or one of the engine's.

    Returns:
        The model and facts about it.

    Raises:
        ValueError: The model or the dtype cannot be used.
    """
    from ...oasis_core.families.image import from_descriptor

    _check_dtype(dtype)
    restorer = from_descriptor(upscale_model)
    facts = {
        "model": restorer.traits.name,
        "scale": restorer.traits.native_scale,
        "sha256": restorer.identity,
        "parameters": sum(weight.numel() for weight in restorer.network.parameters()),
        "licence": "that of the model file",
        "source": restorer.facts["architecture"],
    }
    return managed(restorer, dtype), facts


def _check_dtype(dtype: str) -> None:
    from ...oasis_core.upscale.precision import DTYPES

    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {dtype!r}")


def managed(restorer: Restorer, dtype: str) -> LoadedModel:
    """A restorer whose network ComfyUI may move."""
    # Not CoreModelPatcher: its dynamic variant moves only layers made of comfy.ops.
    patcher = comfy.model_patcher.ModelPatcher(
        restorer.network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    return LoadedModel(patcher=patcher, restorer=restorer, dtype=dtype)


@contextmanager
def running(model: LoadedModel, report: Progress) -> Iterator[VideoUpscaler]:
    """Bring a model to its device; while the block runs, cancelling stops it at the next layer.

    Args:
        model: What is to run.
        report: Told that it is loaded and, where the arithmetic is to be chosen, tried.
    """
    from ...oasis_core.upscale import VideoUpscaler

    patcher, load = model.patcher, comfy.model_management.load_models_gpu
    report.stage("load")
    load([patcher], force_full_load=True)
    layers = [layer for layer in patcher.model.modules() if not any(layer.children())]
    hooks = [layer.register_forward_pre_hook(_check_layer) for layer in layers]
    try:
        if model.dtype == "auto":
            report.stage("precision")
        upscaler = VideoUpscaler(model.restorer, patcher.load_device, model.dtype)
        report.stage("plan")
        if upscaler.device.type != "cpu":
            load([patcher], memory_required=_wanted_bytes(upscaler), force_full_load=True)
        yield upscaler
    finally:
        for hook in hooks:
            hook.remove()


def _check_layer(*_: object) -> None:
    # A compiled block is one step: looking inside it would cut its graph at every layer.
    if not torch.compiler.is_compiling():
        check()


def _wanted_bytes(upscaler: VideoUpscaler) -> float:
    """Working memory of a tile of good size, for which other models may have to go."""
    size = WANTED_LATENT_FRAMES, WANTED_LATENT_SIDE_PX, WANTED_LATENT_SIDE_PX
    wanted = upscaler.restorer.memory_bytes(*size, upscaler.dtype.itemsize)
    if wanted is not None:
        return wanted
    num_frames = 1 if upscaler.traits.is_per_frame else WANTED_FRAMES
    return upscaler.measured_bytes() * WANTED_PIXELS / upscaler.traits.native_scale**2 * num_frames
