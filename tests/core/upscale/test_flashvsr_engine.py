"""A shrunken FlashVSR through the engine: any length and size, segments, noise, memory, routing."""

import dataclasses

import av
import numpy as np
import pytest
import torch
from flashvsr_files import decoder_shapes
from infvsr_files import random_tensors

import oasis_core
from oasis_core.config import FLASHVSR
from oasis_core.families.restorer import Place
from oasis_core.families.wan_memory import MemoryModel
from oasis_core.geometry import plan_segments
from oasis_core.model.cost import model_costs, uniform_counts
from oasis_core.model.denoiser import build_model
from oasis_core.model.live_bytes import LiveTensorBytes
from oasis_core.model.routing import HeadPattern, HeadRouting, calibrate
from oasis_core.upscale import Look, VideoUpscaler, upscale_file

SMALL = dataclasses.replace(
    FLASHVSR, name="small-flashvsr", width=48, num_layers=2, num_heads=4, ffn_width=64,
    num_context_keys=3, projector_width=4, vae_width=4, tiny_width=4,
)  # fmt: skip


def random_model(config=SMALL, seed=0):
    """Every tensor random, at a size that neither fades away nor explodes."""
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        is_gain = ("norm" in name or "gamma" in name) and not name.endswith("bias")
        parameter.copy_(1 + 0.1 * noise if is_gain else scale * noise)
    if model.tiny_decoder is not None:
        model.tiny_decoder.conv_out.weight.mul_(0.3)
        model.tiny_decoder.conv_out.bias.fill_(0.4)
    return model


@pytest.fixture(scope="module")
def upscaler():
    return VideoUpscaler(random_model(), device="cpu")


def test_segments_begin_with_the_first_call_of_a_clip(upscaler):
    traits = upscaler.traits
    assert traits.stride == (4, 128, 128)
    assert (traits.lead_frames, traits.segment_multiple, traits.halo_frames) == (21, 8, 4)
    plan = upscaler.plan((320, 180), (1280, 720), num_frames=1000)
    assert plan.segment_frames % 8 == 0
    assert plan.segment_frames > 48
    assert (plan.lead_frames, plan.halo_frames) == (21, 4)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 17, 21, 22, 25, 29, 30, 41, 60])
def test_frames_in_are_frames_out_at_odd_sizes(upscaler, num_frames):
    video = torch.rand(1, 3, num_frames, 9, 13, generator=torch.Generator().manual_seed(num_frames))
    options = {"size": (41, 27), "shots": False}
    out = upscaler.upscale(video, segment_frames=8, **options)
    plain = upscaler.upscale(video, strength=0, **options)
    assert out.shape == (1, 3, num_frames, 27, 41)
    assert (out - plain).abs().mean(dim=(0, 1, 3, 4)).min() > 0.005


def test_shots_know_nothing_of_each_other(upscaler):
    """But the noise, which belongs to a frame's number, so the second is told where it lies."""
    generator = torch.Generator().manual_seed(1)
    first = (0.2 * torch.rand(1, 3, 1, 36, 64, generator=generator)).repeat(1, 1, 16, 1, 1)
    second = (1 - 0.2 * torch.rand(1, 3, 1, 36, 64, generator=generator)).repeat(1, 1, 23, 1, 1)
    joined = upscaler.upscale(torch.cat([first, second], dim=2), scale=1, segment_frames=8)
    plan = upscaler.plan((64, 36), (64, 36), segment_frames=8, num_frames=39)
    segments = upscaler.segment_upscaler(Look(width=64, height=36), plan)
    frames, alone = list(second[0].unbind(1)), []
    for s in plan_segments(23, 8, plan.halo_frames, lead_frames=21, multiple=8):
        read = frames[s.read_start : s.read_stop]
        alone += list(segments.run(read, s.keep, first=16 + s.start))
    assert torch.equal(joined[0, :, 16:], torch.stack(alone, dim=1))
    elsewhere = upscaler.upscale(second, scale=1, segment_frames=8)
    assert (joined[:, :, 16:] - elsewhere).abs().max() > 1e-3


def test_a_segment_is_the_same_twice_and_in_another_order(upscaler):
    frames = list(torch.rand(3, 50, 16, 32, generator=torch.Generator().manual_seed(2)).unbind(1))
    plan = upscaler.plan((32, 16), (32, 16), segment_frames=8)
    planned = plan_segments(50, 8, plan.halo_frames, lead_frames=21, multiple=8)
    assert len(planned) > 2

    def run(segment):
        segments = upscaler.segment_upscaler(Look(width=32, height=16), plan)
        read = frames[segment.read_start : segment.read_stop]
        return torch.stack(list(segments.run(read, segment.keep, first=segment.start)))

    once = [run(segment) for segment in planned]
    again = [run(segment) for segment in reversed(planned)]
    assert all(torch.equal(a, b) for a, b in zip(once, reversed(again), strict=True))
    assert sum(len(pixels) for pixels in once) == 50


