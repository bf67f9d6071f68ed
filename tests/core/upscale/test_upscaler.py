import logging
import random

import pytest
import torch
import torch.nn.functional as F

import oasis_core
from oasis_core.sizes import target_size
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.segment import Look
from oasis_core.video.pixels import frame_to_tensor, tensor_to_frame


def upscaler_of(model):
    return VideoUpscaler(model, device="cpu", dtype="float32")


def psnr_db(first, second):
    return -10 * torch.log10((first - second).square().mean()).item()


def plain_resize(video, height, width):
    frames = [
        F.interpolate(video[:, :, t], (height, width), mode="bicubic", antialias=True)
        for t in range(video.shape[2])
    ]
    return torch.stack(frames, dim=2).clamp(0, 1)


@pytest.mark.parametrize("stride", [(1, 8, 8), (4, 16, 16)])
def test_any_number_of_frames(clip, conv_model, stride):
    conv_model.config = type(conv_model.config)(token_stride=stride)
    upscaler = upscaler_of(conv_model)
    for num_frames in range(1, 41):
        out = upscaler.upscale(clip(num_frames, 8, 8), scale=2, segment_frames=7, halo_frames=2)
        assert out.shape == (1, 3, num_frames, 16, 16)
        assert torch.isfinite(out).all()


def test_any_size_and_scale(clip, conv_model):
    upscaler = upscaler_of(conv_model)
    stream = random.Random(0)
    sizes = [(8, 8), (9, 17), (8, 65), (97, 8), (33, 31), (53, 59), (16, 16)]
    sizes += [(stream.randint(8, 70), stream.randint(8, 70)) for _ in range(95)]
    for height, width in sizes:
        scale = stream.choice([0.9, 1, 1.1, 1.5, 2, 3, 4])
        if min(height, width) * scale < 8:
            scale = 1
        out = upscaler.upscale(clip(1, height, width), scale=scale, tile_px=64)
        expected = target_size(width, height, scale=scale)
        assert out.shape == (1, 3, 1, expected[1], expected[0])


def test_exact_size_and_batch(clip, conv_model):
    video = torch.cat([clip(3, 20, 30, seed=1), clip(3, 20, 30, seed=2)])
    out = upscaler_of(conv_model).upscale(video, size=(77, 41), shots=False)
    assert out.shape == (2, 3, 3, 41, 77)
    alone = upscaler_of(conv_model).upscale(video[1:], size=(77, 41), shots=False)
    assert torch.equal(out[1:], alone)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 4])
@pytest.mark.parametrize(("y", "x"), [(0, 0), (11, 17), (22, 36), (5, 0)])
def test_a_marker_stays_where_it_is(point_model, scale, y, x):
    video = torch.zeros(1, 3, 1, 23, 37)
    video[..., y, x] = 1
    out = upscaler_of(point_model).upscale(video, scale=scale, tile_px=32, color_anchor=False)
    weights = out[0].mean(dim=(0, 1)).square()
    height, width = weights.shape
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    found_y = (weights.sum(1) * rows).sum() / weights.sum()
    found_x = (weights.sum(0) * columns).sum() / weights.sum()
    # At the border the resize can only spread inwards, so the centre moves by its clipped tail.
    allowed = 0.5 if 0 < y < 22 and 0 < x < 36 else 0.5 * scale
    assert abs(found_y - (y + 0.5) * height / 23) <= allowed
    assert abs(found_x - (x + 0.5) * width / 37) <= allowed


@pytest.mark.parametrize("tile_px", [None, 32])
@pytest.mark.parametrize("level", [0.0, 0.2, 0.5, 1.0])
def test_grey_stays_grey_including_corners(point_model, tile_px, level):
    video = torch.full((1, 3, 5, 31, 45), level)
    out = upscaler_of(point_model).upscale(video, scale=2.5, tile_px=tile_px)
    assert (out - level).abs().max() <= 1 / 255


def test_constant_is_constant_without_the_anchor(point_model):
    video = torch.full((1, 3, 2, 31, 45), 0.5)
    upscaler = upscaler_of(point_model)
    whole = upscaler.upscale(video, scale=2.5, color_anchor=False)
    tiled = upscaler.upscale(video, scale=2.5, color_anchor=False, tile_px=32)
    assert (whole - 0.575).abs().max() < 1e-5
    assert (tiled - 0.575).abs().max() < 1e-5


