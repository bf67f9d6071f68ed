"""The process in which SeedVR2's own code runs: `python -m oasis_core.lab.seedvr2_child JSON`.

Its modules have names like `common` and `models`, which must not meet anyone else's. Source of the
interfaces: ByteDance-Seed/SeedVR, `projects/video_diffusion_sr/infer.py` (Apache-2.0).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import json
import sys
import types
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..model.timing import fastest

TEXT_TOKENS = 58
"""Of the stored prompt embedding that it runs with."""
SHRUNKEN_DIT = {"vid_dim": 128, "heads": 2, "head_dim": 128, "num_layers": 2, "mm_layers": 1}
SHRUNKEN_VAE = {"block_out_channels": [32, 32, 32, 32]}


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Build, fill with random weights and time; returns JSON values."""
    sys.path.insert(0, settings["checkout"])
    kernel = _stand_in_for_kernels()
    device = torch.device(settings["device"])
    config = _config(settings)
    create = importlib.import_module("common.config").create_object
    dtype = torch.bfloat16
    parts = (config.dit.model, config.vae.model)
    dit, vae = (_random(create(part), device, dtype) for part in parts)
    if hasattr(vae, "set_causal_slicing"):
        vae.set_causal_slicing(**config.vae.slicing)
    inputs = _Inputs(settings, config.dit.model.txt_in_dim, device, dtype)
    with torch.inference_mode(), torch.autocast(device.type, dtype):
        jobs = {
            "encoder": lambda: vae.encode(inputs.video).latent,
            "transformer": lambda: inputs.run(dit),
            "decoder": lambda: vae.decode(inputs.latent).sample,
        }
        stages = {name: fastest(job, device, settings["runs"])[0] for name, job in jobs.items()}
    total = sum(stages.values())
    return {
        "stages": stages,
        "seconds": total,
        "fps": settings["frames"] / total,
        "parameters": sum(p.numel() for p in dit.parameters()),
        "vae_parameters": sum(p.numel() for p in vae.parameters()),
        "attention": kernel,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        **{key: settings[key] for key in ("size", "frames", "device", "is_shrunken")},
    }


def _config(settings: dict[str, Any]) -> Any:
    config = importlib.import_module("common.config").load_config("configs_3b/main.yaml")
    if settings["is_shrunken"]:
        for part, changes in ((config.dit.model, SHRUNKEN_DIT), (config.vae.model, SHRUNKEN_VAE)):
            for key, value in changes.items():
                part[key] = value
    return config


class _Inputs:
    """Random frames, latents and text of the shapes that its inference gives to its parts."""

    def __init__(
        self, settings: dict[str, Any], text_channels: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        width, height = settings["size"]
        frames = settings["frames"]
        options = {"device": device, "dtype": dtype}
        grid = ((frames + 3) // 4, height // 8, width // 8)
        self.video = torch.rand(1, 3, frames, height, width, **options) * 2 - 1
        self.latent = torch.randn(1, 16, *grid, **options)
        # Noise, the low-quality latent and a mask, side by side.
        self.tokens = torch.randn(grid[0] * grid[1] * grid[2], 33, **options)
        self.text = torch.randn(TEXT_TOKENS, text_channels, **options)
        self.shape = torch.tensor([grid], device=device)
        self.text_shape = torch.tensor([[TEXT_TOKENS]], device=device)
        self.timestep = torch.tensor([1000.0], device=device)

    def run(self, dit: nn.Module) -> Tensor:
        """One step of the transformer, without guidance."""
        return dit(
            vid=self.tokens,
            txt=self.text,
            vid_shape=self.shape,
            txt_shape=self.text_shape,
            timestep=self.timestep,
        ).vid_sample


def _random(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    module = module.eval().requires_grad_(False).to(device=device, dtype=dtype)
    generator = torch.Generator(device=device).manual_seed(0)
    for tensor in module.parameters():
        bound = 0.1 if tensor.ndim < 2 else (3 / tensor[0].numel()) ** 0.5
        tensor.uniform_(-bound, bound, generator=generator)
    return module


def _stand_in_for_kernels() -> str:
    """Put torch's own in place of flash-attn and apex where they are missing; whose it is."""
    if importlib.util.find_spec("apex") is None:
        apex, normalization = types.ModuleType("apex"), types.ModuleType("apex.normalization")
        normalization.FusedLayerNorm, normalization.FusedRMSNorm = nn.LayerNorm, nn.RMSNorm
        apex.normalization = normalization
        sys.modules |= {"apex": apex, "apex.normalization": normalization}
    if importlib.util.find_spec("flash_attn") is not None:
        return "flash_attn"
    flash = types.ModuleType("flash_attn")
    flash.flash_attn_varlen_func = _varlen_attention
    sys.modules["flash_attn"] = flash
    return "torch"


def _varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, **options: Any
) -> Tensor:
    """Attention inside each of many sequences `l k d`, those of one length as one batch."""
    del options
    bounds = cu_seqlens_q.tolist()
    lengths: dict[int, list[int]] = {}
    for start, stop in itertools.pairwise(bounds):
        lengths.setdefault(stop - start, []).append(start)
    out = torch.empty_like(q)
    for length, starts in lengths.items():
        rows = torch.tensor(starts, device=q.device)[:, None] + torch.arange(
            length, device=q.device
        )
        parts = (rearrange(x[rows], "b n k d -> b k n d") for x in (q, k, v))
        out[rows] = rearrange(F.scaled_dot_product_attention(*parts), "b k n d -> b n k d")
    return out


if __name__ == "__main__":
    # Its code prints as it goes; the last line of this output is the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = main(json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(result) + "\n")
