"""A shrunken InfVSR through the engine: its public files, any length and size, memory, routing."""

import dataclasses

import av
import numpy as np
import pytest
import torch
from infvsr_files import REFERENCE, public_tensors, write_files

import oasis_core
from oasis_core.config import INFVSR
from oasis_core.convert.infvsr import InfvsrFiles, convert_infvsr
from oasis_core.families.wan_memory import MemoryModel
from oasis_core.geometry import plan_segments
from oasis_core.model.denoiser import build_model
from oasis_core.model.live_bytes import LiveTensorBytes
from oasis_core.upscale import Look, VideoUpscaler, upscale_file

SMALL = dataclasses.replace(
    INFVSR, name="small-infvsr", width=48, num_layers=2, num_heads=4, ffn_width=64,
    text_channels=12, vae_width=4, tiny_width=4, tiny_encoder_width=4, visual_width=32,
)  # fmt: skip


def decode(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def random_model(config=SMALL, seed=0):
    model = build_model(config, seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        is_gain = "norm" in name and not name.endswith("bias")
        parameter.copy_(1 + 0.1 * noise if is_gain else scale * noise)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    write_files(folder, public_tensors())
    files = InfvsrFiles(
        transformer=folder / "InfVSR.ckpt",
        visual=folder / "ram_swin_large_14m.pth",
        visual_lora=folder / "DAPE.pth",
        vae=folder / "Wan2.1_VAE.pth",
        tiny=folder / "taew2_1.pth",
    )
    out = folder / "infvsr.safetensors"
    convert_infvsr(files, out, dtype=torch.float32, reference=REFERENCE)
    return out


STORED = dataclasses.replace(SMALL, visual_width=0, text_channels=0, num_context_keys=3)
"""The same, guided by a stored context in place of the first frame's: fast."""


@pytest.fixture(scope="module")
def upscaler():
    model = random_model(STORED)
    model.choose_decoder("tiny-both")
    return VideoUpscaler(model, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["wan", "tiny", "tiny-both"])
def test_from_public_files_to_pixels(checkpoint, clip, decoder):
    upscaler = oasis_core.load(checkpoint, device="cpu", decoder=decoder)
    used = {name for name, part in upscaler.model.named_children() if part is not None}
    assert ("encoder" in used) == (decoder != "tiny-both")
    assert ("tiny_encoder" in used) == (decoder == "tiny-both")
    assert upscaler.model_hash.endswith(f"-{decoder}")
    video = clip(6, 9, 13)
    out = upscaler.upscale(video, size=(41, 27), shots=False)
    plain = upscaler.upscale(video, size=(41, 27), strength=0)
    assert out.shape == (1, 3, 6, 27, 41)
    assert 0.01 < (out - plain).abs().mean() < 0.5


@pytest.mark.slow
def test_memory_is_known_before_it_is_used():
    # Wide and many blocks, so that the keys they keep of the chunk before are what counts.
    config = dataclasses.replace(SMALL, width=192, num_layers=8, ffn_width=192)
    model = random_model(config)
    model.choose_decoder("tiny-both")
    predict = MemoryModel(model.config, 4)
    size = (17, 64, 96)
    source = torch.randn(1, 16, 1 + size[0] // 4, size[1] // 8, size[2] // 8)
    with torch.inference_mode(), LiveTensorBytes() as live:
        model.transformer(source, context=torch.zeros(1, 145, 12))
    tokens = 3 * size[1] * size[2] // 256
    kept = predict._kept_keys(tokens) + predict._kept_keys(145)
    expected = predict.rates.per_token * tokens + kept
    assert kept > 0.6 * expected
    assert 0.75 <= live.peak / expected <= 1.25
    assert predict(*size) >= predict.rates.visual > 0


def test_segments_lie_on_the_grid_of_chunks(upscaler):
    traits = upscaler.traits
    assert traits.stride == (4, 16, 16)
    assert (traits.lead_frames, traits.segment_multiple, traits.halo_frames) == (9, 12, 3)
    plan = upscaler.plan((320, 180), (1280, 720))
    assert plan.segment_frames % 12 == 0
    assert (plan.lead_frames, plan.halo_frames) == (9, 4)
    lengths = []
    with torch.inference_mode():
        hook = upscaler.model.register_forward_pre_hook(
            lambda module, inputs: lengths.append(inputs[0].shape[2])
        )
        frames = torch.rand(1, 3, 60, 16, 16)
        upscaler.upscale(frames, scale=1, segment_frames=12, shots=False)
        hook.remove()
    # 9 + 12 + 4 at first; then 9 before, 12 or fewer, and 4 behind where there are any.
    assert lengths[:3] == [25, 25, 25]
    assert all(length % 4 == 1 for length in lengths)


@pytest.mark.parametrize("num_frames", [1, 2, 8, 9, 10, 21, 22, 33, 47, 60])
def test_frames_in_are_frames_out_at_odd_sizes(upscaler, num_frames):
    video = torch.rand(1, 3, num_frames, 9, 13, generator=torch.Generator().manual_seed(num_frames))
    options = {"size": (41, 27), "shots": False}
    out = upscaler.upscale(video, segment_frames=12, **options)
    plain = upscaler.upscale(video, strength=0, **options)
    assert out.shape == (1, 3, num_frames, 27, 41)
    changes = (out - plain).abs().mean(dim=(0, 1, 3, 4))
    assert changes.min() > 0.005


def test_shots_know_nothing_of_each_other(upscaler):
    generator = torch.Generator().manual_seed(1)
    first = (0.2 * torch.rand(1, 3, 1, 36, 64, generator=generator)).repeat(1, 1, 14, 1, 1)
    second = (1 - 0.2 * torch.rand(1, 3, 1, 36, 64, generator=generator)).repeat(1, 1, 23, 1, 1)
    joined = upscaler.upscale(torch.cat([first, second], dim=2), scale=1, segment_frames=12)
    alone = upscaler.upscale(second, scale=1, segment_frames=12)
    assert torch.equal(joined[:, :, 14:], alone)


def test_a_segment_is_the_same_twice_and_in_another_order(upscaler):
    frames = list(torch.rand(3, 50, 16, 32, generator=torch.Generator().manual_seed(2)).unbind(1))
    plan = upscaler.plan((32, 16), (32, 16), segment_frames=12)
    planned = plan_segments(50, 12, plan.halo_frames, lead_frames=9, multiple=12)
    assert len(planned) > 2

    def run(segment):
        segments = upscaler.segment_upscaler(Look(width=32, height=16), plan)
        read = frames[segment.read_start : segment.read_stop]
        return torch.stack(list(segments.run(read, segment.keep, first=segment.start)))

    once = [run(segment) for segment in planned]
    again = [run(segment) for segment in reversed(planned)]
    assert all(torch.equal(a, b) for a, b in zip(once, reversed(again), strict=True))
    assert sum(len(pixels) for pixels in once) == 50


def test_a_resumed_run_is_the_uninterrupted_one(upscaler, tmp_path, write_video):
    source = write_video(lengths=(46,), width=32, height=16)
    options = {"scale": 1, "segment_frames": 12, "codec": "ffv1", "shots": False}
    upscale_file(source, tmp_path / "straight.mkv", upscaler=upscaler, **options)

    def stop(done, total):
        if done > 22:
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


def test_segments_are_guided_by_the_first_frame_of_their_shot(monkeypatch):
    """In whichever order, in memory, from frames and tile by tile; not by that of another shot."""
    model = random_model(dataclasses.replace(SMALL, vae_width=0, encoder="tiny", decoder="tiny"))
    upscaler = VideoUpscaler(model, device="cpu")
    assert upscaler.traits.wants_opening
    seen = []

    def context(picture):
        seen.append(picture)
        return torch.zeros(len(picture), 145, 12)

    monkeypatch.setattr(model, "visual", None)  # 24 blocks a call, for nothing here
    monkeypatch.setattr(model, "context", lambda video: context(video[:, :, 0]))
    generator = torch.Generator().manual_seed(1)
    first = (0.2 * torch.rand(1, 3, 1, 36, 64, generator=generator)).repeat(1, 1, 30, 1, 1)
    second = (1 - 0.2 * torch.rand(1, 3, 1, 36, 64, generator=generator)).repeat(1, 1, 30, 1, 1)
    clip = torch.cat([first, second], dim=2) * torch.linspace(0.9, 1, 60).view(1, 1, -1, 1, 1)
    upscaler.upscale(clip, scale=1, segment_frames=12)
    assert len(seen) == 4  # two segments of each shot
    shown = [picture[0, :, :36, :64] for picture in seen]
    for index, start in enumerate((0, 0, 30, 30)):
        assert (shown[index] - clip[0, :, start]).abs().max() < 1e-5
    seen.clear()
    frames = [(f * 255).round().byte().permute(1, 2, 0).numpy() for f in clip[0].unbind(1)]
    assert len(list(upscaler.upscale_frames(frames, scale=1, segment_frames=12))) == 60
    assert [round(float(x[0, :, :36, :64].mean()), 2) for x in seen] == [
        round(float(clip[0, :, start].mean()), 2) for start in (0, 0, 30, 30)
    ]
    seen.clear()
    upscaler.upscale(clip[:, :, 30:], size=(128, 36), segment_frames=12, tile_px=64, shots=False)
    assert len(seen) == 2 * (len(seen) // 2) > 2
    half = len(seen) // 2  # tiles of the first segment, and of the second: the same pictures
    assert all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))
    assert not torch.equal(seen[0], seen[1])


@pytest.fixture(scope="module")
def gentle():
    """Small random weights, as those of a trained model are."""
    model = random_model(STORED)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("tiny"):
            parameter.mul_(0.5)
    model.choose_decoder("tiny-both")
    return VideoUpscaler(model, device="cpu")


def test_grey_shows_no_border_of_segments_and_chunks(gentle):
    grey = torch.full((1, 3, 69, 32, 48), 0.5)
    options = {"scale": 1, "color_anchor": False, "shots": False, "segment_frames": 12}
    out = gentle.upscale(grey, **options)
    # A decoder of random weights makes the frames of a latent unlike; a chunk later they are alike.
    steps = (out[:, :, 12:] - out[:, :, :-12]).abs().amax(dim=(0, 1, 3, 4))
    assert steps[:9].max() > 0.05  # a fresh start is another matter
    assert steps[21:].max() <= 1e-5


def test_grey_shows_no_border_of_tiles(gentle):
    grey = torch.full((1, 3, 9, 64, 400), 0.5)
    seams = {}
    for tile_px in (256, 128):
        options = {"scale": 1, "color_anchor": False, "shots": False, "tile_px": tile_px}
        assert gentle.plan((400, 64), (400, 64), tile_px=tile_px).num_tiles > 1
        middle = gentle.upscale(grey, **options)[..., 24:40, 100:308]
        # A head of random weights makes the pixels of a token unlike; a token later they are alike.
        seams[tile_px] = (middle[..., 16:] - middle[..., :-16]).abs().max()
    assert seams[256] <= 0.5 / 255
    assert seams[128] > 5 * seams[256]  # tiles that cannot overlap by all that is planned
