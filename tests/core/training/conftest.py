"""A small model and a little footage, which the tests of the trainer share."""

import dataclasses

import av
import pytest
import torch

from oasis_core import config as config_module
from oasis_core.config import OASIS_TINY
from oasis_core.training.config import StageConfig, TrainingConfig

SMALL = dataclasses.replace(
    OASIS_TINY,
    name="small",
    stem_channels=16,
    out_channels=16,
    width=24,
    num_layers=2,
    num_heads=3,
    ffn_width=24,
    num_stem_blocks=1,
    num_decoder_blocks=1,
)


@pytest.fixture(autouse=True)
def _small_preset(monkeypatch):
    monkeypatch.setitem(config_module.PRESETS, "small", SMALL)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(3, 20, 24, generator=generator)
    with av.open(str(folder / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv444p"
        for index in range(6):
            moved = texture.roll(index, dims=2)[None]
            image = torch.nn.functional.interpolate(moved, size=(80, 96), mode="bicubic")[0]
            pixels = (image.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.copy(), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(folder / "still.png"), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "rgb24"
        image = torch.nn.functional.interpolate(texture[None], size=(96, 96), mode="bicubic")[0]
        pixels = (image.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.copy(), format="rgb24")))
        container.mux(stream.encode(None))
    (folder / "only_video").mkdir()
    (folder / "only_video" / "same.mkv").symlink_to(folder / "clip.mkv")
    return folder


@pytest.fixture
def configuration():
    """Makes configurations: (footage, output_dir, **changes) of two short stages."""

    def make(footage, output_dir, **changes):
        stage = StageConfig(
            name="one",
            num_steps=6,
            learning_rate=1e-3,
            final_learning_rate=1e-4,
            warmup_steps=2,
            batch_size=2,
            num_frames=3,
            crop_px=32,
            degradations={"light": 0.5, "inconsistent": 0.5},
        )
        second = dataclasses.replace(
            stage, name="two", num_steps=3, calibrate_window_heads=4, calibrate_intra_heads=1
        )
        values = {
            "model": "small",
            "data_dirs": (str(footage),),
            "output_dir": str(output_dir),
            "stages": (stage, second),
            "samples_per_shard": 4,
            "uses_per_sample": 2,
            "save_every": 2,
        }
        return TrainingConfig(**(values | changes))

    return make


@pytest.fixture
def stop_after():
    """Interrupts a run after so many steps, as Ctrl-C or a kill would."""

    def make(num_steps):
        count = 0

        def on_step(trainer, loss):
            nonlocal count
            count += 1
            if count == num_steps:
                raise KeyboardInterrupt

        return on_step

    return make