def test_tiled_equals_untiled(clip, conv_model, point_model):
    video = clip(4, 50, 60)
    for model, least_db in ((point_model, 120), (conv_model, 60)):
        upscaler = upscaler_of(model)
        whole = upscaler.upscale(video, scale=4)
        tiled = upscaler.upscale(video, scale=4, tile_px=128)
        assert not torch.equal(whole, tiled)  # the tiles are real
        assert psnr_db(whole, tiled) > least_db


def test_segments_equal_one_long_segment(clip, conv_model):
    """The model looks one frame away and the anchor two, so a halo of 4 hides every boundary."""
    upscaler = upscaler_of(conv_model)
    video = clip(40, 24, 24)
    whole = upscaler.upscale(video, scale=2, segment_frames=40)
    for length in (1, 7, 17, 33):
        parts = upscaler.upscale(video, scale=2, segment_frames=length)
        assert (parts - whole).abs().max() < 1e-5


def test_strength_zero_is_exactly_the_plain_resize(clip, conv_model):
    video = clip(3, 33, 47)
    out = upscaler_of(conv_model).upscale(video, size=(131, 77), strength=0)
    assert torch.equal(out, plain_resize(video, 77, 131))


def test_strength_is_monotone_and_linear(clip, conv_model):
    upscaler, video = upscaler_of(conv_model), clip(3, 32, 32) * 0.6 + 0.2
    results = [upscaler.upscale(video, scale=2, strength=s / 4) for s in range(5)]
    distances = [(out - results[0]).square().mean().item() for out in results]
    assert distances == sorted(distances)
    assert distances[1] > 0
    assert torch.allclose(results[2], (results[0] + results[4]) / 2, atol=1e-5)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_strength_out_of_range_is_refused(clip, conv_model, strength):
    with pytest.raises(ValueError, match="strength must be between 0 and 1"):
        upscaler_of(conv_model).upscale(clip(1, 16, 16), scale=2, strength=strength)


def test_second_shot_is_identical_to_itself_alone(clip, conv_model):
    first, second = clip(11, 36, 64), clip(14, 36, 64, seed=3).flip(3).flip(1) ** 3
    joined = torch.cat([first, second], dim=2)
    upscaler = upscaler_of(conv_model)
    together = upscaler.upscale(joined, scale=2, segment_frames=5)
    alone = upscaler.upscale(second, scale=2, segment_frames=5)
    assert torch.equal(together[:, :, 11:], alone)
    off = upscaler.upscale(joined, scale=2, segment_frames=5, shots=False)
    assert not torch.equal(off[:, :, 11:], alone)


def test_same_call_gives_the_same_bytes(clip, conv_model):
    video = clip(6, 40, 40)
    results = [upscaler_of(conv_model).upscale(video, scale=2, tile_px=64) for _ in range(2)]
    assert torch.equal(*results)


