"""Small real restorers, and image models with random weights as their authors save theirs."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
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
def _one_thread(one_thread):
    """For every test of this folder."""


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


@pytest.fixture(scope="session")
def spandrel():
    """The library, or a skip that says why."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("needs the extra `image-models` (spandrel)")
    import spandrel

    return spandrel


def with_contrast(network):
    """Weights at which the result is far from flat, and inside of [0, 1] for the most part."""
    state = network.state_dict()
    last = max((name for name in state if name.endswith(".bias")), key=list(state).index)
    with torch.no_grad():
        for name, weight in state.items():
            if weight.dim() == 4:
                weight.mul_(1.5)
            elif name == last and "body" not in name:  # Compact adds its input by itself
                weight.fill_(0.5)
    return state


@pytest.fixture(scope="session")
def make_compact(spandrel):
    """State of a "RealESRGAN Compact" (SRVGG) of some scale and channels."""
    from spandrel.architectures.Compact import Compact

    def make(scale=4, channels=3, num_conv=3, seed=0):
        torch.manual_seed(seed)
        sides = {"num_in_ch": channels, "num_out_ch": channels, "num_feat": 8}
        return with_contrast(Compact(**sides, num_conv=num_conv, upscale=scale))

    return make


@pytest.fixture(scope="session")
def make_rrdb(spandrel):
    """State of an ESRGAN (RRDB) of scale 2."""
    from spandrel.architectures.ESRGAN import ESRGAN

    def make():
        torch.manual_seed(1)
        return with_contrast(ESRGAN(num_filters=8, num_blocks=2, scale=2))

    return make


@pytest.fixture(scope="session")
def models(make_compact, make_rrdb, tmp_path_factory):
    """Files by name: compact 4x and 3x, rrdb 2x, and a compact 1x that restores only."""
    folder = tmp_path_factory.mktemp("models")
    states = {
        "4x-compact": make_compact(4),
        "3x-compact": make_compact(3),
        "1x-compact": make_compact(1),
        "2x-rrdb": make_rrdb(),
    }
    paths = {name: folder / f"{name}.safetensors" for name in states}
    for name, state in states.items():
        save_file({key: value.contiguous() for key, value in state.items()}, paths[name])
    return paths


@pytest.fixture(scope="session")
def alone(spandrel):
    """A model called by spandrel on one frame `h w 3` uint8 after the other: `t 3 h w` float."""

    def run(path, frames):
        descriptor = spandrel.ModelLoader().load_from_file(path).eval()
        clip = [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in frames]
        return torch.cat([descriptor(frame) for frame in clip])

    return run


@pytest.fixture
def alone_as_among_others():
    """Do segments in several orders and by themselves: the same each time.

    Takes the `SegmentUpscaler` maker, the frames, and of three segments first frame, end and what
    to keep; returns what each gives.
    """

    def do(make, frames, reads):
        def results(order):
            segments, found = make(), {}
            for index in order:
                start, stop, keep = reads[index]
                run = segments.run(frames[start:stop], keep, first=start + keep.start)
                found[index] = torch.stack(list(run))
            return found

        together, backwards = results([0, 1, 2]), results([2, 1, 0, 1])
        for index in range(3):
            assert torch.equal(together[index], results([index])[index])
            assert torch.equal(together[index], backwards[index])
        return together

    return do
