"""A family with a state inside a shot, and one that draws noise; run alone, a segment by itself.

`python streaming.py FIRST STOP KEEP_START KEEP_STOP` prints the hash of one segment's pixels.
"""

import hashlib
import sys

import torch
from torch import nn

from oasis_core.families.module import ModuleRestorer
from oasis_core.families.restorer import Traits
from oasis_core.upscale import Look, VideoUpscaler

LEAD, MULTIPLE, LOOK_AHEAD = 5, 6, 1


class RunningMean(nn.Module):
    """Adds to each chunk a share of the mean of the chunk before; the first has none before it.

    The first chunk of a call is the lead, the others are as long as segments are multiples of.
    """

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.25))
        self.chunks = []

    def forward(self, video):
        self.chunks.append([])
        residual, start, length, mean = torch.zeros_like(video), 0, LEAD, 0.0
        while start < video.shape[2]:
            chunk = video[:, :, start : start + length]
            residual[:, :, start : start + length] = self.share * mean - 0.1 * chunk
            self.chunks[-1].append(chunk.shape[2])
            mean = chunk.mean(dim=2, keepdim=True)
            start, length = start + length, MULTIPLE
        return residual


class Streaming(ModuleRestorer):
    """The running mean as a family."""

    def __init__(self, **traits):
        options = {"lead_frames": LEAD, "segment_multiple": MULTIPLE, "halo_frames": LOOK_AHEAD}
        traits = Traits(name="streaming", family="test", stride=(1, 8, 8), **{**options, **traits})
        super().__init__(RunningMean(), traits, "streaming")


class Noise(ModuleRestorer):
    """Adds noise that is keyed by where it lies in the job, not drawn one after the other."""

    def __init__(self):
        super().__init__(nn.Identity(), Traits(name="noise", family="test", stride=(1, 8, 8)), "n")

    def restore(self, clip, place):
        """The noise of the clip's place."""
        t, y, x = (torch.arange(n, dtype=torch.float64) for n in clip.shape[2:])
        t, y, x = t + place.first_frame, y + place.top, x + place.left
        key = 12.9898 * t[:, None, None] + 78.233 * y[:, None] + 37.719 * x
        return (0.2 * torch.frac(key.sin() * 43758.5453)).to(clip).expand_as(clip)


def frames_of_clip(num_frames=40, height=24, width=32):
    """The same on every machine: waves that move."""
    t, y, x = (torch.arange(n, dtype=torch.float64) for n in (num_frames, height, width))
    waves = (x / 5 + t[:, None, None] / 3).sin() * (y[:, None] / 7 - t[:, None, None] / 4).cos()
    return [(0.5 + 0.3 * torch.stack([w, w.flip(0), w.flip(1)])).float() for w in waves]


def segment_sha256(segments, first, stop, keep):
    """Hash of the pixels of one segment."""
    frames = frames_of_clip()[first:stop]
    results = segments.run(frames, keep, first=first + keep.start)
    pixels = torch.stack(list(results)).contiguous().numpy().tobytes()
    return hashlib.sha256(pixels).hexdigest()


def new_segments():
    """What upscales segments of the clip."""
    torch.set_num_threads(1)
    upscaler = VideoUpscaler(Streaming(), device="cpu", dtype="float32")
    plan = upscaler.plan((32, 24), (64, 48), segment_frames=12, tile_px=48)
    return upscaler.segment_upscaler(Look(width=64, height=48), plan)


if __name__ == "__main__":
    first, stop, keep_start, keep_stop = map(int, sys.argv[1:])
    digest = segment_sha256(new_segments(), first, stop, slice(keep_start, keep_stop))
    sys.stdout.write(digest + "\n")
