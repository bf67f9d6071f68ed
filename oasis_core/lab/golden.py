"""A small model with fixed weights whose outputs every backend and precision must agree on.

Its weights and its clip come from a formula, so they are the same on every platform and version,
which random numbers are not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..config import OASIS_1_3B
from ..model.denoiser import OasisModel
from ..model.routing import HeadPattern, HeadRouting
from ..model.weight_precision import hold_weights

CONFIG = dataclasses.replace(
    OASIS_1_3B, name="golden", width=48, num_layers=2, num_heads=6, ffn_width=64, vae_width=4,
    tiny_width=4,
)  # fmt: skip
ROUTING = HeadRouting(
    patterns=((*(HeadPattern(kind) for kind in (2, 0, 1, 2, 1, 0)),),) * 2, window=(3, 5, 5)
)
SIZE = (9, 176, 208)
DECODERS = ("wan", "tiny")


def formula_noise(shape: torch.Size | tuple[int, ...], seed: int, deviation: float) -> Tensor:
    """Noise that is the same everywhere: the digits of a sine far behind its point."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    uniform = (((count + 1000.0 * seed) * 12.9898).sin() * 43758.5453).frac()
    return (deviation * 3**0.5 * (2 * uniform.abs() - 1)).float().reshape(shape)


def golden_video() -> Tensor:
    """Waves of several lengths that move: `1 3 t h w`."""
    t, y, x = (torch.arange(n, dtype=torch.float64) for n in SIZE)
    t, y, x = t[:, None, None], y[:, None], x[None, :]
    colors = [(x / a + t / 3).sin() * (y / b - t / 5).cos() for a, b in ((3, 9), (7, 5), (19, 23))]
    return (0.5 + 0.4 * torch.stack(colors)[None]).float()


def golden_model(decoder: str) -> OasisModel:
    """The model in float32 on the CPU, with one of its decoders."""
    with torch.device("meta"):
        model = OasisModel(CONFIG).eval().requires_grad_(False)
    state = {}
    for index, (name, like) in enumerate(model.state_dict().items()):
        deviation = like[0].numel() ** -0.5 if like.ndim > 1 else 0.1
        tensor = formula_noise(like.shape, index, deviation)
        state[name] = 1 + 0.3 * tensor if "norm" in name else tensor
    model.load_state_dict(state, assign=True)
    model.transformer.apply_routing(ROUTING)
    model.choose_decoder(decoder)
    return model


@torch.inference_mode()
def golden_reference(decoder: str) -> Tensor:
    """Frames `1 3 t h w` by masked dense attention and decoding at once, in float32 on the CPU."""
    model, video = golden_model(decoder), golden_video()
    for block in model.transformer.blocks:
        block.attention.backend = "dense"
        block.ffn.tokens_per_piece = 0
    part = model.wan_decoder if decoder == "wan" else model.tiny_decoder
    return part(model.predict_latent(video))[0]


def golden_cases(device: torch.device) -> Iterator[tuple[str, torch.dtype, str]]:
    """Every precision and window backend that a device has: name, dtype and backend."""
    backends = ("dense", "halo", "flex") if device.type == "cuda" else ("dense", "halo")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for backend in backends:
            yield f"{str(dtype).removeprefix('torch.')} {backend}", dtype, backend


@torch.inference_mode()
def golden_output(decoder: str, device: torch.device, dtype: torch.dtype, backend: str) -> Tensor:
    """Frames `1 3 t h w` as a job would make them, float32 on the CPU."""
    model = golden_model(decoder)
    hold_weights(model, dtype)
    model.to(device)
    for block in model.transformer.blocks:
        block.attention.backend = backend
    video = golden_video().to(device, dtype)
    return (video + model(video)).float().cpu()
