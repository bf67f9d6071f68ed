"""Grain and masks in the engine: what is off changes nothing, and cuts leave no trace."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from oasis_core.families.module import ModuleRestorer
from oasis_core.families.restorer import Traits
from oasis_core.upscale import VideoUpscaler, upscale_file
from oasis_core.upscale.find_grain import grain_of
from oasis_core.upscale.look import Look
from oasis_core.video import ClipSource, open_source


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, "cpu", "float32")


def half_mask(height, width):
    mask = torch.zeros(1, height, width)
    mask[..., width // 2 :] = 1
    return mask


def test_a_mask_is_the_plain_resize_at_0_and_the_model_at_1_bit_for_bit(upscaler, clip):
    video = clip(5, 32, 48)
    model = upscaler.upscale(video, scale=2)
    plain = upscaler.upscale(video, scale=2, strength=0)
    masked = upscaler.upscale(video, scale=2, mask=half_mask(64, 96))
    assert torch.equal(masked[..., :48], plain[..., :48])
    assert torch.equal(masked[..., 48:], model[..., 48:])
    assert not torch.equal(model, plain)
    soft = upscaler.upscale(video, scale=2, mask=torch.full((1, 4, 4), 0.25))
    assert torch.allclose(soft, plain + 0.25 * (model - plain), atol=1e-6)


def test_a_mask_works_with_strength_and_changes_with_the_frames(upscaler, clip):
    video = clip(3, 32, 32)
    half = upscaler.upscale(video, scale=2, strength=0.5)
    plain = upscaler.upscale(video, scale=2, strength=0)
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8), torch.zeros(8, 8)])
    result = upscaler.upscale(video, scale=2, strength=0.5, mask=masks)
    assert torch.equal(result[:, :, [0, 2]], plain[:, :, [0, 2]])
    assert torch.equal(result[:, :, 1], half[:, :, 1])


def test_tiles_wholly_under_0_need_no_work_of_the_model(conv_model, clip):
    upscaler, seen = VideoUpscaler(conv_model, "cpu", "float32"), []
    video, settings = clip(2, 64, 64), {"scale": 2, "tile_px": 64, "color_anchor": False}
    model = upscaler.upscale(video, **settings)
    plain = upscaler.upscale(video, **settings, strength=0)
    conv_model.register_forward_hook(lambda *_: seen.append(1))
    everywhere = upscaler.upscale(video, **settings, mask=torch.ones(1, 8, 8))
    num_all, mask = len(seen), torch.zeros(1, 128, 128)
    mask[:, 100:, 100:] = 1
    seen.clear()
    masked = upscaler.upscale(video, **settings, mask=mask)
    assert num_all > 4
    assert len(seen) < num_all / 2
    assert torch.equal(everywhere, model)
    assert torch.equal(masked[..., 100:, 100:], model[..., 100:, 100:])
    rest = mask[0] == 0
    assert torch.equal(masked[..., rest], plain[..., rest])


def test_where_tiles_are_left_out_the_anchor_moves_by_less_than_a_step(conv_model, clip):
    upscaler = VideoUpscaler(conv_model, "cpu", "float32")
    video, settings = clip(2, 64, 64), {"scale": 2, "tile_px": 64}
    mask = torch.zeros(1, 128, 128)
    mask[:, 64:, 64:] = 1
    masked = upscaler.upscale(video, **settings, mask=mask)
    model = upscaler.upscale(video, **settings)
    apart = (masked - model)[..., 64:, 64:].abs().max()
    assert float(apart) <= 1 / 255


def test_grain_off_is_no_grain_and_an_amount_is_new_in_every_frame(upscaler, clip):
    video = clip(3, 32, 48)
    without = upscaler.upscale(video, scale=2)
    assert torch.equal(upscaler.upscale(video, scale=2, grain=0), without)
    grained = upscaler.upscale(video, scale=2, grain=0.5)
    laid = (grained - without)[0].transpose(0, 1).flatten(1)
    assert 0.002 < float(laid.std()) < 0.06
    together = torch.corrcoef(laid)
    assert float((together - torch.eye(3)).abs().max()) < 0.05
    other = upscaler.upscale(video, scale=2, grain=0.5, grain_seed=1)
    assert not torch.equal(other, grained)


@pytest.mark.parametrize("segment_frames", [1, 2, 5])
def test_cuts_of_a_clip_leave_no_trace_in_its_grain(point_model, clip, segment_frames):
    upscaler = VideoUpscaler(point_model, "cpu", "float32")
    settings = {"scale": 2, "grain": 0.3, "color_anchor": False, "shots": False}
    whole = upscaler.upscale(clip(7, 24, 32), **settings, segment_frames=7)
    cut = upscaler.upscale(clip(7, 24, 32), **settings, segment_frames=segment_frames)
    assert torch.equal(cut, whole)


def test_grain_stays_away_from_what_a_mask_keeps(upscaler, clip):
    video, mask = clip(2, 32, 48), half_mask(64, 96)
    plain = upscaler.upscale(video, scale=2, strength=0)
    result = upscaler.upscale(video, scale=2, mask=mask, grain=0.5)
    assert torch.equal(result[..., :48], plain[..., :48])


def noisy(num_frames, height, width, sigma):
    generator = torch.Generator().manual_seed(3)
    slope = torch.linspace(0.25, 0.75, width).expand(1, 3, num_frames, height, width)
    noise = torch.randn(1, 1, num_frames, height, width, generator=generator)
    return (slope + sigma * noise).clamp(0, 1)


class Smoother(torch.nn.Module):
    """Takes grain away: the residual to the mean over a square."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, video):
        frames = video[0].transpose(0, 1)
        padded = torch.nn.functional.pad(frames, (10, 10, 10, 10), mode="replicate")
        smooth = torch.nn.functional.avg_pool2d(padded, 21, 1)
        return (smooth - frames).transpose(0, 1)[None]


