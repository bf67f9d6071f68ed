"""Metrics that need trained networks, through libraries that allow commercial use.

Nothing is downloaded: a metric whose library or weights are absent says what it wants, and the
others still run. LPIPS and DISTS need no library where a folder holds their weights as plain files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ..digests import file_sha256
from .feature_networks import Dists, FeatureFileError, Lpips
from .warping import RaftFlow

EXTRA_HINT = "pip install 'oasis-video-upscaler[evaluate]'"
FRAMES_AT_ONCE = 4
WEIGHTS_FOLDER = "OASIS_METRIC_WEIGHTS"
"""Environment variable that names a folder with the files of `FILE_NAMES`."""
FILE_NAMES = {
    "lpips_alex": "lpips_alex.safetensors",
    "lpips_vgg": "lpips_vgg.safetensors",
    "dists": "dists.safetensors",
}
_FILES_OF = {"lpips": ("lpips_alex",), "lpips_vgg": ("lpips_vgg",), "dists": ("lpips_vgg", "dists")}


class MetricUnavailableError(ValueError):
    """A metric cannot run here; one sentence that names what is missing."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Weights that the user puts in place."""

    name: str
    """File name; eight hex digits in it are the start of its SHA-256."""
    url: str
    """Where its authors publish it."""
    folder: str = ""
    """Folder it belongs in; empty: torch.hub's."""

    @property
    def path(self) -> Path:
        """Where the library looks for the file."""
        hub = Path(torch.hub.get_dir()) / "checkpoints"
        return (Path(self.folder).expanduser() if self.folder else hub) / self.name

    def check(self, metric: str) -> None:
        """Make sure that the file is there and is the one its name says.

        Raises:
            MetricUnavailableError: It is missing or damaged.
        """
        if not self.path.is_file():
            raise MetricUnavailableError(
                f"{metric} needs the file {self.path}; download it from {self.url}"
            )
        digits = re.search(r"-([0-9a-f]{8})\.pth$", self.name)
        if digits and not file_sha256(self.path).startswith(digits[1]):
            raise MetricUnavailableError(
                f"{metric}: the file {self.path} is damaged; download it again from {self.url}"
            )


_TORCHVISION = "https://download.pytorch.org/models/"
_PIQ = "https://github.com/photosynthesis-team/piq/releases/download/"
_ALEXNET = WeightFile("alexnet-owt-7be5be79.pth", _TORCHVISION + "alexnet-owt-7be5be79.pth")
_VGG16 = WeightFile("vgg16-397923af.pth", _TORCHVISION + "vgg16-397923af.pth")
_DISTS = WeightFile("dists_weights.pt", _PIQ + "v0.4.1/dists_weights.pt")
_RAFT_NAME = "raft_large_C_T_V1-22a6c225.pth"
_RAFT = WeightFile(_RAFT_NAME, _TORCHVISION + _RAFT_NAME)
_CLIP = WeightFile("RN50.pt", _PIQ + "v0.7.1/RN50.pt", "~/.cache/clip")
_CLIP_TOKENS = WeightFile("clipiqa_tokens.pt", _PIQ + "v0.7.1/clipiqa_tokens.pt", "~/.cache/clip")
WEIGHTS: dict[str, tuple[WeightFile, ...]] = {
    "lpips": (_ALEXNET,),
    "lpips_vgg": (_VGG16,),
    "cvvdp": (),
    "dists": (_VGG16, _DISTS),
    "clipiqa": (_CLIP, _CLIP_TOKENS),
    "raft": (_RAFT,),
}
_PACKAGES = {
    "lpips": "lpips",
    "lpips_vgg": "lpips",
    "dists": "piq",
    "cvvdp": "pycvvdp",
    "clipiqa": "piq",
    "raft": "torchvision",
}
FOREIGN_METRICS = ("musiq", "dover", "niqe", "fastervqa")
"""Metrics of the published tables that no library with a suitable licence computes."""


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let no library unpickle code from a weight file."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check_available(metric: str, wanted_by: str = "") -> None:
    """Make sure that library and weights of a metric (or of "raft") are there.

    Args:
        metric: What is needed.
        wanted_by: The metric to name in errors, if it is another.

    Raises:
        MetricUnavailableError: Something is missing; the text says what and where to get it.
    """
    if metric in FOREIGN_METRICS:
        raise MetricUnavailableError(
            f"{metric} has no library that allows commercial use; measure it with a tool of your "
            "own and pass its table: --scores FILE.csv with the columns clip, method, "
            f"{metric}"
        )
    if plain_files(metric):
        return
    name = wanted_by or metric
    if find_spec(_PACKAGES[metric]) is None:
        raise MetricUnavailableError(
            f"{name} needs {_PACKAGES[metric]}: {EXTRA_HINT}{_other_way(metric)}"
        )
    for file in WEIGHTS[metric]:
        try:
            file.check(name)
        except MetricUnavailableError as error:
            raise MetricUnavailableError(f"{error}{_other_way(metric)}") from error


def plain_files(metric: str) -> list[Path]:
    """The files of a metric in the folder that `WEIGHTS_FOLDER` names; empty if one is missing."""
    folder = os.environ.get(WEIGHTS_FOLDER)
    if not folder or metric not in _FILES_OF:
        return []
    files = [Path(folder).expanduser() / FILE_NAMES[name] for name in _FILES_OF[metric]]
    return files if all(file.is_file() for file in files) else []


