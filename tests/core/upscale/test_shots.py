import numpy as np
import pytest

from oasis_core.upscale.shots import LOOK_AHEAD, ShotDetector, find_cuts


def texture(seed, height=144, width=256):
    """A picture with large and small structure in colours of its own, `h w 3` in 0..1."""
    stream = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for cells in (3, 7, 20):
        coarse = stream.random((cells, cells * 2, 3))
        rows = np.linspace(0, cells - 1e-6, height).astype(int)
        columns = np.linspace(0, cells * 2 - 1e-6, width).astype(int)
        picture += coarse[rows][:, columns]
    return picture / 3 * (0.4 + 0.6 * stream.random(3))


def shot(seed, num_frames, pan=0, noise=0.0, gain=lambda t: 1.0):
    """A shot whose camera moves `pan` pixels a frame."""
    stream = np.random.default_rng(seed + 1000)
    wide = texture(seed, width=256 + pan * num_frames)
    frames = []
    for t in range(num_frames):
        frame = wide[:, t * pan : t * pan + 256] * gain(t)
        frame = frame + noise * stream.standard_normal(frame.shape)
        frames.append((np.clip(frame, 0, 1) * 255).astype(np.uint8))
    return frames


def cuts(frames):
    return list(find_cuts(frames))


@pytest.mark.parametrize("lengths", [(10, 10), (5, 5, 5, 5), (30, 8, 20)])
@pytest.mark.parametrize("noise", [0.0, 0.08])
def test_hard_cuts_are_found(lengths, noise):
    frames = [f for seed, n in enumerate(lengths) for f in shot(seed, n, noise=noise)]
    assert cuts(frames) == np.cumsum(lengths)[:-1].tolist()


def test_hard_cuts_between_moving_shots_are_found():
    frames = shot(0, 12, pan=6) + shot(1, 12, pan=9) + shot(2, 12)
    assert cuts(frames) == [12, 24]


def test_a_cut_between_flat_pictures_is_found():
    grey, blue = np.full((90, 160, 3), 128, np.uint8), np.zeros((90, 160, 3), np.uint8)
    blue[..., 2] = 200
    assert cuts([grey] * 9 + [blue] * 9) == [9]


@pytest.mark.parametrize("pan", [0, 3, 12, 40, 90])
def test_a_pan_is_no_cut(pan):
    assert cuts(shot(3, 20, pan=pan)) == []


def test_a_pan_that_starts_at_once_is_no_cut():
    wide = texture(4, width=256 + 20 * 40)
    offsets = [0] * 12 + [20 * t for t in range(20)]
    frames = [(wide[:, x : x + 256] * 255).astype(np.uint8) for x in offsets]
    assert cuts(frames) == []


@pytest.mark.parametrize("length", range(1, LOOK_AHEAD + 1))
@pytest.mark.parametrize("level", [0, 255])
def test_a_flash_is_no_cut(length, level):
    frames = shot(5, 30)
    for t in range(14, 14 + length):
        frames[t] = np.full_like(frames[t], level)
    assert cuts(frames) == []


def test_a_bright_flash_that_keeps_the_structure_is_no_cut():
    assert cuts(shot(6, 30, gain=lambda t: 2.5 if t in (12, 13) else 1.0)) == []


def test_fades_are_no_cuts():
    first, second = shot(7, 40), shot(8, 40)
    dissolve = [
        (a * (1 - t / 39) + b * (t / 39)).astype(np.uint8)
        for t, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    assert cuts(dissolve) == []
    assert cuts(shot(9, 40, gain=lambda t: abs(20 - t) / 20)) == []


@pytest.mark.parametrize("noise", [0.05, 0.25])
def test_noise_is_no_cut(noise):
    assert cuts(shot(10, 20, noise=noise)) == []
    flat = np.random.default_rng(0).normal(128, 40, (20, 144, 256, 3)).clip(0, 255)
    assert cuts(list(flat.astype(np.uint8))) == []


def test_shots_after_a_cut_are_found_as_if_the_clip_began_there():
    tail = [f for seed, n in ((2, 6), (3, 17), (4, 4)) for f in shot(seed, n, pan=4, noise=0.1)]
    for head in (shot(0, 9), shot(0, 25, pan=30), shot(0, 2, noise=0.2)):
        assert cuts(head + tail) == [len(head) + c for c in [0, *cuts(tail)]]


def test_deep_pictures_have_the_same_cuts():
    frames = shot(0, 9) + shot(1, 9)
    assert cuts([f.astype(np.uint16) * 257 for f in frames]) == [9]


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (37, 8), (8, 700), (1080, 1920)])
def test_any_size(size):
    stream = np.random.default_rng(0)
    first, second = (stream.integers(0, 256, (*size, 3), np.uint8) for _ in range(2))
    second = second // 4
    assert cuts([first] * 6 + [second] * 6) == [6]


def test_decisions_come_after_the_look_ahead_and_never_get_lost():
    frames = shot(0, 7) + shot(1, 3)
    detector = ShotDetector()
    decisions = [len(detector.push(frame)) for frame in frames]
    assert decisions == [0] * LOOK_AHEAD + [1] * (len(frames) - LOOK_AHEAD)
    assert len(detector.flush()) == LOOK_AHEAD
    assert cuts(frames[:1]) == []
    assert cuts([]) == []