@pytest.mark.parametrize("sigma", [0.016, 0.04])
def test_auto_brings_the_grain_of_the_source_back(conv_model, sigma):
    upscaler = VideoUpscaler(Smoother(conv_model.config), "cpu", "float32")
    video = noisy(5, 96, 160, sigma)
    smooth = upscaler.upscale(video, scale=2, color_anchor=False)
    grained = upscaler.upscale(video, scale=2, color_anchor=False, grain="auto")
    inner = (slice(None), slice(None), 2, slice(40, 150), slice(40, 280))
    slope = torch.linspace(0.25, 0.75, 160).repeat_interleave(2)[40:280]
    assert float((smooth[inner] - slope).std()) < 0.25 * sigma
    assert float((grained[inner] - slope).std()) == pytest.approx(sigma, rel=0.15)


def test_auto_lays_nothing_on_clean_clips_and_nothing_where_the_model_leaves_all(conv_model):
    video = noisy(5, 96, 96, 0.0)
    smoother = VideoUpscaler(Smoother(conv_model.config), "cpu", "float32")
    assert torch.equal(
        smoother.upscale(video, scale=2, grain="auto"), smoother.upscale(video, scale=2)
    )
    noise = noisy(5, 96, 96, 0.03)
    plain = smoother.upscale(noise, scale=1, strength=0, grain="auto")
    assert torch.equal(plain, smoother.upscale(noise, scale=1, strength=0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grain": 2}, "grain must be a number from 0 to 1, or auto, got 2"),
        ({"grain": "auto"}, "grain auto must have a source of at least 64x64 pixels"),
        ({"grain": 0.1, "grain_seed": -1}, "grain_seed must be 0 or more, got -1"),
        ({"mask": torch.ones(2, 8, 8)}, "must have one picture or as many as the film"),
        ({"mask": torch.zeros(1, 8, 8)}, "black everywhere"),
    ],
)
def test_mistakes_are_one_sentence(upscaler, clip, options, said):
    with pytest.raises(ValueError, match=said):
        upscaler.upscale(clip(3, 16, 16), scale=2, **options)


def test_auto_of_one_picture_is_refused(upscaler):
    with pytest.raises(ValueError, match="at least 2 frames to tell grain from texture, got 1"):
        upscaler.upscale(noisy(1, 96, 96, 0.02), scale=2, grain="auto")


class StopError(Exception):
    """Ends a run in the middle."""


def pixels_of(path):
    with open_source(path) as reader:
        return np.stack([frame.pixels for frame in reader])


