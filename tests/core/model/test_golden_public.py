"""Stored outputs of small InfVSR- and FlashVSR-shaped models with weights from a formula.

What they compute is held against the published formulas elsewhere; this holds it against drift.
`python tests/core/model/test_golden_public.py` stores them anew.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from oasis_core.config import FLASHVSR, INFVSR
from oasis_core.lab.golden import formula_noise
from oasis_core.model.agreement import agreement_db
from oasis_core.model.denoiser import OasisModel

STORED = Path(__file__).with_name("golden_public.json")
SMALL = {"width": 48, "num_layers": 2, "num_heads": 4, "ffn_width": 64, "vae_width": 0}
CONFIGS = {
    "infvsr": dataclasses.replace(
        INFVSR, **SMALL, tiny_width=4, tiny_encoder_width=4, text_channels=12, visual_width=32,
        encoder="tiny", decoder="tiny",
    ),
    "flashvsr": dataclasses.replace(
        FLASHVSR, **SMALL, tiny_width=4, projector_width=4, num_context_keys=3
    ),
}  # fmt: skip
SIZE = {"infvsr": (17, 48, 64), "flashvsr": (25, 128, 128)}
LEAST_DB = 50
"""Sums differ in their last bits from machine to machine; a change of arithmetic does more."""


def model_of(name):
    with torch.device("meta"):
        model = OasisModel(CONFIGS[name]).eval().requires_grad_(False)
    state = {}
    for index, (key, like) in enumerate(model.state_dict().items()):
        deviation = like[0].numel() ** -0.5 if like.ndim > 1 else 0.1
        tensor = formula_noise(like.shape, index, deviation)
        is_gain = ("norm" in key or "gamma" in key) and not key.endswith("bias")
        state[key] = 1 + 0.3 * tensor if is_gain else tensor
    state["tiny_decoder.conv_out.bias"] = torch.tensor([0.3, 0.5, 0.7])
    model.load_state_dict(state, assign=True)
    return model


def clip_of(name):
    t, y, x = (torch.arange(n, dtype=torch.float64) for n in SIZE[name])
    t, y, x = t[:, None, None], y[:, None], x[None, :]
    colors = [(x / a + t / 3).sin() * (y / b - t / 5).cos() for a, b in ((3, 9), (7, 5), (19, 23))]
    return (0.5 + 0.4 * torch.stack(colors)[None]).float()


@torch.inference_mode()
def thumbnail(name):
    """Means over squares of 8 px of every third frame, as one flat tensor."""
    video = clip_of(name)
    restored = (video + model_of(name)(video)).clamp(0, 1)
    return F.avg_pool3d(restored, (1, 8, 8))[0, :, ::3].flatten()


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_the_stored_ones(name):
    stored = torch.tensor(json.loads(STORED.read_text(encoding="utf-8"))[name])
    got = thumbnail(name)
    assert stored.std() > 0.02
    assert ((stored > 0.01) & (stored < 0.99)).float().mean() > 0.5
    assert agreement_db(got, stored) >= LEAST_DB


if __name__ == "__main__":
    values = {name: [round(x, 5) for x in thumbnail(name).tolist()] for name in CONFIGS}
    STORED.write_text(json.dumps(values) + "\n", encoding="utf-8")
