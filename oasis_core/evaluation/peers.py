"""Other upscalers, measured in the same run with their own weights: what people use instead.

Nothing of them is part of the package: a peer is a file that the user names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..digests import file_sha256
from ..extras import need
from .clips import RESERVED, EvaluationError
from .metrics import to_uint8

if TYPE_CHECKING:
    from ..upscale import VideoUpscaler

LANCZOS = "lanczos"
LANCZOS_LOBES = 3
NCNN_SUFFIX = ".param"


class Peer(Protocol):
    """Another way to enlarge a clip."""

    name: str
    """What reports call it."""

    @property
    def identity(self) -> str:
        """What tells its results apart, part of the key they are cached by; empty: never cached."""

    def restore(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge a clip `t 3 h w` in [0, 1] to (width, height)."""


def lanczos_weights(length: int, wanted: int) -> Tensor:
    """Weights `wanted length` of a resize with the Lanczos window of three lobes; edges repeated.

    Where the result is smaller, the window is as much wider, as a resize must.
    """
    step = length / wanted
    width = max(step, 1.0)
    centers = (torch.arange(wanted, dtype=torch.float64) + 0.5) * step - 0.5
    reach = int(np.ceil(LANCZOS_LOBES * width))
    offsets = torch.arange(-reach, reach + 1)
    taps = centers.floor().long()[:, None] + offsets
    distance = (taps - centers[:, None]) / width
    window = torch.sinc(distance) * torch.sinc(distance / LANCZOS_LOBES)
    window = window * (distance.abs() < LANCZOS_LOBES)
    weights = torch.zeros(wanted, length, dtype=torch.float64)
    weights.scatter_add_(1, taps.clamp(0, length - 1), window)
    return (weights / weights.sum(1, keepdim=True)).float()


class Lanczos:
    """The plain resize with the Lanczos window, what players and editors use."""

    name = LANCZOS
    identity = f"lanczos {LANCZOS_LOBES}"

    def restore(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Peer`."""
        width, height = size
        rows, columns = (
            lanczos_weights(*pair) for pair in ((low.shape[2], height), (low.shape[3], width))
        )
        return torch.einsum("tchw,yh,xw->tcyx", low.float(), rows, columns).clamp(0, 1)


class EngineModel:
    """Any model that the engine loads, image upscalers included.

    Args:
        name: What reports call it.
        upscaler: The loaded model.
        path: Its file, by which results are cached; None: they are not, as befits a model whose
            code is being worked on.
    """

    def __init__(self, name: str, upscaler: VideoUpscaler, path: Path | None = None) -> None:
        self.name, self.upscaler = name, upscaler
        dtype = str(upscaler.dtype).removeprefix("torch.")
        self.identity = f"engine {file_sha256(path)} {dtype}" if path else ""

    def restore(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Peer`."""
        restored = self.upscaler.upscale(rearrange(low, "t c h w -> 1 c t h w"), size=size)
        return rearrange(restored, "1 c t h w -> t c h w")


class NcnnModel:
    """An image upscaler in ncnn's files, frame by frame on the CPU; whole frames, no tiles.

    Args:
        name: What reports call it.
        path: The .param file; the .bin file lies beside it. Input blob `data`, RGB in [0, 1],
            output blob `output`.

    Raises:
        EvaluationError: A file is missing or not ncnn's.
        MissingExtraError: The package `ncnn` is not installed.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path
        self._ncnn = need("ncnn", extra="evaluate", purpose=f"the peer {name}")
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise EvaluationError(f"the peer {name} needs {weights} beside {path.name}")
        self.identity = f"ncnn {file_sha256(path)} {file_sha256(weights)}"
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = torch.get_num_threads()
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise EvaluationError(f"the peer {name}: {path} and {weights.name} are no ncnn model")

    def enlarge(self, picture: np.ndarray) -> np.ndarray:
        """A picture `3 h w` float32 in [0, 1] in the model's own scale, `3 h w`, not clamped."""
        extractor = self._net.create_extractor()
        # A Mat made of an array only points to it.
        given = self._ncnn.Mat(np.ascontiguousarray(picture, dtype=np.float32)).clone()
        extractor.input("data", given)
        code, result = extractor.extract("output")
        if code:
            raise EvaluationError(f"the peer {self.name} failed with ncnn's code {code}")
        return np.array(result)

    def restore(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """See `Peer`; a scale other than its own is reached by a bicubic resize."""
        frames = [torch.from_numpy(self.enlarge(frame)) for frame in low.float().numpy()]
        clip = torch.stack(frames).clamp(0, 1)
        if (clip.shape[3], clip.shape[2]) != size:
            height_width = size[::-1]
            clip = F.interpolate(clip, size=height_width, mode="bicubic", antialias=True)
        return clip.clamp(0, 1)


def find_peers(texts: Sequence[str], load: Callable[[Path], VideoUpscaler]) -> list[Peer]:
    """The peers of a command line.

    Args:
        texts: "lanczos", or [NAME=]FILE: ncnn's .param, or a model that the engine loads.
        load: Loads a model of the engine.

    Raises:
        EvaluationError: A file is missing, cannot be loaded, or two peers share a name.
    """
    peers: list[Peer] = []
    for text in texts:
        if text == LANCZOS:
            peers.append(Lanczos())
            continue
        name, separator, file = text.partition("=")
        path = Path(file if separator else text).expanduser()
        name = name if separator else path.stem
        if not path.is_file():
            raise EvaluationError(
                f"a peer must be {LANCZOS} or [NAME=]FILE, ncnn's {NCNN_SUFFIX} or a model file, "
                f"got {text!r}, and there is no such file"
            )
        if path.suffix == NCNN_SUFFIX:
            peers.append(NcnnModel(name, path))
        else:
            peers.append(EngineModel(name, load(path), path))
    names = [peer.name for peer in peers]
    if odd := [n for n in names if not n or n in RESERVED or names.count(n) > 1]:
        raise EvaluationError(
            f"each peer needs a name of its own, none of {', '.join(RESERVED)}, got {odd[0]!r}; "
            "write NAME=FILE"
        )
    return peers


class ResultCache:
    """Keeps what peers made of clips, so that measuring again costs no upscaling.

    Args:
        folder: Where; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def restore(self, peer: Peer, low: Tensor, size: tuple[int, int]) -> Tensor:
        """What a peer makes of a clip `t 3 h w` in [0, 1], rounded to 8-bit levels."""
        if self.folder is None or not peer.identity:
            return to_uint8(peer.restore(low, size))
        path = self.folder / f"{_key(peer, low, size)}.safetensors"
        if path.is_file():
            try:
                return load_file(path)["video"].float() / 255
            except (SafetensorError, KeyError, OSError):
                # Cut off in an earlier run: made again below.
                path.unlink(missing_ok=True)
        restored = to_uint8(peer.restore(low, size))
        pixels = (restored * 255).round().to(torch.uint8).contiguous()
        unfinished = path.with_suffix(".part")
        save_file({"video": pixels}, unfinished, metadata={"peer": peer.name})
        unfinished.replace(path)
        return restored


def _key(peer: Peer, low: Tensor, size: tuple[int, int]) -> str:
    about: list[Any] = [peer.identity, list(low.shape), list(size)]
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(low.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
