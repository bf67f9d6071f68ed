"""Upscalers of single images: every architecture that the library spandrel loads.

They read the source as it is and write it at their own scale; the engine gives them films, tiles,
any other size, and all else. Only safetensors files are read; `oasis convert` makes them of others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..checkpoint import FORMAT, CheckpointError
from ..digests import file_sha256
from ..extras import need
from .module import ModuleRestorer, weights_sha256
from .restorer import Place, Traits

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

    from .files import Header, LoadOptions

FAMILY = "image"
EXTRA = "image-models"
RGB = 3
LEAST_OVERLAP_PX, MOST_OVERLAP_PX = 32, 96
"""The most keeps tiles of a 23-block ESRGAN, whose convolutions reach 348 pixels in theory, within
about 1/255 of the whole frame; larger overlaps would need larger tiles, which small GPUs lack."""
TILING = {"SUPPORTED": "free", "DISCOURAGED": "avoid", "INTERNAL": "never"}
LICENCE_KEYS = ("licence", "license", "modelspec.license")
SOURCE_KEYS = ("source", "modelspec.implementation", "modelspec.author")


class ImageRestorer(ModuleRestorer):
    """An image model that is called on one frame after the other.

    Args:
        descriptor: What spandrel loaded; its network is taken over.
        traits: What it is like.
        identity: Hash of its file; None computes one from the weights when it is first asked for.
        facts: What its file says of it.
    """

    def __init__(
        self,
        descriptor: ImageModelDescriptor,
        traits: Traits,
        identity: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(descriptor.model, traits, identity, facts)
        self._descriptor = descriptor
        # spandrel clamps the result, which would make a white pixel of an overflow in half
        # precision; NaN survives it, and the engine repeats the frame in float32.
        self.network.register_forward_hook(_mark_overflow)

    @property
    def identity(self) -> str:
        """As given, or SHA-256 of architecture, scale and weights."""
        if self._identity is None:
            facts = f"{self._descriptor.architecture.id} {self._descriptor.scale}"
            self._identity = weights_sha256(self.network, facts)
        return self._identity

    def restore(self, clip: Tensor, place: Place) -> Tensor:
        """The frames of a clip `1 3 t h w` one by one: `1 3 t N*h N*w` in [0, 1]."""
        del place
        return torch.stack([self._descriptor(frame) for frame in clip.unbind(2)], dim=2)


def recognises(header: Header) -> bool:
    """Whether a file may hold such a model: it is of no other family; `load` finds out which."""
    return header.metadata.get("format") != FORMAT


def describe(path: Path, header: Header) -> dict[str, Any]:
    """Facts about a file for people, as JSON values.

    Raises:
        CheckpointError: It holds no image model that is of use here.
    """
    descriptor = read_descriptor(path)
    return {
        "model": path.stem,
        "architecture": descriptor.architecture.name,
        "scale": descriptor.scale,
        "purpose": "upscaling" if descriptor.scale > 1 else "restoration at the same size",
        "variant": ", ".join(descriptor.tags) or "not stated",
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "parameters": sum(weight.numel() for weight in descriptor.model.parameters()),
        "traits": asdict(traits_of(descriptor, path.stem)),
        **_stated(header.metadata),
    }


def wraps(network: nn.Module) -> bool:
    """Whether a network in memory is such a model: never, only its descriptor tells its scale."""
    del network
    return False


def load(path: Path, header: Header, options: LoadOptions) -> ImageRestorer:
    """Read a model.

    Args:
        path: The file.
        header: Its head.
        options: What the user chose; an image model has none of them.

    Raises:
        CheckpointError: It holds no image model that is of use here, or NaN or infinity.
        ValueError: An option is not for this family.
    """
    _refuse_options(path.stem, options)
    descriptor = read_descriptor(path)
    facts = {"architecture": descriptor.architecture.name, **_stated(header.metadata)}
    traits = traits_of(descriptor, path.stem)
    return ImageRestorer(descriptor, traits, file_sha256(path), facts)


def from_descriptor(descriptor: ImageModelDescriptor) -> ImageRestorer:
    """A restorer of a model that another program loaded through spandrel, such as ComfyUI.

    Args:
        descriptor: The model, which stays as it is: its network is copied.

    Raises:
        CheckpointError: It is of no use here, or holds NaN or infinity.
    """
    import spandrel

    if not isinstance(descriptor, spandrel.ModelBase):
        raise CheckpointError(
            f"an upscale model must be one that spandrel loaded, as Load Upscale Model does, got "
            f"{type(descriptor).__name__}"
        )
    name = f"{descriptor.architecture.name} {descriptor.scale}x"
    check_useful(descriptor, name)
    _check_finite(descriptor.model.state_dict().items(), name)
    # A copy: the other program may move its network at any time. Not in inference mode, whose
    # tensors could not be moved outside of it.
    with torch.inference_mode(False):
        own = copy.deepcopy(descriptor)
    return ImageRestorer(own, traits_of(own, name), facts={"architecture": own.architecture.name})


def read_descriptor(path: Path) -> ImageModelDescriptor:
    """Read an image model of a safetensors file.

    Raises:
        CheckpointError: spandrel does not know it, or it is of no use here.
        MissingExtraError: spandrel is not installed.
    """
    need("spandrel", extra=EXTRA, purpose=f"{path} is not an oasis checkpoint; an image model")
    return descriptor_of(load_file(path), path)


def descriptor_of(tensors: dict[str, Tensor], path: Path) -> ImageModelDescriptor:
    """The image model that some tensors are.

    Args:
        tensors: Weights by name, as their authors named them.
        path: Where they come from, for messages.

    Raises:
        CheckpointError: spandrel does not know them, or the model is of no use here.
    """
    import spandrel

    _check_finite(tensors.items(), path)
    state = spandrel.canonicalize_state_dict(tensors)
    try:
        descriptor = spandrel.MAIN_REGISTRY.load(state)
    except spandrel.UnsupportedModelError as error:
        raise CheckpointError(
            f"{path} is not an oasis checkpoint, nor an image model that spandrel "
            f"{spandrel.__version__} knows; other models are converted with `oasis convert`"
        ) from error
    except Exception as error:  # each architecture reads the weights in its own way
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"model file {path} is incomplete or damaged: {reason}") from error
    check_useful(descriptor, path)
    return descriptor


def check_useful(descriptor: Any, path: Path | str) -> None:
    """Refuse what spandrel loads and no frame of a film can be given to.

    Raises:
        CheckpointError: It is a model for faces, with masks, or not for RGB.
    """
    import spandrel

    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise CheckpointError(
            f"{path} is {name}, which fills masked parts of an image; give an upscaler"
        )
    if descriptor.purpose == "FaceSR":
        raise CheckpointError(
            f"{path} is {name}, which restores cropped faces only; give an upscaler of whole images"
        )
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels != (RGB, RGB):
        raise CheckpointError(
            f"{path} must read and write {RGB} channels (RGB), it reads {channels[0]} and writes "
            f"{channels[1]}; give a model for colour images"
        )


def traits_of(descriptor: ImageModelDescriptor, name: str) -> Traits:
    """What the engine must know of an image model.

    Args:
        descriptor: The model.
        name: Name for people.
    """
    needed = descriptor.size_requirements
    halves = {"bfloat16": descriptor.supports_bfloat16, "float16": descriptor.supports_half}
    return Traits(
        name=name,
        family=FAMILY,
        stride=(1, needed.multiple_of, needed.multiple_of),
        reads="source",
        native_scale=descriptor.scale,
        is_per_frame=True,
        least_side=max(1, needed.minimum),
        overlap_px=overlap_px(descriptor.model),
        tiling=TILING[descriptor.tiling.name],
        dtypes=("float32", *(dtype for dtype, is_supported in halves.items() if is_supported)),
    )


def overlap_px(network: nn.Module) -> int:
    """Pixels that tiles should share so that the whole frame's result comes out.

    Four times as far as plain convolutions reach, of which the engine throws an outer quarter away:
    then the result is exact. A network that is deeper, mixes tokens or works at several sizes
    reaches further than tiles can overlap; of most of it little remains past a few dozen pixels.
    """
    reach = 0
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            if max(layer.stride) > 1:
                return MOST_OVERLAP_PX
            sides = zip(layer.kernel_size, layer.dilation, strict=True)
            reach += max(dilation * (size - 1) // 2 for size, dilation in sides)
        elif isinstance(layer, nn.Linear | nn.MultiheadAttention | nn.AdaptiveAvgPool2d):
            return MOST_OVERLAP_PX
    return min(max(4 * reach, LEAST_OVERLAP_PX), MOST_OVERLAP_PX)


def _mark_overflow(network: nn.Module, inputs: Any, output: Any) -> Any:
    """Forward hook: infinity in a result becomes NaN."""
    del network, inputs
    # The sum is one pass over the result and seldom anything but finite.
    if not isinstance(output, Tensor) or output.sum(dtype=torch.float32).isfinite():
        return output
    return output.masked_fill(output.isinf(), torch.nan)


def _check_finite(tensors: Iterable[tuple[str, Tensor]], path: Path | str) -> None:
    for name, tensor in tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"model file {path}: tensor {name} holds NaN or infinity")


def _refuse_options(name: str, options: LoadOptions) -> None:
    chosen = {
        "decoder": options.decoder is not None,
        "decoder_tile": options.decoder_tile is not None,
        "int8": options.int8,
    }
    options.refuse_detail(name)
    if wrong := [option for option, is_chosen in chosen.items() if is_chosen]:
        raise ValueError(f"{wrong[0]} is for large models, got {name}; leave it out")
    if not options.transformer:
        raise ValueError(f"{name} has no transformer that could be left out; use it as it is")


def _stated(metadata: dict[str, str]) -> dict[str, str]:
    """Licence and source as the file's metadata tells them."""
    keys = {"licence": LICENCE_KEYS, "source": SOURCE_KEYS}
    return {
        name: next((metadata[key] for key in known if metadata.get(key)), "not stated")
        for name, known in keys.items()
    }