def test_progress_counts_frames_and_ends_at_all(clip, conv_model):
    calls = []
    upscaler_of(conv_model).upscale(
        clip(13, 40, 40),
        scale=2,
        tile_px=48,
        segment_frames=5,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == (13, 13)
    assert len(calls) > 13  # several per segment: every tile reports


def test_progress_may_stop_the_work(clip, conv_model):
    class StopError(Exception):
        pass

    def stop(done, total):
        raise StopError

    upscaler = upscaler_of(conv_model)
    with pytest.raises(StopError):
        upscaler.upscale(clip(3, 16, 16), scale=2, on_progress=stop)
    assert upscaler.upscale(clip(3, 16, 16), scale=2).shape == (1, 3, 3, 32, 32)


class BrokenIn(torch.nn.Module):
    """Wraps a model and turns one value of its result into NaN in the given dtypes."""

    def __init__(self, model, dtypes):
        super().__init__()
        self.model, self.dtypes, self.config = model, dtypes, model.config

    def forward(self, video):
        residual = self.model(video)
        if residual.dtype in self.dtypes:
            residual = residual.clone()
            residual[0, 1, -1, 3, 4] = float("nan")
        return residual


@pytest.mark.parametrize("color_anchor", [True, False])
def test_nan_in_low_precision_is_repeated_in_float32(clip, conv_model, color_anchor, caplog):
    video = clip(3, 16, 16)
    broken = BrokenIn(conv_model, {torch.bfloat16})
    upscaler = VideoUpscaler(broken, device="cpu", dtype="bfloat16")
    out = upscaler.upscale(video, scale=2, color_anchor=color_anchor)
    expected = upscaler_of(conv_model).upscale(video, scale=2, color_anchor=color_anchor)
    assert torch.equal(out, expected)
    assert "repeating in float32" in caplog.text


class BrokenOnce(torch.nn.Module):
    """Wraps a model and turns one value of one frame of its n-th result into NaN."""

    def __init__(self, model, number, frame):
        super().__init__()
        self.model, self.config, self.left, self.frame = model, model.config, number, frame

    def forward(self, video):
        self.left -= 1
        residual = self.model(video)
        if self.left == 0:
            residual[0, 1, self.frame, 3, 4] = float("nan")
        return residual


@pytest.mark.parametrize("frame", [0, 2, -1])
def test_nan_that_comes_once_is_repeated_wherever_it_is(clip, conv_model, frame, caplog):
    video, options = clip(12, 16, 16), {"scale": 2, "segment_frames": 4}
    broken = upscaler_of(BrokenOnce(conv_model, 2, frame))
    out = broken.upscale(video, **options)
    assert torch.equal(out, upscaler_of(conv_model).upscale(video, **options))
    assert "repeating in float32" in caplog.text


@pytest.mark.parametrize("tile_px", [None, 32])
def test_nan_that_stays_is_refused_with_the_frame_number(clip, conv_model, tile_px):
    broken = BrokenIn(conv_model, {torch.bfloat16, torch.float32})
    upscaler = VideoUpscaler(broken, device="cpu", dtype="bfloat16")
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinity in frame\(s\) 4 "):
        upscaler.upscale(
            clip(5, 24, 24), scale=2, tile_px=tile_px, segment_frames=5, color_anchor=False
        )


class OutOfMemoryOnce(torch.nn.Module):
    """Fails as an allocator would whenever a tile is larger than the limit."""

    def __init__(self, model, error, limit_px):
        super().__init__()
        self.model, self.error, self.limit_px, self.config = model, error, limit_px, model.config
        self.seen = []

    def forward(self, video):
        self.seen.append(tuple(video.shape[2:]))
        if len(self.seen) > 2 and max(video.shape[3:]) > self.limit_px:
            raise self.error
        return self.model(video)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)("CUDA out of memory."),
    ],
)
def test_out_of_memory_repeats_only_that_segment_in_smaller_tiles(clip, conv_model, error, caplog):
    video = clip(20, 32, 32)
    model = OutOfMemoryOnce(conv_model, error, limit_px=40)
    upscaler = upscaler_of(model)
    upscaler._model_bytes = 100.0  # the probe would count as a call
    with caplog.at_level(logging.WARNING):
        out = upscaler.upscale(video, scale=2, segment_frames=5, halo_frames=0, shots=False)
    assert model.seen[:3] == [(5, 64, 64)] * 3  # two good segments, then the failure
    assert model.seen[3] == (5, 64, 32)  # still too high
    assert set(model.seen[4:]) == {(5, 32, 32)}  # only smaller tiles from there on
    assert caplog.text.count("repeating this segment in 32x32 tiles") == 1
    plain = upscaler_of(conv_model)
    whole = plain.upscale(video, scale=2, segment_frames=5, halo_frames=0, shots=False)
    small = plain.upscale(video, scale=2, segment_frames=5, halo_frames=0, shots=False, tile_px=32)
    assert torch.equal(out[:, :, :10], whole[:, :, :10])
    assert torch.equal(out[:, :, 10:], small[:, :, 10:])


def test_out_of_memory_for_every_tile_is_one_sentence(clip, conv_model):
    upscaler = upscaler_of(OutOfMemoryOnce(conv_model, MemoryError(), limit_px=1))
    upscaler._model_bytes = 100.0
    with pytest.raises(ValueError, match="memory must hold one tile of 16x16 px and 1 frames"):
        upscaler.upscale(clip(9, 32, 32), scale=2, segment_frames=1, halo_frames=0)


