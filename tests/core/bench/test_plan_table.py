"""Counted costs against torch's own counter and against published figures."""

import dataclasses
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from oasis_core.bench.plan_table import plan_table, routing_counts
from oasis_core.cli import main
from oasis_core.config import INFVSR, OASIS_1_3B, OASIS_TINY
from oasis_core.model.cost import model_costs, transformer_flops, uniform_counts
from oasis_core.model.denoiser import OasisModel

SMALL = dataclasses.replace(
    OASIS_1_3B, width=48, num_layers=2, num_heads=4, ffn_width=64, vae_width=4, tiny_width=4
)


def counted(config, counts, size, run):
    """Operations that torch counts on the meta device, where attention is two plain products."""
    with torch.device("meta"), torch.no_grad():  # torch 2.4 counts nothing in inference mode
        model = OasisModel(config)
        for block, row in zip(model.transformer.blocks, counts, strict=True):
            block.attention.counts = row
        with FlopCounterMode(display=False) as counter:
            run(model, torch.empty(1, 3, *size))
    return counter.get_total_flops()


@pytest.mark.parametrize("heads", [(4, 0, 0), (1, 3, 0), (0, 4, 0)])
@pytest.mark.parametrize("size", [(1, 16, 16), (9, 48, 32), (13, 64, 80)])
def test_transformer_equals_torchs_counter(heads, size):
    counts = uniform_counts(SMALL, heads)
    expected = counted(SMALL, counts, size, lambda model, video: model.transformer(video))
    stages = model_costs(SMALL, counts, num_frames=size[0], height=size[1], width=size[2])
    assert transformer_flops(stages) == expected


def test_window_heads_count_their_true_clipped_neighbourhoods():
    size = {"num_frames": 9, "height": 96, "width": 112}
    counts = uniform_counts(SMALL, (0, 0, 4))
    stages = {stage.name: stage.flops for stage in model_costs(SMALL, counts, **size)}
    from oasis_core.model.attention_window import window_mask

    pairs = int(window_mask((3, 6, 7), SMALL.window_size).sum())
    assert stages["window attention"] == 2 * 4 * SMALL.width * pairs


@pytest.mark.parametrize("decoder", ["wan", "tiny"])
@pytest.mark.parametrize("num_latents", [1, 3])
def test_decoders_equal_torchs_counter(decoder, num_latents):
    config = dataclasses.replace(SMALL, decoder=decoder)

    def decode(model, video):
        latent = torch.empty(1, 16, num_latents, 6, 5)
        part = model.wan_decoder if decoder == "wan" else model.tiny_decoder
        part(latent)

    expected = counted(config, uniform_counts(config, (4, 0, 0)), (1, 16, 16), decode)
    from oasis_core.model.cost import tiny_decoder_cost, wan_decoder_cost

    cost = wan_decoder_cost if decoder == "wan" else tiny_decoder_cost
    assert cost(4, (num_latents, 6, 5), 2).flops == expected


@pytest.mark.parametrize("num_frames", [1, 9])
def test_encoder_equals_torchs_counter(num_frames):
    config = dataclasses.replace(SMALL, stem="latent")
    size = (num_frames, 32, 48)
    counts = uniform_counts(config, (4, 0, 0))
    expected = counted(config, counts, size, lambda model, video: model.encoder(video))
    stages = model_costs(config, counts, num_frames=num_frames, height=32, width=48)
    assert stages[0].name == "encoder"
    assert stages[0].flops == expected


STREAMING = dataclasses.replace(
    INFVSR, width=48, num_layers=2, num_heads=4, ffn_width=64, text_channels=12, vae_width=4,
    tiny_width=4, tiny_encoder_width=4, visual_width=32,
)  # fmt: skip


@pytest.mark.parametrize("heads", [(4, 0, 0), (1, 3, 0)])
@pytest.mark.parametrize("num_latents", [1, 3, 4, 8])
def test_chunks_and_their_context_equal_torchs_counter(heads, num_latents):
    def predict(model, video):
        source = torch.empty(1, 16, num_latents, 6, 4)
        model.predict_latent(source, torch.empty(1, 145, 12))

    counts = uniform_counts(STREAMING, heads)
    expected = counted(STREAMING, counts, (1, 16, 16), predict)
    size = {"num_frames": 4 * num_latents - 3, "height": 48, "width": 32}
    assert transformer_flops(model_costs(STREAMING, counts, **size)) == expected


def test_the_visual_encoder_equals_torchs_counter():
    counts, size = uniform_counts(STREAMING, (4, 0, 0)), (5, 32, 48)
    expected = counted(STREAMING, counts, size, lambda model, video: model.context(video))
    stages = model_costs(STREAMING, counts, num_frames=5, height=32, width=48)
    assert [stage.name for stage in stages[:2]] == ["encoder", "visual encoder"]
    assert stages[1].flops == expected


@pytest.mark.parametrize("num_frames", [1, 9])
def test_the_tiny_encoder_equals_torchs_counter(num_frames):
    config = STREAMING.with_decoder("tiny-both")
    counts, size = uniform_counts(config, (4, 0, 0)), (num_frames, 32, 48)
    expected = counted(config, counts, size, lambda model, video: model.encode(video))
    stages = model_costs(config, counts, num_frames=num_frames, height=32, width=48)
    assert stages[0].name == "encoder"
    assert stages[0].flops == expected


def test_conv_model_equals_torchs_counter():
    counts = uniform_counts(OASIS_TINY, (6, 0, 0))
    expected = counted(OASIS_TINY, counts, (3, 32, 48), lambda model, video: model(video))
    stages = model_costs(OASIS_TINY, counts, num_frames=3, height=32, width=48)
    assert sum(stage.flops for stage in stages) == expected


@pytest.mark.parametrize(
    ("size", "heads", "transformer", "decoder"),
    [
        ((1280, 720), "4,4,4", 153.0, 261.8),
        ((1280, 720), "global", 274.7, 261.8),
        ((1920, 1088), "2,5,5", 396.5, 601.7),
        ((3840, 2160), "4,4,4", 6538.0, 2562.8),
    ],
)
def test_published_figures(size, heads, transformer, decoder):
    """Decoder: counted by others as well; transformer: theirs less the collapsed text keys."""
    counts, _ = routing_counts(OASIS_1_3B, None, heads)
    table = plan_table(OASIS_1_3B, counts, size=size, num_frames=33)
    assert table["transformer_tflop"] == pytest.approx(transformer, rel=1e-3)
    assert table["stages"][-1]["tflop"] == pytest.approx(decoder, rel=1e-3)


def test_plan_from_the_shell_needs_no_weights(capsys):
    command = ["bench", "--plan", "--model", "oasis-1.3b", "--frames", "33", "--json"]
    assert main([*command, "--decoder", "tiny", "--routing", "1,5,6"]) == 0
    table = json.loads(capsys.readouterr().out)["plan"]
    assert table["routing"] == "1,5,6"
    assert table["stages"][-1]["tflop"] == pytest.approx(10.94, abs=0.01)
    assert table["total_ratio_to_global"] > 2
    assert main([*command, "--routing", "1,2"]) == 1
    assert "like 4,4,4, got '1,2'" in capsys.readouterr().err
    assert main([*command, "--routing", "9,9,9"]) == 1
    assert "add up to 12" in capsys.readouterr().err
