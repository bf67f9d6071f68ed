import pytest
import torch
import torch.nn.functional as F

from oasis_core.evaluation.warping import (
    RaftFlow,
    motion,
    published_warping_error,
    warping_error,
)


def moving(num_frames=4, shift=1):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 16, 24, generator=generator)
    wide = F.interpolate(coarse, size=(64, 96), mode="bicubic").clamp(0, 1)
    return torch.cat([wide[..., shift * i : shift * i + 80] for i in range(num_frames)])


def test_warping_error_follows_the_motion_and_sees_flicker():
    truth = moving()
    flows = motion(truth)
    still_error = warping_error(truth, flows)
    unaligned = float((truth[1:] - truth[:-1]).square().mean() * 1000)
    assert still_error < 0.1 * unaligned
    flickering = truth.clone()
    flickering[::2] = (flickering[::2] * 0.9).clamp(0, 1)
    assert warping_error(flickering, flows) > 10 * still_error


def constant_flow(here, there, step):
    """The content of `moving` goes left: forward and back are opposite."""
    flow = torch.zeros(2, *here.shape[1:])
    is_forward = torch.allclose(here[:, :, 2:-2], there[:, :, 1:-3], atol=1e-3)
    flow[1] = -step if is_forward else step
    return flow


def test_published_error_without_motion_is_the_summed_difference():
    clip = moving(3, shift=2)
    half = F.interpolate(clip, scale_factor=0.5, mode="bilinear", align_corners=False)
    expected = float((half[1:] - half[:-1]).square().sum(1).mean() * 1000)
    found = published_warping_error(clip, lambda a, b: torch.zeros(2, *a.shape[1:]))
    assert found == pytest.approx(expected, rel=1e-4)


def test_published_error_with_the_true_motion_is_far_smaller():
    clip = moving(3, shift=2)
    still = published_warping_error(clip, lambda a, b: torch.zeros(2, *a.shape[1:]))
    assert published_warping_error(clip, lambda a, b: constant_flow(a, b, 1.0)) < 0.1 * still


def test_occluded_pixels_are_left_out():
    clip = moving(2)
    calls = []

    def estimate(here, there):
        # Forward says one pixel, backward too: the way back never ends where it began.
        calls.append(1)
        return torch.ones(2, *here.shape[1:])

    everything = clip.new_zeros(()) + published_warping_error(clip, estimate)
    assert everything == 0
    assert len(calls) == 2


class Recorder(torch.nn.Module):
    """Stands where RAFT's weights would be needed: keeps its input, returns a constant flow."""

    def forward(self, first, second, num_flow_updates):
        self.seen, self.num_updates = first, num_flow_updates
        flow = torch.zeros(1, 2, *first.shape[2:])
        flow[:, 0] = 3.0
        return [flow]


@pytest.mark.parametrize(("keeps_bug", "white"), [(True, 2 / 255 - 1), (False, 1.0)])
def test_raft_gets_padded_frames_in_its_range_or_with_the_published_mistake(keeps_bug, white):
    network = Recorder()
    frame = torch.ones(3, 50, 90)
    flow = RaftFlow(network, keeps_scaling_bug=keeps_bug)(frame, frame)
    assert network.seen.shape == (1, 3, 128, 128)
    assert network.seen.max() == pytest.approx(white, abs=1e-6)
    assert network.num_updates == 20
    assert flow.shape == (2, 50, 90)
    assert torch.equal(flow[1], torch.full((50, 90), 3.0))
    assert not flow[0].any()


def test_real_raft_network_runs():
    try:
        from torchvision.models import optical_flow as models
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs a torchvision that fits this torch: {error}")
    network = models.raft_large(weights=None)
    flow = RaftFlow(network, keeps_scaling_bug=False)(torch.rand(3, 40, 60), torch.rand(3, 40, 60))
    assert flow.shape == (2, 40, 60)
    assert torch.isfinite(flow).all()
