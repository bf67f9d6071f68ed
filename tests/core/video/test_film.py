from fractions import Fraction

import numpy as np
import pytest
import torch

from oasis_core.video import EncodeSpec, Source, VideoFrame
from oasis_core.video.film import write_clip, write_film

RATE = Fraction(24)


def spec(**values):
    return EncodeSpec(
        codec="ffv1", width=34, height=18, frame_rate=RATE, time_base=1 / RATE, **values
    )


def frames(num_frames, seed=0):
    """Frames with transparency, with a gap in their times."""
    generator = np.random.default_rng(seed)
    for index in range(num_frames):
        pixels = generator.integers(0, 256, (18, 34, 4), dtype=np.uint8)
        pts = index + (index > 2)
        yield VideoFrame(pixels=pixels[..., :3], pts=pts, duration=1, alpha=pixels[..., 3])


@pytest.mark.parametrize("segment_frames", [None, 1, 3, 7, 8])
def test_a_film_is_its_frames_however_they_are_cut(tmp_path, segment_frames):
    path = tmp_path / "out.mkv"
    write_film(frames(7), path, spec(has_alpha=True), segment_frames=segment_frames)
    with Source.resolve(path).open() as reader:
        read = list(reader)
    assert len(read) == 7
    for frame, expected in zip(read, frames(7), strict=True):
        assert np.array_equal(frame.pixels, expected.pixels)
        assert np.array_equal(frame.alpha, expected.alpha)
    # Matroska rounds to milliseconds: 3 frames, then a gap of one.
    times = [round((frame.pts - read[0].pts) * 24 / 1000) for frame in read]
    assert times == [0, 1, 2, 4, 5, 6, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_what_fails_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "out.mkv"
    path.write_bytes(b"before")

    def broken():
        yield from frames(2)
        raise RuntimeError("the source went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_film(broken(), path, spec())
    assert path.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_a_clip_in_memory_becomes_a_file(tmp_path):
    clip = torch.rand(5, 3, 18, 34, generator=torch.Generator().manual_seed(0))
    before, asked = clip.clone(), []
    write_clip(clip, 24, tmp_path / "out.mkv", codec="ffv1", check=lambda: asked.append(1))
    assert torch.equal(clip, before)
    with Source.resolve(tmp_path / "out.mkv").open() as reader:
        read = np.stack([frame.pixels for frame in reader])
    expected = (clip * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(read, expected)
    assert len(asked) == 5
