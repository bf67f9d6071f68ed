"""Between ComfyUI and `oasis_core`: models, frames, progress and folders.

The only file that touches `comfy.*` and `folder_paths`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn

from ..oasis_core.choices import BUNDLED
from ._results import DEFAULT_KEPT, SHELF
from ._status import Status

if TYPE_CHECKING:
    from ..oasis_core.families.restorer import HasRouting, Restorer
    from ..oasis_core.model.routing import HeadRouting
    from ..oasis_core.upscale import VideoUpscaler

MODEL_FOLDER = "oasis"
MODEL_SUFFIX = ".safetensors"
PROGRESS_STEPS = 1000
"""ComfyUI shows shares; frames are counted in fractions while a segment is at work."""
WANTED_PIXELS = 1024 * 1024
WANTED_FRAMES = 24
WANTED_LATENT_FRAMES, WANTED_LATENT_SIDE_PX = 25, 512
"""Working memory asked of ComfyUI is for a tile of this size: larger ones gain little."""
KEPT_SETTING = "OASIS.keptResults"
"""Of web/oasis.js: how many results the temporary folder keeps."""
STATUS_EVENT = "oasis.progress"


# Models


def register_model_folder() -> None:
    """Make `models/oasis` known to ComfyUI, beside what extra_model_paths.yaml may name."""
    default = str(Path(folder_paths.models_dir) / MODEL_FOLDER)
    folder_paths.add_model_folder_path(MODEL_FOLDER, default)
    with suppress(OSError):  # a disk that cannot be written to has its models elsewhere
        Path(default).mkdir(parents=True, exist_ok=True)
    # Without a suffix ComfyUI would list every file of the folder.
    folders, suffixes = folder_paths.folder_names_and_paths[MODEL_FOLDER]
    known = (folders, set(suffixes) | {MODEL_SUFFIX})
    folder_paths.folder_names_and_paths[MODEL_FOLDER] = known


def model_names() -> list[str]:
    """Bundled models, then the files of the model folder."""
    files = folder_paths.get_filename_list(MODEL_FOLDER)
    return [*BUNDLED, *(name for name in files if name.endswith(MODEL_SUFFIX))]


def model_path(name: str) -> Path:
    """The file of a model from `model_names`.

    Raises:
        ValueError: There is no such model.
    """
    from ..oasis_core.checkpoint import resolve_model

    if name in BUNDLED:
        return resolve_model(name)
    if name not in model_names():  # ComfyUI before 0.8 lets any text through
        raise ValueError(
            f"model_name must be one of {', '.join(model_names())}, got {name!r}; put the file "
            f"into models/{MODEL_FOLDER} and press R"
        )
    return Path(folder_paths.get_full_path_or_raise(MODEL_FOLDER, name))


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
        from ..oasis_core.families.restorer import routing_of

        return routing_of(self.restorer)

    def routed(self, routing: HeadRouting | None) -> LoadedModel:
        """The same model with another routing, or with its own for None.

        Raises:
            ValueError: The routing is of another network, or the model has no heads.
        """
        return replace(self, restorer=self.routing.routed(routing))

    def all_global(self) -> LoadedModel:
        """The same model with heads that all see everything."""
        from ..oasis_core.model.routing import HeadRouting

        own = self.routing.rerouter.own
        return self.routed(HeadRouting.all_global(own.num_layers, own.num_heads, own.window))

    def without_transformer(self) -> LoadedModel:
        """The same model, its convolutions alone.

        Raises:
            ValueError: It has none that could do without.
        """
        from ..oasis_core.families.restorer import without_transformer

        return replace(self, restorer=without_transformer(self.restorer))


def load_model(
    path: Path, dtype: str, detail: float | None = None
) -> tuple[LoadedModel, dict[str, Any]]:
    """Read a model into main memory.

    Args:
        path: A model file of any family.
        dtype: "auto" or one of the engine's.
        detail: Share of the vivid end, in [0, 1]; None for the model's own.

    Returns:
        The model and facts about it.

    Raises:
        ValueError: The file, the dtype or the detail cannot be used.
    """
    from ..oasis_core.families.catalog import open_restorer
    from ..oasis_core.families.files import LoadOptions

    _check_dtype(dtype)
    # ComfyUI runs nodes in inference mode and moves models outside of it; tensors of inference
    # mode could not be moved there.
    with torch.inference_mode(False):
        restorer = open_restorer(path, LoadOptions(detail=detail))
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
    from ..oasis_core.families.image import from_descriptor

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
    from ..oasis_core.upscale.precision import DTYPES

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
    from ..oasis_core.upscale import VideoUpscaler

    patcher, load = model.patcher, comfy.model_management.load_models_gpu
    report.stage("load")
    load([patcher], force_full_load=True)
    layers = [layer for layer in patcher.model.modules() if not any(layer.children())]
    hooks = [layer.register_forward_pre_hook(check) for layer in layers]
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


def _wanted_bytes(upscaler: VideoUpscaler) -> float:
    """Working memory of a tile of good size, for which other models may have to go."""
    size = WANTED_LATENT_FRAMES, WANTED_LATENT_SIDE_PX, WANTED_LATENT_SIDE_PX
    wanted = upscaler.restorer.memory_bytes(*size, upscaler.dtype.itemsize)
    if wanted is not None:
        return wanted
    num_frames = 1 if upscaler.traits.is_per_frame else WANTED_FRAMES
    return upscaler.measured_bytes() * WANTED_PIXELS / upscaler.traits.native_scale**2 * num_frames


# Progress


class Progress:
    """Moves the running node's progress bar, tells the page what it does, and heeds cancelling.

    To be called with (units done, units in all), by default of frames; its `stage` with what is
    being done.
    """

    def __init__(self, unit: str = "frames") -> None:
        self._server = _server()
        self._node = getattr(self._server, "last_node_id", None)  # None where nobody listens
        self._bar = comfy.utils.ProgressBar(PROGRESS_STEPS)
        self._status = Status(self._send, unit)

    def __call__(self, done: float, total: float) -> None:
        """Report."""
        # The bar's own check is throttled and may never come.
        check()
        if total:
            self._bar.update_absolute(round(PROGRESS_STEPS * done / total), PROGRESS_STEPS)
        self._status.report(done, total)

    def stage(self, name: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done: a word of web/text.js, and which step of how many."""
        check()
        self._status.stage(name, done, total)

    def check(self) -> None:
        """Stop here if the user has cancelled."""
        check()

    def step(self, name: str) -> Callable[[], None]:
        """A function that says that a stage is at work, for loops that cannot say how far."""
        return lambda: self.stage(name)

    def found(self) -> None:
        """Say that an earlier run has left the result."""
        self._bar.update_absolute(PROGRESS_STEPS, PROGRESS_STEPS)
        self._status.kept()

    def finish(self) -> None:
        """Say that all is done."""
        self._bar.update_absolute(PROGRESS_STEPS, PROGRESS_STEPS)
        self._status.finish()

    def begin_segment(self, shot: int, segment: int) -> None:
        """Say where the run is, both from 0."""
        self._status.place(shot=shot + 1, segment=segment + 1)

    def _send(self, values: dict[str, Any]) -> None:
        if self._node is not None:
            values = {"node": self._node, **values}
            self._server.send_sync(STATUS_EVENT, values, self._server.client_id)


