import dataclasses

import av
import pytest
import torch
from safetensors.torch import load_file

from oasis_core import config as config_module
from oasis_core.checkpoint import load_checkpoint
from oasis_core.config import OASIS_TINY
from oasis_core.training.config import StageConfig, TrainingConfig, TrainingError
from oasis_core.training.data import load_sources, make_shard
from oasis_core.training.loop import STATE_NAME, WEIGHTS_NAME, Trainer, train

pytestmark = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="training needs torch 2.9 or newer for Muon"
)

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
    return folder


def configuration(footage, output_dir, **changes):
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


class StoppedError(Exception):
    """Stands for a kill: raised from inside the run at a chosen step."""


def stop_after(num_steps):
    count = 0

    def on_step(trainer, loss):
        nonlocal count
        count += 1
        if count == num_steps:
            raise StoppedError

    return on_step


def test_shards_depend_on_seed_and_index_only(footage, tmp_path):
    config = configuration(footage, tmp_path)
    sources = load_sources(config.data_dirs, 64, 3)
    assert (len(sources.clips), len(sources.stills)) == (1, 1)
    first, again, other = (make_shard(config, 0, index, sources) for index in (0, 0, 1))
    assert torch.equal(first.truth, again.truth)
    assert torch.equal(first.resized, again.resized)
    assert not torch.equal(first.resized, other.resized)
    assert first.truth.shape == first.resized.shape == (4, 3, 3, 64, 64)


def test_killed_run_continues_to_the_same_weights(footage, tmp_path):
    whole = train(configuration(footage, tmp_path / "whole"))
    # Killed in the middle of a shard of the first stage, then in the second one.
    config = configuration(footage, tmp_path / "killed")
    for steps in (3, 6):
        with pytest.raises(StoppedError):
            train(config, stop_after(steps))
    resumed = train(config)
    expected, actual = load_file(whole), load_file(resumed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_training_lowers_the_loss_and_saves_a_routed_model(footage, tmp_path):
    stage = configuration(footage, tmp_path).stages[0]
    stages = (dataclasses.replace(stage, num_steps=60, degradations={"light": 1.0}),)
    config = configuration(
        footage, tmp_path, stages=(*stages, configuration(footage, tmp_path).stages[1])
    )
    losses = []
    path = train(config, lambda trainer, loss: losses.append(loss))
    assert sum(losses[45:60]) < 0.97 * sum(losses[:15])
    loaded = load_checkpoint(path)
    total = [sum(loaded.routing.counts(i)[kind] for i in range(2)) for kind in range(3)]
    assert total == [1, 1, 4]
    assert loaded.routing.permutation(0) == (0, 1, 2)
    assert loaded.info["training"]["seed"] == 0


def test_calibration_in_the_loop_keeps_the_function_apart_from_the_patterns(footage, tmp_path):
    config = configuration(footage, tmp_path)
    trainer = Trainer(config)
    trainer.stage_index = 1
    with torch.no_grad():
        for parameter in trainer.ema.parameters():
            parameter.add_(0.1)
        trainer.model.load_state_dict(trainer.ema.state_dict())
    video = torch.rand(1, 3, 3, 32, 32)
    before = trainer.ema(video)
    trainer.calibrate_if_asked(load_sources(config.data_dirs, 64, 3))
    for block in trainer.ema.transformer.blocks:
        block.attention.counts = (3, 0, 0)
    assert torch.allclose(trainer.ema(video), before, rtol=1e-4, atol=1e-4)


def test_state_of_another_configuration_is_refused(footage, tmp_path):
    with pytest.raises(StoppedError):
        train(configuration(footage, tmp_path), stop_after(3))
    with pytest.raises(TrainingError, match="another model, data or seed"):
        train(configuration(footage, tmp_path, seed=9))


def test_nan_stops_the_run_and_keeps_state_and_batch(footage, tmp_path):
    def poison(trainer, loss):
        if trainer.step == 3:
            next(trainer.model.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        train(configuration(footage, tmp_path), poison)
    assert (tmp_path / "bad_batch.safetensors").exists()
    state = load_file(tmp_path / STATE_NAME)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    load_checkpoint(tmp_path / WEIGHTS_NAME)


@pytest.mark.parametrize("content", [None, b"not a picture"])
def test_unusable_footage_is_one_sentence(tmp_path, content):
    folder = tmp_path / "data"
    folder.mkdir()
    if content:
        (folder / "bad.png").write_bytes(content)
    with pytest.raises(TrainingError, match=r"no usable clip|unreadable"):
        train(configuration(folder, tmp_path / "out"))


def test_a_run_can_start_from_a_checkpoint(footage, tmp_path):
    first = train(configuration(footage, tmp_path / "first"))
    config = configuration(footage, tmp_path / "second", initial_model=str(first))
    trainer = Trainer(config)
    loaded = load_checkpoint(first)
    video = torch.rand(1, 3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(trainer.ema.eval()(video), loaded.model(video), atol=1e-6)
    assert trainer.routing == loaded.routing


def test_a_checkpoint_of_another_architecture_is_refused(footage, tmp_path):
    with pytest.raises(TrainingError, match="another architecture named 'oasis-tiny'"):
        Trainer(configuration(footage, tmp_path, initial_model="oasis-tiny"))