def test_a_run_that_was_stopped_gives_the_same_bytes(conv_model, tmp_path):
    upscaler = VideoUpscaler(Smoother(conv_model.config), "cpu", "float32")
    source = ClipSource(frames=noisy(8, 96, 96, 0.03)[0].transpose(0, 1), frame_rate=Fraction(24))
    mask = torch.linspace(0, 1, 8)[:, None, None].expand(8, 12, 12)
    options = {
        "upscaler": upscaler,
        "scale": 2,
        "grain": "auto",
        "mask": mask,
        "codec": "ffv1",
        "segment_frames": 2,
    }
    upscale_file(source, tmp_path / "whole.mkv", **options)

    def stop(done, _):
        if done > 5:
            raise StopError

    with pytest.raises(StopError):
        upscale_file(source, tmp_path / "stopped.mkv", on_progress=stop, **options)
    report = upscale_file(source, tmp_path / "stopped.mkv", **options)
    assert report.num_resumed_segments > 0
    assert report.plan.grain.left is not None
    whole = pixels_of(tmp_path / "whole.mkv")
    assert np.array_equal(whole, pixels_of(tmp_path / "stopped.mkv"))
    upscale_file(source, tmp_path / "bare.mkv", **options | {"grain": None, "mask": None})
    assert not np.array_equal(whole, pixels_of(tmp_path / "bare.mkv"))


def test_an_unfinished_run_knows_its_grain_and_mask(upscaler, tmp_path):
    source = ClipSource(frames=noisy(6, 64, 64, 0.03)[0].transpose(0, 1), frame_rate=Fraction(24))
    options = {"upscaler": upscaler, "scale": 2, "codec": "ffv1", "segment_frames": 2}

    def stop(done, _):
        if done > 3:
            raise StopError

    with pytest.raises(StopError):
        upscale_file(source, tmp_path / "o.mkv", on_progress=stop, grain=0.3, **options)
    for changed in ({"grain": 0.2}, {"grain": 0.3, "mask": torch.ones(1, 8, 8)}):
        with pytest.raises(ValueError, match=r"cannot be continued because setting (grain|mask)"):
            upscale_file(source, tmp_path / "o.mkv", **changed, **options)


class Native(torch.nn.Module):
    """Writes a picture with twice the pixels per side of the one that it reads."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.2))
        self.calls = 0

    def forward(self, video):
        self.calls += 1
        large = video.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        return large + self.gain * large * (1 - large)


@pytest.mark.parametrize("is_per_frame", [False, True])
@pytest.mark.parametrize("scale", [2, 1.5, 3])
def test_masks_and_tiles_of_models_that_read_the_source(clip, is_per_frame, scale):
    traits = Traits(
        name="native",
        family="test",
        reads="source",
        native_scale=2,
        stride=(1, 1, 1),
        is_per_frame=is_per_frame,
    )
    network = Native()
    upscaler = VideoUpscaler(ModuleRestorer(network, traits, "native"), "cpu", "float32")
    video, settings = clip(3, 64, 64), {"scale": scale, "tile_px": 48}
    model = upscaler.upscale(video, **settings, color_anchor=False)
    num_all = network.calls
    plain = upscaler.upscale(video, **settings, strength=0)
    side = round(64 * scale)
    mask, start = torch.zeros(3, side, side), side - side // 4
    mask[:, start:, start:] = 1
    network.calls = 0
    masked = upscaler.upscale(video, **settings, color_anchor=False, mask=mask)
    assert 0 < network.calls < num_all / 2
    assert torch.equal(masked[..., start:, start:], model[..., start:, start:])
    rest = mask[0] == 0
    assert torch.equal(masked[..., rest], plain[..., rest])
    anchored = upscaler.upscale(video, **settings, mask=mask)
    whole = upscaler.upscale(video, **settings)
    apart = (anchored - whole)[..., start:, start:].abs().max()
    assert float(apart) < 8 / 255
    assert torch.equal(anchored[..., rest], plain[..., rest])


def test_what_travels_to_workers_is_whole():
    look = Look(width=64, height=64, grain=0.5, mask=half_mask(64, 64))
    there = pickle.loads(pickle.dumps(look))
    assert there.mask.fingerprint() == look.mask.fingerprint()
    grain = grain_of(look, (), (32, 32), None)
    assert pickle.loads(pickle.dumps(grain)) == grain


def test_a_mask_is_never_replaced_by_the_result(upscaler, tmp_path):
    source = ClipSource(frames=noisy(3, 64, 64, 0.03)[0].transpose(0, 1), frame_rate=Fraction(24))
    options = {"upscaler": upscaler, "scale": 1, "codec": "ffv1"}
    upscale_file(source, tmp_path / "mask.mkv", **options)
    before = (tmp_path / "mask.mkv").read_bytes()
    with pytest.raises(ValueError, match="is the input itself; name another file"):
        upscale_file(
            source, tmp_path / "mask.mkv", mask=tmp_path / "mask.mkv", overwrite=True, **options
        )
    assert (tmp_path / "mask.mkv").read_bytes() == before