def decode(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_resumed_run_is_the_uninterrupted_one(upscaler, tmp_path, write_video):
    source = write_video(lengths=(46,), width=32, height=16)
    options = {"scale": 1, "segment_frames": 8, "codec": "ffv1", "shots": False}
    upscale_file(source, tmp_path / "straight.mkv", upscaler=upscaler, **options)

    def stop(done, total):
        if done > 30:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upscale_file(
            source, tmp_path / "resumed.mkv", upscaler=upscaler, on_progress=stop, **options
        )
    report = upscale_file(source, tmp_path / "resumed.mkv", upscaler=upscaler, **options)
    assert report.num_resumed_segments > 0
    resumed, straight = (decode(tmp_path / f"{name}.mkv") for name in ("resumed", "straight"))
    assert len(straight) == 46
    assert all(np.array_equal(a, b) for a, b in zip(resumed, straight, strict=True))


def test_noise_is_that_of_the_place(upscaler):
    """A piece of the frames or of the picture reads the noise that the whole reads there."""
    model, clip = upscaler.model, torch.zeros(1, 3, 29, 256, 384)
    whole = model.encode(clip)
    assert whole.shape == (1, 16, 8, 32, 48)
    later = model.encode(clip[:, :, :21], at=(8, 0, 0))
    assert torch.equal(later, whole[:, :, 2:])
    tile = model.encode(clip[..., 128:, 128:256], at=(0, 128, 128))
    assert torch.equal(tile, whole[..., 16:, 16:32])
    restorer = upscaler.restorer
    video = torch.rand(1, 3, 5, 128, 128, generator=torch.Generator().manual_seed(3))
    places = [Place(first_frame=f, top=0, left=left) for f, left in ((0, 0), (0, 128), (8, 0))]
    with torch.inference_mode():
        first, left, later = (restorer.restore(video, place) for place in places)
        latents = [restorer.predict_latent(video[..., :112, :80], place) for place in places]
    assert (first - left).abs().max() > 1e-3
    assert (first - later).abs().max() > 1e-3
    assert [tuple(x.shape) for x in latents] == [(1, 16, 2, 14, 10)] * 3
    assert not torch.equal(latents[0], latents[1])


@pytest.mark.parametrize("decoder", ["wan", "tiny"])
def test_either_decoder_is_chosen_and_identified(tmp_path, decoder):
    model = random_model()
    path = tmp_path / "model.safetensors"
    routing = HeadRouting.all_global(2, 4, SMALL.window_size)
    oasis_core.checkpoint.save_checkpoint(path, model, routing, {"licence": "none"})
    upscaler = oasis_core.load(path, device="cpu", decoder=decoder)
    used = {name for name, part in upscaler.model.named_children() if part is not None}
    assert ("wan_decoder" in used) == (decoder == "wan")
    assert ("tiny_decoder" in used) == (decoder == "tiny")
    assert upscaler.model_hash.endswith(f"-{decoder}")
    video = torch.rand(1, 3, 6, 9, 13, generator=torch.Generator().manual_seed(0))
    out = upscaler.upscale(video, size=(41, 27), shots=False)
    assert out.shape == (1, 3, 6, 27, 41)
    with pytest.raises(oasis_core.checkpoint.CheckpointError, match="decoder must be one that"):
        oasis_core.load(path, device="cpu", decoder="tiny-both")


def test_memory_is_known_before_it_is_used():
    # Wide and many blocks, so that the keys they keep of the frames before are what counts.
    config = dataclasses.replace(SMALL, width=192, num_layers=8, ffn_width=192, vae_width=0)
    model = random_model(config)
    predict = MemoryModel(model.config, 4)
    size = (29, 128, 256)
    noise = torch.randn(1, 16, 8, 16, 32)
    guide = torch.randn(1, 8, 8, 16, 192)
    with torch.inference_mode(), LiveTensorBytes() as live:
        model.transformer(noise, guide=guide)
    tokens = 6 * 8 * 16
    expected = predict.rates.per_token * tokens + predict._kept_keys(tokens)
    assert predict._kept_keys(tokens) > 0.5 * expected
    assert 0.75 <= live.peak / expected <= 1.25
    with torch.inference_mode(), LiveTensorBytes() as live:
        model(torch.rand(1, 3, *size))
    assert 0.7 <= live.peak / predict(*size) <= 1.3


def test_costs_count_whole_chunks_and_blocks():
    options = {"num_frames": 3, "height": 100, "width": 200}
    small = model_costs(SMALL, uniform_counts(SMALL, (4, 0, 0)), **options)
    names = [stage.name for stage in small]
    assert names[0] == "projector"
    assert names[-1] == "decoder"
    padded = {"num_frames": 21, "height": 128, "width": 256}
    assert [x.flops for x in small] == [
        x.flops for x in model_costs(SMALL, uniform_counts(SMALL, (4, 0, 0)), **padded)
    ]


def test_heads_are_measured_against_the_chosen_blocks_and_routed(upscaler):
    config = dataclasses.replace(SMALL, sparse_ratio=0.05)
    model = random_model(config)
    clip = torch.rand(1, 3, 29, 128, 256, generator=torch.Generator().manual_seed(4))
    routing = calibrate(model, [clip], num_queries=16)
    distances = routing.distances
    assert distances.grid == (8, 8, 16)
    values = torch.tensor(distances.raw)
    assert values.shape == (2, 4, 2)
    assert (values > 0).all()
    assert values.max() <= 9.3  # a query that keeps less than a ten-thousandth counts as that
    assert routing.window == (3, 5, 5)
    row = tuple(HeadPattern(kind) for kind in (2, 0, 1, 2))
    local = HeadRouting(patterns=(row, row), window=(3, 5, 5))
    noise, guide = model.encode(clip), model.guide(clip)
    with torch.inference_mode():
        before = model.predict_latent(noise, guide=guide)
        model.transformer.apply_routing(local)
        after = model.predict_latent(noise, guide=guide)
        model.transformer.apply_routing(HeadRouting.all_global(2, 4, (3, 5, 5)))
        again = model.predict_latent(noise, guide=guide)
    assert (after - before).abs().max() > 1e-3
    assert (again - before).abs().max() <= 1e-4


def test_shapes_of_the_files_are_those_of_the_model():
    state = random_model().tiny_decoder.state_dict()
    files = random_tensors(decoder_shapes(4))
    assert sorted(tuple(x.shape) for x in state.values()) == sorted(
        tuple(x.shape) for x in files.values()
    )
