"""Small real models of the bundled families, in memory and as files."""

import dataclasses

import torch
from torch import nn

from oasis_core.checkpoint import save_checkpoint
from oasis_core.config import OASIS_1_3B, OASIS_TINY
from oasis_core.model.denoiser import build_model
from oasis_core.model.routing import HeadPattern, HeadRouting

TINY = dataclasses.replace(
    OASIS_TINY, name="small-tiny", stem_channels=8, num_stem_blocks=1, num_decoder_blocks=1,
    width=24, num_layers=2, num_heads=4, ffn_width=32, out_channels=8, window_size=(3, 3, 3),
)  # fmt: skip
WAN = dataclasses.replace(
    OASIS_1_3B, name="small-1.3b", width=48, num_layers=2, num_heads=4, ffn_width=64, vae_width=4,
    tiny_width=4, decoder="tiny", window_size=(3, 3, 3),
)  # fmt: skip
CONFIGS = {"tiny": TINY, "wan": WAN, "wan, stem latent": dataclasses.replace(WAN, stem="latent")}
GLOBAL, INTRA, WINDOW = HeadPattern.GLOBAL, HeadPattern.INTRA, HeadPattern.WINDOW
ROUTING = HeadRouting(patterns=((WINDOW, GLOBAL, INTRA, GLOBAL),) * 2, window=(3, 3, 3))
OTHER = HeadRouting(patterns=((GLOBAL, WINDOW, GLOBAL, WINDOW),) * 2, window=(3, 3, 3))


def random_network(config, seed=0):
    """A network whose every weight counts."""
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(1 + 0.1 * noise if "norm" in name else scale * noise)
    return model


def save_model(path, name):
    """Write one of `CONFIGS` with `ROUTING`; returns the path."""
    info = {"licence": "CC0-1.0", "source": "random numbers"}
    save_checkpoint(path, random_network(CONFIGS[name]), ROUTING, info)
    return path


class PlainModule(nn.Module):
    """Any module of the plain contract."""

    def __init__(self):
        super().__init__()
        self.config = type("PlainConfig", (), {"name": "plain", "token_stride": (1, 8, 8)})()
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, video):
        return self.gain * video * (1 - video)
