"""Small real restorers: one that reads the source, one that builds a state over frames."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oasis_core.families.module import ModuleRestorer
from oasis_core.families.restorer import Traits


class NativeNetwork(nn.Module):
    """Enlarges `b 3 t h w` by a factor of its own, each pixel with its eight neighbours."""

    def __init__(self, scale, seed=0):
        super().__init__()
        self.scale, self.seen = scale, []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 3 * scale**2, 3, padding=1, padding_mode="replicate")

    def forward(self, video):
        self.seen.append(tuple(video.shape[2:]))
        frames = video.transpose(1, 2).flatten(0, 1)
        large = frames.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
        large = large + 0.3 * F.pixel_shuffle(self.conv(frames), self.scale)
        return large.clamp(0, 1).unflatten(0, (len(video), -1)).transpose(1, 2)


class NativeRestorer(ModuleRestorer):
    """The network as a family that reads the source."""

    def __init__(self, scale=4, network=None, **traits):
        traits = {"reads": "source", "native_scale": scale, "is_per_frame": True, **traits}
        network = NativeNetwork(scale) if network is None else network
        super().__init__(network, Traits(name="native", family="test", **traits), "native")


@pytest.fixture(autouse=True)
def one_thread():
    """Frames this small are slower with more threads, and one gives the same bytes anywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def native():
    return NativeRestorer


@pytest.fixture
def clip():
    """Build a soft textured clip `1 3 t h w` that moves, with noise."""

    def build(num_frames, height, width, seed=0):
        generator = torch.Generator().manual_seed(seed)
        y, x = torch.arange(height)[:, None] / 5.0, torch.arange(width)[None, :] / 7.0
        phases = torch.rand(3, generator=generator) * 6
        frames = [
            torch.stack([torch.sin(x + 0.2 * t + p) * torch.cos(y - 0.1 * t) for p in phases])
            for t in range(num_frames)
        ]
        video = torch.stack(frames, dim=1)[None] * 0.35 + 0.5
        return (video + 0.1 * (torch.rand(video.shape, generator=generator) - 0.5)).clamp(0, 1)

    return build