def test_other_errors_of_the_model_are_not_swallowed(clip, conv_model):
    upscaler = upscaler_of(OutOfMemoryOnce(conv_model, RuntimeError("size mismatch"), 1))
    upscaler._model_bytes = 100.0
    with pytest.raises(RuntimeError, match="size mismatch"):
        upscaler.upscale(clip(9, 32, 32), scale=2, segment_frames=1)


@pytest.mark.parametrize(
    ("video", "text"),
    [
        (torch.rand(3, 1, 16, 16), "b 3 t h w"),
        (torch.rand(1, 4, 1, 16, 16), "b 3 t h w"),
        (torch.rand(1, 3, 0, 16, 16), "no empty axis"),
        (torch.zeros(1, 3, 1, 16, 16, dtype=torch.uint8), "must be float"),
        (torch.full((1, 3, 1, 16, 16), float("nan")), "must be finite"),
    ],
)
def test_bad_clips_are_refused(conv_model, video, text):
    with pytest.raises(ValueError, match=text):
        upscaler_of(conv_model).upscale(video, scale=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (7, 2)])
def test_the_smallest_pictures_are_filled_up_inside(size):
    upscaler = oasis_core.load(device="cpu", dtype="float32")
    colour = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1, 1)
    flat = upscaler.upscale(colour.expand(1, 3, 2, *size), scale=4)
    assert flat.shape == (1, 3, 2, 4 * size[0], 4 * size[1])
    assert (flat - colour).abs().max() < 2 / 255
    noise = torch.rand(1, 3, 2, *size, generator=torch.Generator().manual_seed(0))
    result = upscaler.upscale(noise, scale=4)
    assert (result.mean((2, 3, 4)) - noise.mean((2, 3, 4))).abs().max() < 0.02
    assert upscaler.upscale(noise, scale=0.5).shape[3:] == tuple(-(-side // 2) for side in size)


def test_results_too_large_for_memory_are_refused_before_any_work(clip, conv_model):
    with pytest.raises(ValueError, match=r"GiB .* are free; upscale from file to file"):
        upscaler_of(conv_model).upscale(clip(30, 16, 16), size=(30000, 30000))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tile_px": 8}, "tile_px must be at least 16"),
        ({"segment_frames": 0}, "segment_frames must be at least 1"),
        ({"halo_frames": -1}, "halo_frames must be at least 0"),
        ({"scale": float("nan")}, "scale must be a finite number"),
    ],
)
def test_bad_arguments_are_refused(clip, conv_model, arguments, text):
    with pytest.raises(ValueError, match=text):
        upscaler_of(conv_model).upscale(clip(1, 16, 16), **{"scale": 2, **arguments})


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_survive_the_round_trip(dtype):
    import numpy as np

    full_scale = np.iinfo(dtype).max
    values = np.arange(full_scale + 1, dtype=dtype)
    pixels = np.stack([values, values[::-1], np.roll(values, 7)], axis=-1).reshape(16, -1, 3)
    video = frame_to_tensor(pixels, torch.device("cpu"))
    assert video.shape == (1, 3, *pixels.shape[:2])
    assert (tensor_to_frame(video[0], pixels.dtype) == pixels).all()


def test_look_is_a_value():
    assert Look(width=8, height=8) == Look(width=8, height=8, strength=1.0, color_anchor=True)


def test_frames_stream_through_as_a_clip_in_memory_would(clip, conv_model):
    upscaler = upscaler_of(conv_model)
    video = (torch.cat([clip(7, 36, 64), clip(6, 36, 64, seed=3).flip(3) ** 3], 2) * 255).round()
    frames = [f.permute(1, 2, 0).to(torch.uint8).numpy() for f in video[0].unbind(1)]
    taken = []

    def source():
        for frame in frames:
            taken.append(frame)
            yield frame

    stream = upscaler.upscale_frames(source(), scale=2, segment_frames=2, halo_frames=1)
    results = [next(stream)]
    assert len(taken) < len(frames)  # it does not wait for the end
    results += stream
    whole = upscaler.upscale(video / 255, scale=2, segment_frames=2, halo_frames=1)
    expected = [tensor_to_frame(f.clone(), frames[0].dtype) for f in whole[0].unbind(1)]
    assert all((a == b).all() for a, b in zip(results, expected, strict=True))
    assert list(upscaler.upscale_frames([], scale=2)) == []
