"""A family that reads the source at its own scale, through the engine to any size."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from oasis_core.upscale import Look, VideoUpscaler, upscale_file
from oasis_core.upscale.color_anchor import ColorAnchor
from oasis_core.video.pixels import resize

CPU = torch.device("cpu")
SIZES = {
    "4x": ((128, 72), ""),
    "2x": ((64, 36), "2x"),
    "3x": ((96, 54), "3x"),
    "1x": ((32, 18), "1x"),
    "6x": ((192, 108), "6x"),
    "2.5x": ((80, 45), "2.5x"),
    "each side by its own factor": ((100, 70), "100x70 px"),
}


def upscaler_of(restorer, dtype="float32"):
    return VideoUpscaler(restorer, device="cpu", dtype=dtype)


@torch.inference_mode()
def model_then_resize(restorer, video, size):
    """What any other tool would do: the model on each whole frame, then the plain resize."""
    frames = [restorer.network(frame[:, :, None])[:, :, 0] for frame in video.unbind(2)]
    return torch.stack([resize(frame, size[1], size[0]) for frame in frames], dim=1)[None]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("is_per_frame", [True, False])
def test_every_size_is_the_models_picture_resized(native, clip, name, is_per_frame):
    size, words = SIZES[name]
    restorer, video = native(is_per_frame=is_per_frame), clip(3, 18, 32)
    upscaler = upscaler_of(restorer)
    out = upscaler.upscale(video, size=size, color_anchor=False)
    expected = model_then_resize(restorer, video, size)
    # Several frames at once are other sums than one at a time.
    assert torch.equal(out, expected) if is_per_frame else torch.allclose(out, expected, atol=1e-6)
    plan = upscaler.plan((32, 18), size)
    assert (plan.native_scale, plan.resized_to) == (4, words)
    assert str(plan).startswith(f"model 4x, then resized to {words}; " if words else "model 4x; ")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("is_per_frame", [True, False])
@pytest.mark.parametrize("color_anchor", [True, False])
def test_tiles_change_rounding_only(native, clip, scale, is_per_frame, color_anchor):
    video, options = clip(3, 53, 71), {"scale": scale, "color_anchor": color_anchor}
    restorer = native(scale, is_per_frame=is_per_frame, overlap_px=8)
    upscaler = upscaler_of(restorer)
    whole = upscaler.upscale(video, **options)
    restorer.network.seen.clear()
    tiled = upscaler.upscale(video, tile_px=24 * scale + 1, **options)
    assert max(max(shape[1:]) for shape in restorer.network.seen) == 24  # output pixels, divided
    assert (tiled - whole).abs().max() < 1e-5


def test_tiles_lie_on_the_stride_and_any_size_is_filled_up(native, clip):
    restorer = native(2, stride=(1, 4, 6), least_side=20)
    for height, width in ((9, 13), (17, 50), (40, 24)):
        upscaler, video = upscaler_of(restorer), clip(2, height, width)
        upscaler.measured_bytes()
        restorer.network.seen.clear()
        out = upscaler.upscale(video, scale=2, tile_px=40)
        assert out.shape == (1, 3, 2, 2 * height, 2 * width)
        for _, rows, columns in restorer.network.seen:
            assert (rows % 4, columns % 6) == (0, 0)
            assert min(rows, columns) >= 18  # 20 px rounded down to whole tokens of 6


def test_strength_leads_from_the_plain_resize_to_the_model(native, clip):
    restorer, video = native(), clip(2, 20, 28) * 0.5 + 0.25
    upscaler, options = upscaler_of(restorer), {"size": (77, 51), "color_anchor": False}
    plain, half, full = (upscaler.upscale(video, strength=s, **options) for s in (0, 0.5, 1))
    expected = torch.stack([resize(frame, 51, 77) for frame in video.unbind(2)], dim=1)[None]
    assert torch.equal(plain, expected)
    assert torch.allclose(half, (plain + full) / 2, atol=1e-6)


@pytest.mark.parametrize("is_per_frame", [True, False])
def test_the_anchor_keeps_the_cells_of_the_source(native, clip, is_per_frame):
    restorer, video = native(is_per_frame=is_per_frame), clip(1, 40, 50) * 0.4 + 0.3
    restorer.network.conv.bias.data += 0.2  # a tint
    upscaler = upscaler_of(restorer)
    plain = upscaler.upscale(video, size=(150, 130), strength=0)
    anchor = ColorAnchor(130, 150, CPU)
    cells = {
        name: anchor.measure(upscaler.upscale(video, size=(150, 130), color_anchor=on)[0, :, 0])
        for name, on in (("on", True), ("off", False))
    }
    expected = anchor.measure(plain[0, :, 0])
    assert (cells["off"] - expected).abs().max() > 0.02
    assert (cells["on"] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("color_anchor", [True, False])
def test_frames_are_handed_over_one_by_one_and_none_twice(native, clip, color_anchor):
    restorer, video, seen = native(), clip(23, 16, 20), []
    upscaler = upscaler_of(restorer)
    upscaler.measured_bytes()
    restorer.network.seen.clear()
    options = {"scale": 2, "color_anchor": color_anchor, "shots": False}
    parts = upscaler.upscale(
        video, segment_frames=5, on_progress=lambda *at: seen.append(at), **options
    )
    assert restorer.network.seen == [(1, 16, 20)] * 23
    assert seen[-1] == (23, 23)
    whole = upscaler.upscale(video, segment_frames=40, **options)
    assert torch.equal(parts, whole)


@pytest.mark.parametrize("is_per_frame", [True, False])
def test_a_segment_alone_is_the_same_as_among_others(
    native, clip, alone_as_among_others, is_per_frame
):
    frames = list(clip(14, 24, 24)[0].unbind(1))
    upscaler = upscaler_of(native(is_per_frame=is_per_frame))
    look = Look(width=60, height=60)
    plan = upscaler.plan((24, 24), (60, 60), segment_frames=5, tile_px=80)
    reads = [(0, 7, slice(0, 5)), (3, 12, slice(2, 7)), (8, 14, slice(2, 6))]
    alone_as_among_others(lambda: upscaler.segment_upscaler(look, plan), frames, reads)


class OutOfMemoryAbove(torch.nn.Module):
    def __init__(self, network, most_px):
        super().__init__()
        self.network, self.most_px, self.seen = network, most_px, network.seen

    def forward(self, video):
        if max(video.shape[3:]) > self.most_px:
            raise MemoryError
        return self.network(video)


@pytest.mark.parametrize("is_per_frame", [True, False])
def test_out_of_memory_halves_the_tiles(native, clip, is_per_frame, caplog):
    restorer, video = native(is_per_frame=is_per_frame, overlap_px=8), clip(4, 50, 60)
    expected = upscaler_of(restorer).upscale(video, scale=3)
    limited = native(network=OutOfMemoryAbove(restorer.network, 32), is_per_frame=is_per_frame)
    upscaler = upscaler_of(limited)
    upscaler._model_bytes = 100.0
    with caplog.at_level(logging.WARNING):
        out = upscaler.upscale(video, scale=3)
    assert "repeating this segment in 30x25 tiles" in caplog.text
    assert (out - expected).abs().max() < 1e-5
    never = native(network=OutOfMemoryAbove(restorer.network, 8), is_per_frame=is_per_frame)
    upscaler = upscaler_of(never)
    upscaler._model_bytes = 100.0
    with pytest.raises(ValueError, match="memory must hold one tile of"):
        upscaler.upscale(video, scale=3)


class BrokenIn(torch.nn.Module):
    def __init__(self, network, dtypes):
        super().__init__()
        self.network, self.dtypes, self.seen = network, dtypes, network.seen

    def forward(self, video):
        large = self.network(video).clone()
        if video.dtype in self.dtypes:
            large[0, 1, -1, 3, 4] = torch.inf
        return large


@pytest.mark.parametrize("is_per_frame", [True, False])
@pytest.mark.parametrize("color_anchor", [True, False])
def test_what_is_not_finite_is_repeated_in_float32(
    native, clip, is_per_frame, color_anchor, caplog
):
    restorer, video = native(is_per_frame=is_per_frame), clip(4, 16, 20)
    options = {"scale": 2, "color_anchor": color_anchor, "segment_frames": 4}
    expected = upscaler_of(restorer).upscale(video, **options)
    broken = native(network=BrokenIn(restorer.network, {torch.bfloat16}), is_per_frame=is_per_frame)
    out = upscaler_of(broken, "bfloat16").upscale(video, **options)
    assert "repeating in float32" in caplog.text
    assert torch.equal(out, expected)
    broken.network.dtypes = {torch.bfloat16, torch.float32}
    number = "0, 1, 2, 3" if is_per_frame else "3"
    with pytest.raises(ValueError, match=rf"NaN or infinity in frame\(s\) {number} even"):
        upscaler_of(broken, "bfloat16").upscale(video, **options)


def test_a_model_that_does_not_keep_its_word_is_refused(native, clip):
    restorer = native(network=native(2).network)  # claims four times
    upscaler = upscaler_of(restorer)
    with pytest.raises(ValueError, match=r"must return 4 times its input's sides, \(1, 3, 1, 64"):
        upscaler.upscale(clip(1, 16, 20), scale=2)


def test_models_that_avoid_or_never_take_tiles(native, clip, monkeypatch):
    plans = {}
    for tiling in ("free", "avoid", "never"):
        upscaler = upscaler_of(native(tiling=tiling))
        upscaler._model_bytes = 20_000.0
        for gib in (64, 4):
            monkeypatch.setattr("oasis_core.upscale.plan.free_bytes", lambda _, n=gib: n << 30)
            try:
                plans[tiling, gib] = upscaler.plan((640, 360), (1280, 720)).num_tiles
            except ValueError as error:
                plans[tiling, gib] = str(error)
    assert plans["avoid", 64] == plans["never", 64] == 1
    assert plans["free", 4] > 1
    assert plans["avoid", 4] > 1
    assert "choose a smaller scale or size" in plans["never", 4]
    with pytest.raises(ValueError, match="tile_px must be left out for native, which works on"):
        upscaler_of(native(tiling="never")).upscale(clip(1, 16, 16), scale=2, tile_px=64)


def test_small_tiles_are_refused_in_output_pixels(native, clip):
    with pytest.raises(ValueError, match="tile_px must be at least 64, got 60"):
        upscaler_of(native()).upscale(clip(1, 16, 16), scale=2, tile_px=60)


@pytest.mark.parametrize("size", [(96, 54), (40, 30)])
def test_alpha_never_goes_through_the_model(native, tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (18, 32, 4), dtype=np.uint8)
    pixels[:, :, 3] = np.linspace(0, 255, 32)
    folder = tmp_path / "in"
    folder.mkdir()
    with av.open(str(folder / "a.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 32, 18, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode(None))
    upscaler, results = upscaler_of(native()), {}
    for strength in (0.0, 1.0):
        out = tmp_path / f"{strength}.png"
        upscale_file(folder / "a.png", out, upscaler=upscaler, size=size, strength=strength)
        with av.open(str(out)) as container:
            results[strength] = next(container.decode(video=0)).to_ndarray(format="rgba")
    assert results[1.0].shape == (size[1], size[0], 4)
    assert (results[0.0][..., 3] == results[1.0][..., 3]).all()
    assert (results[0.0][..., :3] != results[1.0][..., :3]).any()