@contextmanager
def progress(unit: str = "frames") -> Iterator[Progress]:
    """Progress from the first moment of a node, finished when the block ends well."""
    report = Progress(unit)
    yield report
    report.finish()


def _server() -> Any:
    """ComfyUI's server; None where there is none, as in tests."""
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def check(*_: object) -> None:
    """Stop here if the user has cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


# Frames


def check_images(images: Tensor) -> None:
    """Refuse what is no batch of colour images.

    Raises:
        ValueError: It is none.
    """
    if images.ndim != 4 or images.shape[-1] < 3 or 0 in images.shape:
        raise ValueError(
            "images must be a batch t h w c of at least one image with 3 channels, got shape "
            f"{tuple(images.shape)}; convert masks to images first"
        )


def to_video(images: Tensor, *, is_clip: bool = True) -> Tensor:
    """IMAGE as the engine's video.

    Args:
        images: `t h w c`, any floating point, 3 or more channels.
        is_clip: Whether the images are frames of one clip; else each is a clip of its own.

    Returns:
        `1 3 t h w`, or `t 3 1 h w` for stills: float32 in [0, 1].

    Raises:
        ValueError: It is not a batch of colour images, or some of it is no number.
    """
    from einops import rearrange

    check_images(images)
    pattern = "t h w c -> 1 c t h w" if is_clip else "t h w c -> t c 1 h w"
    video = images[..., :3].float().clamp(0, 1)
    if video.sum().isnan():
        frame = video.flatten(1).sum(1).isnan().nonzero()[0].item()
        raise ValueError(
            f"images must be finite, got NaN in frame {frame}; the node before produced it, often "
            "by running a model in a precision that it does not bear"
        )
    return rearrange(video, pattern)


def to_images(video: Tensor, alpha: Tensor | None = None) -> Tensor:
    """The engine's video, clip or stills, as IMAGE `t h w c` on ComfyUI's device.

    Args:
        video: `1 3 t h w` or `t 3 1 h w`, float32 in [0, 1].
        alpha: `t 1 h w` of the source at any size, in [0, 1]; becomes the fourth channel.
    """
    from einops import rearrange

    images = rearrange(video, "b c t h w -> (b t) h w c")
    if alpha is not None:
        size = images.shape[1:3]
        enlarged = nn.functional.interpolate(alpha, size, mode="bicubic", antialias=True)
        enlarged = rearrange(enlarged.clamp(0, 1), "t c h w -> t h w c").to(images.device)
        images = torch.cat((images, enlarged), dim=-1)
    return images.contiguous().to(comfy.model_management.intermediate_device())


def alpha_of(images: Tensor) -> Tensor | None:
    """The alpha channel of IMAGE `t h w c` as `t 1 h w` float32 in [0, 1], if it has one."""
    if images.shape[-1] < 4:
        return None
    return images[..., 3].float().clamp(0, 1)[:, None]


def to_clip(images: Tensor) -> Tensor:
    """IMAGE `t h w c` as `1 c t h w` with all its channels and values as they are."""
    from einops import rearrange

    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be a batch t h w c, got shape {tuple(images.shape)}")
    return rearrange(images, "t h w c -> 1 c t h w")


def check_memory(num_frames: int, size: tuple[int, int], purpose: str = "hold the result") -> None:
    """Refuse, with numbers, a batch of images that main memory cannot hold.

    Args:
        num_frames: Images.
        size: (width, height) in pixels.
        purpose: What the memory is for.

    Raises:
        ValueError: It does not fit.
    """
    from ..oasis_core.upscale.memory import free_host_bytes

    # Twice: the engine's order of axes is not ComfyUI's, and both exist for a moment.
    needed, free = 2 * num_frames * 3 * 4 * size[0] * size[1], free_host_bytes()
    if needed > free:
        raise ValueError(
            f"main memory must {purpose} ({num_frames} frames of {size[0]}x{size[1]} need "
            f"{needed / 2**30:.1f} GiB), but {free / 2**30:.1f} GiB are free; use OASIS Upscale "
            "Video on a whole file, which streams at any length, or fewer frames, or a smaller "
            "scale"
        )


# Folders


def keep_result(path: Path, inputs: Mapping[str, Any], beside: tuple[Path, ...] = ()) -> None:
    """Note a result in the temporary folder; the oldest beyond the last few are removed.

    Args:
        path: The result.
        inputs: Of the node that made it, by name.
        beside: Files that belong to it.
    """
    server = _server()
    prompt = getattr(server, "last_prompt_id", None)
    SHELF.put(path, inputs, prompt=prompt, num_kept=_num_kept_results(), beside=beside)


def _num_kept_results() -> int:
    """What the user set on the page; results that are not used any more take the disk."""
    settings = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        value = json.loads(settings.read_text(encoding="utf-8"))[KEPT_SETTING]
        return max(0, int(value))
    except (OSError, ValueError, TypeError, KeyError):
        return DEFAULT_KEPT


def new_output(prefix: str, size: tuple[int, int], suffix: str) -> Path:
    """A file in ComfyUI's output folder that does not exist yet.

    Args:
        prefix: Its name as Save Video takes it: with folders, with %date% and the like.
        size: (width, height) that the name may mention.
        suffix: Its ending.
    """
    output = folder_paths.get_output_directory()
    folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, output, *size)
    return Path(folder) / f"{name}_{counter:05}_{suffix}"


def is_named(path: Path, prefix: str, size: tuple[int, int]) -> bool:
    """Whether a file in the output folder is called by a prefix already."""
    output = folder_paths.get_output_directory()
    folder, name, *_ = folder_paths.get_save_image_path(prefix, output, *size)
    return path.parent == Path(folder) and path.name.startswith(f"{name}_")


def temp_folder() -> Path:
    """ComfyUI's temporary folder, emptied when the server starts."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
