"""Small real models of the engine's contract: any module with a config and a residual."""

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import nn


@dataclass(frozen=True)
class TinyConfig:
    name: str = "tiny-conv"
    token_stride: tuple[int, int, int] = (1, 8, 8)


class ConvModel(nn.Module):
    """Looks one frame back and ahead and a few pixels around; works in cells of 4 pixels."""

    def __init__(self, stride=(1, 8, 8), seed=0, gain=0.02):
        super().__init__()
        self.config = TinyConfig(token_stride=stride)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stem = nn.Conv3d(3, 8, (3, 5, 5), stride=(1, 4, 4), padding=(1, 2, 2))
            self.head = nn.Conv3d(8, 48, (1, 3, 3), padding=(0, 1, 1))
        with torch.no_grad():
            self.head.weight.mul_(gain / 0.02)

    def forward(self, video):
        assert video.shape[3] % self.config.token_stride[1] == 0
        assert video.shape[4] % self.config.token_stride[2] == 0
        assert (video.shape[2] - 1) % self.config.token_stride[0] == 0
        cells = self.head(torch.relu(self.stem(video)))
        b, _, t, h, w = cells.shape
        pixels = cells.view(b, 3, 4, 4, t, h, w).permute(0, 1, 4, 5, 2, 6, 3)
        return 0.1 * pixels.reshape(b, 3, t, h * 4, w * 4)


class PointModel(nn.Module):
    """Each pixel alone: with it every way of cutting a clip up must give the same result."""

    def __init__(self, stride=(1, 8, 8)):
        super().__init__()
        self.config = TinyConfig(name="tiny-point", token_stride=stride)
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, video):
        return self.gain * video * (1 - video)


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """For every test of this folder."""


@pytest.fixture
def conv_model():
    return ConvModel()


@pytest.fixture
def point_model():
    return PointModel()


@pytest.fixture
def clip():
    """Build a textured clip `1 3 t h w` that moves a little from frame to frame."""

    def build(num_frames, height, width, seed=0):
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(height)[:, None] / 5.0
        x = torch.arange(width)[None, :] / 7.0
        phases = torch.rand(3, generator=generator) * 6
        frames = [
            torch.stack([torch.sin(x + 0.2 * t + p) * torch.cos(y - 0.1 * t) for p in phases])
            for t in range(num_frames)
        ]
        video = torch.stack(frames, dim=1)[None] * 0.35 + 0.5
        noise = torch.rand(video.shape, generator=generator)
        return (video + 0.1 * (noise - 0.5)).clamp(0, 1)

    return build


@pytest.fixture
def write_video(tmp_path):
    """Write a small film of textured shots, lossless, with uneven timestamps and a sound."""
    import av
    import numpy as np

    def write(name="in.mkv", lengths=(9,), height=24, width=32, noise=True):
        path = tmp_path / name
        stream_of = np.random.default_rng(0)
        with av.open(str(path), "w") as container:
            video = container.add_stream("ffv1", rate=25)
            video.width, video.height, video.pix_fmt = width, height, "bgr0"
            video.codec_context.time_base = Fraction(1, 50)
            audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            index = 0
            for shot, length in enumerate(lengths):
                coarse = stream_of.integers(0, 256, (height // 4, width // 4, 3), np.int64)
                base = np.kron(coarse, np.ones((4, 4, 1), np.int64)) // (1 + shot)
                for t in range(length):
                    grain = stream_of.integers(-9, 10, base.shape) if noise else 0
                    pixels = np.clip(np.roll(base, t, axis=1) + grain, 0, 255).astype(np.uint8)
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts = index * 2 + (index % 3 == 0)
                    frame.time_base = Fraction(1, 50)
                    container.mux(video.encode(frame))
                    index += 1
            container.mux(video.encode(None))
            tone = (np.sin(np.arange(8000) / 9) * 9000).astype(np.int16)[None]
            for start in range(0, 8000, 400):
                piece = np.ascontiguousarray(tone[:, start : start + 400])
                sound = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
                sound.sample_rate, sound.pts = 8000, start
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
        return path

    return write


@pytest.fixture
def read_video():
    """Read all frames of a file as `t h w 3` and their times in seconds."""
    import numpy as np

    from oasis_core.video import VideoReader

    def read(path):
        with VideoReader(path) as reader:
            frames = list(reader)
            times = [float(frame.pts * reader.info.time_base) for frame in frames]
        return np.stack([frame.pixels for frame in frames]), times

    return read
