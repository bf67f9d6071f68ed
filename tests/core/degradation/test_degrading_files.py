import av
import numpy as np
import pytest
import torch

from oasis_core.degradation import DegradationError, degrading_files
from oasis_core.degradation.degrading_files import degrade_file, slice_steps
from oasis_core.degradation.recipe import Step
from oasis_core.video import film


def write_clip(path, num_frames, width=64, height=48):
    generator = np.random.default_rng(0)
    base = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(base, index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode(path):
    with av.open(str(path)) as container:
        return [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def test_per_frame_parameters_are_cut_to_the_piece():
    steps = (
        Step(operator="jpeg", params={"quality": [1.0, 2.0, 3.0, 4.0]}),
        Step(operator="sinc", params={"size": 9, "cutoff": [1.0]}),
    )
    first, second = slice_steps(steps, 1, 3)
    assert first.params["quality"] == [2.0, 3.0]
    assert second.params == {"size": 9, "cutoff": [1.0]}


def test_long_files_are_done_in_pieces(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mkv", 11)
    monkeypatch.setattr(degrading_files, "CHUNK_FRAMES", 4)
    progress = []
    steps = degrade_file(
        source,
        tmp_path / "out.mkv",
        preset="inconsistent",
        scale=2,
        seed=1,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert progress == [(4, 11), (8, 11), (11, 11)]
    assert any(
        len(value) == 11 for s in steps for value in s["params"].values() if type(value) is list
    )
    before, after = decode(source), decode(tmp_path / "out.mkv")
    assert [pts for pts, _ in after] == [pts for pts, _ in before]
    assert all(pixels.shape == (24, 32, 3) for _, pixels in after)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mkv", 3)

    def fail(*arguments, **options):
        raise OSError("disk on fire")

    monkeypatch.setattr(film, "mux", fail)
    with pytest.raises(OSError, match="disk on fire"):
        degrade_file(source, tmp_path / "out.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": -1}, "seed"), ({"scale": 12}, "smaller than"), ({"preset": "bad"}, "preset")],
)
def test_bad_requests(tmp_path, options, message):
    source = write_clip(tmp_path / "in.mkv", 2)
    with pytest.raises(DegradationError, match=message):
        degrade_file(source, tmp_path / "out.mkv", **options)
    assert not (tmp_path / "out.mkv").exists()


def test_global_randomness_is_left_alone(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    degrade_file(write_clip(tmp_path / "in.mkv", 2), tmp_path / "out.mkv", scale=2)
    assert torch.equal(torch.rand(3), expected)


def test_pictures_and_patterns_are_degraded_too(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for number in (1, 2, 10):
        with av.open(str(tmp_path / f"f{number}.png"), "w", format="image2") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, number, 1), format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    (tmp_path / "out").mkdir()
    for name in ("", "f%d.png"):
        target = tmp_path / "out" / "low.mkv"
        degrade_file(tmp_path / name, target, preset="clean", scale=2, overwrite=True)
        frames = decode(target)
        assert [frame.shape for _, frame in frames] == [(24, 32, 3)] * 3
