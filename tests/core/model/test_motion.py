import pytest
import torch
import torch.nn.functional as F

from oasis_core.config import OASIS_TINY
from oasis_core.model import motion
from oasis_core.model.denoiser import build_model
from oasis_core.model.motion import find_motion, look_up, neighbor_changes, num_changes

STRIDE, REACH = 4, 2


def texture(height, width, seed=0):
    """A smooth random picture `1 3 h w`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)


def moving_clip(num_frames, step_px=3, height=128, width=160):
    """A camera that pans to the right, `1 3 t h w`."""
    wide = texture(height, width + num_frames * step_px)
    frames = [wide[..., i * step_px : i * step_px + width] for i in range(num_frames)]
    return torch.stack(frames, dim=2)


def levels_of(picture):
    return motion._pyramid(motion._luma(F.avg_pool2d(picture, 2))[None])


@pytest.mark.parametrize("step_px", [0, 2, 7, 14])
def test_motion_of_a_pan_is_found(step_px):
    clip = moving_clip(2, step_px)
    own, others = (levels_of(clip[:, :, i]) for i in (0, 1))
    found = find_motion(own, others)[0, 0, :, 6:-6, 8:-8] * STRIDE
    assert (found[0] + step_px).abs().median() < 0.25
    assert found[1].abs().median() < 0.25


def test_look_up_repeats_the_edge():
    picture = torch.arange(12.0).view(1, 1, 3, 4)
    moved = look_up(picture, torch.full((1, 2, 3, 4), 9.0))
    assert torch.allclose(moved, torch.full((1, 1, 3, 4), 11.0))


def test_changes_have_one_place_per_neighbor_and_none_beyond_the_ends():
    clip = torch.rand(2, 3, 4, 32, 48, generator=torch.Generator().manual_seed(1))
    changes = neighbor_changes(clip, REACH, STRIDE, slice(None))
    assert changes.shape == (8, num_changes(REACH), 8, 12)
    is_used = changes.reshape(2, 4, 2 * REACH, -1).abs().amax((0, 3)) > 0
    # One before, one after, two before, two after.
    assert is_used.tolist() == [
        [False, True, False, True],
        [True, True, False, True],
        [True, True, True, False],
        [True, False, True, False],
    ]


def test_changes_of_some_frames_are_those_of_all():
    clip = torch.rand(1, 3, 6, 32, 32, generator=torch.Generator().manual_seed(1))
    whole = neighbor_changes(clip, REACH, STRIDE, slice(None))
    assert torch.equal(neighbor_changes(clip, REACH, STRIDE, slice(2, 4)), whole[2:4])
    assert torch.equal(neighbor_changes(clip[:, :, 1:], REACH, STRIDE, slice(2, 3)), whole[3:4])


def test_a_layer_may_stop_the_run_between_frames():
    clip = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1))
    layer, seen = motion.FrameChanges(), []
    layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2].tolist()))
    changes = neighbor_changes(clip, REACH, STRIDE, slice(1, 4), layer)
    assert seen == [[1], [2], [3]]
    assert torch.equal(changes, neighbor_changes(clip, REACH, STRIDE, slice(1, 4)))


def test_frames_at_once_make_no_difference(monkeypatch):
    clip = torch.rand(2, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1))
    singly = neighbor_changes(clip, REACH, STRIDE, slice(None))
    monkeypatch.setattr(motion, "FRAMES_AT_ONCE", {})
    together = neighbor_changes(clip, REACH, STRIDE, slice(None))
    assert torch.allclose(together, singly, atol=1e-6)


def test_a_pan_changes_little_once_it_is_followed():
    clip = moving_clip(5)
    followed = neighbor_changes(clip, REACH, STRIDE, slice(2, 3))
    plain = (clip[:, :, 1] - clip[:, :, 2]).abs().mean()
    assert followed[:, : num_changes(1) // 2].abs()[..., 4:-4, 4:-4].mean() < 0.1 * plain


def test_a_neighbor_that_shows_something_else_hardly_counts():
    clip = torch.stack([texture(64, 64, seed) for seed in (1, 2)], dim=2)
    noisy = clip[:, :, :1].expand(-1, -1, 2, -1, -1).clone()
    noisy[:, :, 1] += 0.02 * torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    kept = slice(0, 1)
    other, same = (neighbor_changes(x, 1, STRIDE, kept).abs().mean() for x in (clip, noisy))
    assert other < same * 2
    assert other < 0.2 * (clip[:, :, 0] - clip[:, :, 1]).abs().mean()


def open_model():
    model = build_model(OASIS_TINY, seed=1).eval()
    model.skips_transformer = True
    for conv in (model.transformer.stem.conv_neighbors, model.decoder.conv):
        torch.nn.init.normal_(conv.weight, std=0.02)
    return model


@torch.no_grad()
def test_a_frame_depends_on_the_frames_in_reach_and_no_others():
    model, clip = open_model(), torch.rand(1, 3, 7, 32, 32)
    other = clip.clone()
    other[:, :, 0] = torch.rand(1, 3, 32, 32)
    changed = (model(clip) - model(other)).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert changed.tolist() == [True, True, True, False, False, False, False]


@torch.no_grad()
def test_a_clip_that_stands_still_is_treated_as_single_frames():
    model, frame = open_model(), torch.rand(1, 3, 1, 32, 32)
    still = model(frame.expand(-1, -1, 4, -1, -1))
    assert torch.allclose(still, model(frame).expand(-1, -1, 4, -1, -1), atol=1e-4)


@torch.no_grad()
def test_untrained_neighbors_contribute_nothing():
    model, clip = build_model(OASIS_TINY, seed=1), torch.rand(1, 3, 3, 32, 32)
    torch.nn.init.normal_(model.decoder.conv.weight, std=0.02)
    model.skips_transformer = True
    singly = torch.cat([model(frame) for frame in clip.split(1, dim=2)], dim=2)
    assert torch.allclose(model(clip), singly, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("skips", [False, True])
def test_kept_frames_are_those_of_the_whole_clip(skips):
    model, clip = open_model(), torch.rand(2, 3, 6, 32, 32)
    model.skips_transformer = skips
    assert torch.allclose(model(clip, slice(2, 4)), model(clip)[:, :, 2:4], atol=1e-6)


def test_autocast_leaves_motion_in_float32():
    clip = moving_clip(3)
    plain = neighbor_changes(clip, REACH, STRIDE, slice(None))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(neighbor_changes(clip, REACH, STRIDE, slice(None)), plain)