def _other_way(metric: str) -> str:
    """What else would do, for messages."""
    if metric not in _FILES_OF:
        return ""
    names = " and ".join(FILE_NAMES[name] for name in _FILES_OF[metric])
    return f"; or let {WEIGHTS_FOLDER} name a folder with {names} (docs/evaluation.md)"


def build_network(metric: str, wanted_by: str = "") -> nn.Module:
    """The network with its published weights, in float32, frozen.

    Args:
        metric: A key of `WEIGHTS`.
        wanted_by: The metric to name in errors, if it is another.

    Raises:
        MetricUnavailableError: Library or weights are missing or cannot be read.
    """
    check_available(metric, wanted_by)
    try:
        # CLIP's file is a TorchScript archive, which the library opens in its own way.
        with contextlib.nullcontext() if metric == "clipiqa" else _weights_only():
            files = plain_files(metric)
            network = _PLAIN_BUILDERS[metric](*files) if files else _BUILDERS[metric]()
    except FeatureFileError as error:
        raise MetricUnavailableError(f"{wanted_by or metric}: {error}") from error
    # A torchvision that does not fit this torch fails in any of these ways at its import.
    except (ImportError, AttributeError, RuntimeError, OSError, KeyError, ValueError) as error:
        raise MetricUnavailableError(f"{metric} could not be loaded: {error}") from error
    return network.eval().requires_grad_(False)


def _build_lpips() -> nn.Module:
    import lpips

    return lpips.LPIPS(net="alex", version="0.1", verbose=False)


def _build_lpips_vgg() -> nn.Module:
    import lpips

    return lpips.LPIPS(net="vgg", version="0.1", verbose=False)


def _build_dists() -> nn.Module:
    import piq

    network = piq.DISTS()
    # Equal clips have distance 0 only if the weights sum to 1, which the authors' own file leaves
    # to whoever reads it.
    total = sum(weight.sum() for weight in network.weights)
    network.weights = [weight / total for weight in network.weights]
    return network


def _build_clipiqa() -> nn.Module:
    import piq

    return piq.CLIPIQA()


def _build_raft() -> nn.Module:
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    return raft_large(weights=Raft_Large_Weights.C_T_V1, progress=False)


_PLAIN_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "lpips": lambda file: Lpips("alex", file),
    "lpips_vgg": lambda file: Lpips("vgg", file),
    "dists": Dists,
}
_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "lpips": _build_lpips,
    "lpips_vgg": _build_lpips_vgg,
    "dists": _build_dists,
    "clipiqa": _build_clipiqa,
    "raft": _build_raft,
}


@torch.inference_mode()
def mean_over_frames(
    score: Callable[..., Tensor], clip: Tensor, truth: Tensor | None = None
) -> float:
    """Apply a metric to a few frames at a time; the mean over the frames.

    Args:
        score: From `n 3 h w` (or two of them) to one value per frame, or to their mean.
        clip: `t 3 h w` in [0, 1].
        truth: The same shape, for metrics that compare.
    """
    total = 0.0
    for start in range(0, len(clip), FRAMES_AT_ONCE):
        pieces = [x[start : start + FRAMES_AT_ONCE].float() for x in (clip, truth) if x is not None]
        total += float(score(*pieces).float().mean()) * len(pieces[0])
    return total / len(clip)


def lpips_score(network: nn.Module) -> Callable[[Tensor, Tensor], float]:
    """LPIPS of clips `t 3 h w` in [0, 1]; the network wants [-1, 1].

    Source: arXiv 1801.03924, AlexNet or VGG16, version 0.1.
    """
    score = _remembering(network)
    return lambda clip, truth: mean_over_frames(
        lambda x, y: score(2 * x - 1, 2 * y - 1), clip, truth
    )


def dists_score(network: nn.Module) -> Callable[[Tensor, Tensor], float]:
    """DISTS of clips `t 3 h w` in [0, 1]; sides above 256 px are reduced, as its authors do.

    Source: arXiv 2004.07728.
    """
    score = _remembering(network)
    return lambda clip, truth: mean_over_frames(score, clip, truth)


def _remembering(network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of a network that knows the features of the last original it saw.

    Methods are measured one after the other against the same frames, of which half the work would
    be done again for each.
    """
    if not isinstance(network, (Lpips, Dists)):
        return network
    kept: list[tuple[Tensor, list[Tensor]]] = []

    def distance(pictures: Tensor, truth: Tensor) -> Tensor:
        if not kept or not (kept[0][0].shape == truth.shape and torch.equal(kept[0][0], truth)):
            kept[:] = [(truth, network.features(truth))]
        return network.distance(network.features(pictures), kept[0][1])

    return distance


def clipiqa_score(network: nn.Module) -> Callable[[Tensor], float]:
    """CLIP-IQA of a clip `t 3 h w` in [0, 1]; 1 is best.

    Source: arXiv 2207.12396, RN50 without position embedding, "Good photo." and "Bad photo.".
    """
    return lambda clip: mean_over_frames(network, clip)


def raft_flows(wanted_by: str) -> tuple[RaftFlow, RaftFlow]:
    """RAFT with the published mistake and without it, for a metric.

    Raises:
        MetricUnavailableError: torchvision or RAFT's weights are missing.
    """
    network = build_network("raft", wanted_by)
    return (
        RaftFlow(network, keeps_scaling_bug=True),
        RaftFlow(network, keeps_scaling_bug=False),
    )
