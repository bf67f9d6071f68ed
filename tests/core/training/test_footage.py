import av
import numpy as np
import pytest
import torch

from oasis_core.training.config import TrainingError
from oasis_core.training.footage import load_sources
from oasis_core.training.loop import train


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_unusable_footage_is_one_sentence(tmp_path, content, configuration):
    folder = tmp_path / "data"
    folder.mkdir()
    if content:
        (folder / "bad.png").write_bytes(content)
    with pytest.raises(TrainingError, match=r"no usable clip|unreadable"):
        train(configuration(folder, tmp_path / "out"))


@pytest.mark.parametrize(
    ("frames", "side", "message"),
    [(7, 64, "too small for samples of 64 px and 7 frames"), (3, 160, "160 px and 3 frames")],
)
def test_clips_shorter_or_smaller_than_a_sample_are_counted(footage, frames, side, message):
    with pytest.raises(TrainingError, match=message):
        load_sources((str(footage / "only_video"),), side, frames)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"the folder .*none', which does not exist"):
        load_sources((str(tmp_path / "none"),), 64, 3)


def test_few_unreadable_files_are_skipped_and_many_stop(footage, tmp_path, caplog):
    data = (footage / "still.png").read_bytes()
    for index in range(100):
        (tmp_path / f"{index}.png").write_bytes(data)
    (tmp_path / "bad1.png").write_bytes(b"no picture")
    assert len(load_sources((str(tmp_path),), 64, 3).stills) == 100
    assert "bad1.png was skipped" in caplog.text
    assert "1 of 101 training files were skipped (1 unreadable, 0 too small)" in caplog.text
    (tmp_path / "bad2.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"at most 1% .* 2 of 102 are"):
        load_sources((str(tmp_path),), 64, 3)


def write_film(path, frames, pixel_format="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = (
            frames[0].width,
            frames[0].height,
            pixel_format,
        )
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_training_sees_the_colours_that_the_engine_reads(tmp_path):
    """An HD clip without colour tags is BT.709, whatever a library's default is."""
    color = np.full((720, 1280, 3), (200, 40, 60), np.uint8)
    frames = [
        av.VideoFrame.from_ndarray(color, "rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709"
        )
        for _ in range(3)
    ]
    for frame in frames:
        frame.color_range = 0
    write_film(tmp_path / "hd.mp4", frames)
    (clip,) = load_sources((str(tmp_path),), 64, 3).clips
    assert clip.dtype == torch.uint8
    means = clip.float().mean(dim=(0, 2, 3))
    assert (means - torch.tensor([200.0, 40, 60])).abs().max() < 2


def test_deep_footage_is_rounded_to_8_bits(tmp_path):
    deep = np.full((64, 64, 3), (60_000, 30_000, 128), np.uint16)
    with av.open(str(tmp_path / "deep.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb48be"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(deep, format="rgb48be")))
        container.mux(stream.encode(None))
    (still,) = load_sources((str(tmp_path),), 64, 3).stills
    assert still[0, :, 0, 0].tolist() == [233, 117, 0]


def test_turned_footage_is_upright(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    block = pil.Exif()
    block[0x0112] = 6
    pil.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=block)
    (still,) = load_sources((str(tmp_path),), 64, 3).stills
    assert still.shape == (1, 3, 96, 64)
