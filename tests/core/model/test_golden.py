"""Golden outputs of a random-weight model: per backend and dtype, and held against drift.

The stored picture was made by the reference path. After a wanted change of output, make it again by
`python tests/core/model/test_golden.py`, and say "Changes output: yes" in the changelog.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from oasis_core.config import OASIS_1_3B
from oasis_core.model.denoiser import OasisModel
from oasis_core.model.held import hold_weights
from oasis_core.model.routing import HeadPattern, HeadRouting

GOLDEN = Path(__file__).with_name("golden_wan.json")
CONFIG = dataclasses.replace(
    OASIS_1_3B, name="golden", width=48, num_layers=2, num_heads=6, ffn_width=64, vae_width=4,
    tiny_width=4,
)  # fmt: skip
ROUTING = HeadRouting(
    patterns=((*(HeadPattern(kind) for kind in (2, 0, 1, 2, 1, 0)),),) * 2, window=(3, 5, 5)
)
SIZE = (9, 176, 208)
DECODERS = ("wan", "tiny")


def noise(shape, seed, scale):
    """Noise of that deviation, the same on every platform and version, unlike random numbers."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    uniform = (((count + 1000.0 * seed) * 12.9898).sin() * 43758.5453).frac()
    return (scale * 3**0.5 * (2 * uniform.abs() - 1)).float().reshape(shape)


def golden_video():
    """Waves of several lengths that move."""
    t, y, x = (torch.arange(n, dtype=torch.float64) for n in SIZE)
    t, y, x = t[:, None, None], y[:, None], x[None, :]
    colors = [(x / a + t / 3).sin() * (y / b - t / 5).cos() for a, b in ((3, 9), (7, 5), (19, 23))]
    return (0.5 + 0.4 * torch.stack(colors)[None]).float()


def golden_model(decoder):
    with torch.device("meta"):
        model = OasisModel(CONFIG).eval().requires_grad_(False)
    state = {}
    for index, (name, like) in enumerate(model.state_dict().items()):
        scale = like[0].numel() ** -0.5 if like.ndim > 1 else 0.1
        tensor = noise(like.shape, index, scale)
        state[name] = 1 + 0.3 * tensor if "norm" in name else tensor
    model.load_state_dict(state, assign=True)
    model.transformer.apply_routing(ROUTING)
    model.choose_decoder(decoder)
    return model


def restore(model, video, backend="auto"):
    for block in model.transformer.blocks:
        block.attention.backend = backend
    with torch.inference_mode():
        return (video + model(video)).float()


def reference(decoder):
    """Masked dense attention and decoding at once, in float32."""
    model, video = golden_model(decoder), golden_video()
    for block in model.transformer.blocks:
        block.attention.backend = "dense"
        block.ffn.tokens_per_piece = 0
    part = model.wan_decoder if decoder == "wan" else model.tiny_decoder
    with torch.inference_mode():
        return part(model.predict_latent(video))[0]


def psnr_db(first, second):
    error = (first - second).square().mean().item()
    return float("inf") if error == 0 else -10 * torch.tensor(error).log10().item()


def thumbnail(video):
    cells = F.avg_pool3d(video, (1, 16, 16))[0, :, ::4]
    return [round(value, 5) for value in cells.flatten().tolist()]


@pytest.fixture(scope="module", params=DECODERS)
def case(request):
    return request.param, reference(request.param)


def test_fast_paths_are_within_50_db_of_the_reference(case):
    decoder, expected = case
    got = restore(golden_model(decoder), golden_video(), "halo")
    assert expected.std() > 0.02
    assert psnr_db(got, expected) >= 50


def test_bfloat16_is_within_40_db_of_float32(case):
    decoder, expected = case
    model = golden_model(decoder)
    hold_weights(model, torch.bfloat16)
    assert 40 <= psnr_db(restore(model, golden_video().bfloat16()), expected) < 90


def test_output_has_not_drifted(case):
    decoder, expected = case
    stored = torch.tensor(json.loads(GOLDEN.read_text())[decoder])
    assert (torch.tensor(thumbnail(expected)) - stored).abs().max() <= 2e-4


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cuda_agrees_with_the_reference(case, dtype):
    decoder, expected = case
    model = golden_model(decoder)
    hold_weights(model, dtype)
    got = restore(model.cuda(), golden_video().to("cuda", dtype)).cpu()
    assert psnr_db(got, expected) >= (50 if dtype == torch.float32 else 40)


if __name__ == "__main__":
    pictures = {decoder: thumbnail(reference(decoder)) for decoder in DECODERS}
    GOLDEN.write_text(json.dumps(pictures) + "\n")
