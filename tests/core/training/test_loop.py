import dataclasses

import av
import pytest
import torch
from safetensors.torch import load_file

from oasis_core import config as config_module
from oasis_core.checkpoint import CheckpointError, load_checkpoint
from oasis_core.config import OASIS_TINY
from oasis_core.training.config import StageConfig, TrainingConfig, TrainingError
from oasis_core.training.data import (
    ShardStream,
    batches,
    make_shard,
    steps_per_shard,
)
from oasis_core.training.footage import load_sources
from oasis_core.training.log import LOG_NAME, read_log
from oasis_core.training.loop import STATE_NAME, WEIGHTS_NAME, Trainer, train
from oasis_core.training.yardstick import is_yardstick, load_yardstick

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
    (folder / "only_video").mkdir()
    (folder / "only_video" / "same.mkv").symlink_to(folder / "clip.mkv")
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
    assert (len(sources.clips), len(sources.stills)) == (2, 1)
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


def fancy(footage, output_dir, **changes):
    """A run with everything that has a state: discriminator, checkpointing, several losses."""
    plain = configuration(footage, output_dir)
    stages = tuple(
        dataclasses.replace(stage, adversarial_weight=0.01, frequency_weight=0.1)
        for stage in plain.stages
    )
    return dataclasses.replace(plain, stages=stages, gradient_checkpointing=True, **changes)


def test_killed_run_with_a_discriminator_continues_to_the_same_state(footage, tmp_path):
    train(fancy(footage, tmp_path / "whole"))
    with pytest.raises(StoppedError):
        train(fancy(footage, tmp_path / "killed"), stop_after(5))
    train(fancy(footage, tmp_path / "killed", data_workers=2))
    expected, actual = (load_file(tmp_path / name / STATE_NAME) for name in ("whole", "killed"))
    assert expected.keys() == actual.keys()
    assert any(name.startswith("discriminator_optimizer.") for name in expected)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_gradient_checkpointing_changes_nothing_but_memory(footage, tmp_path):
    first, second = (
        train(configuration(footage, tmp_path / name, gradient_checkpointing=is_on))
        for name, is_on in (("kept", False), ("recomputed", True))
    )
    expected, actual = load_file(first), load_file(second)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_a_process_makes_its_places_of_the_batch_only(footage, tmp_path):
    config = configuration(footage, tmp_path)
    sources = load_sources(config.data_dirs, 64, 3)
    whole = list(batches(make_shard(config, 0, 3, sources), config, 0, 3))
    assert len(whole) == steps_per_shard(config, config.stages[0]) == 4
    for place in (0, 1):
        places = range(place, place + 1)
        shard = make_shard(config, 0, 3, sources, places)
        assert len(shard.truth) == 2
        parts = list(batches(shard, config, 0, 3, places, skip=1))
        for part, batch in zip(parts, whole[1:], strict=True):
            for piece, everything in zip(part, batch, strict=True):
                assert torch.equal(piece[0], everything[place])


def test_a_run_leaves_log_samples_and_plot_and_resumes_the_log(footage, tmp_path):
    pytest.importorskip("matplotlib")
    config = configuration(
        footage,
        tmp_path / "run",
        validation_dirs=(str(footage / "clip.mkv"),),
        validation_px=64,
        validate_every=3,
        sample_every=3,
        save_every=3,
    )
    with pytest.raises(StoppedError):
        train(config, stop_after(4))
    rows = read_log(tmp_path / "run" / LOG_NAME)
    assert [row["step"] for row in rows] == ["3"]
    train(config)
    rows = read_log(tmp_path / "run" / LOG_NAME)
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    assert [row["stage"] for row in rows] == ["one", "one", "two"]
    assert all(float(row["gain_light_db"]) != 0 for row in rows)
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step_0000003.png", "step_0000006.png", "step_0000009.png"]
    with av.open(str(tmp_path / "run" / "samples" / names[0])) as container:
        picture = next(container.decode(video=0))
    assert (picture.width, picture.height) == (3 * 64 + 2 * 4, 2 * 64)
    assert (tmp_path / "run" / "training.png").read_bytes()[:4] == b"\x89PNG"


def test_tensorboard_gets_the_same_readings(footage, tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(configuration(footage, tmp_path, tensorboard=True))
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [float(row["loss"]) for row in read_log(tmp_path / LOG_NAME)]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


def test_the_yardstick_trains_by_the_same_trainer(footage, tmp_path):
    config = configuration(
        footage, tmp_path, model="yardstick", yardstick_convs=2, yardstick_features=8
    )
    stage = dataclasses.replace(config.stages[0], num_steps=60, degradations={"light": 1.0})
    config = dataclasses.replace(config, stages=(stage,))
    path = train(config)
    network = load_yardstick(path)
    sources = load_sources(config.data_dirs, 64, 3)
    shard = make_shard(config, 0, 0, sources)
    with torch.no_grad():
        errors = [
            [(resized - truth).abs().mean(), (resized + network(resized) - truth).abs().mean()]
            for resized, truth in batches(shard, config, 0, 0)
        ]
    before, after = torch.tensor(errors).mean(0)
    assert after < 0.97 * before
    assert is_yardstick(path)
    video = torch.rand(1, 3, 2, 16, 24)
    assert network(video).shape == video.shape
    # Single-frame: another neighbour changes nothing.
    other = torch.cat([video[:, :, :1], torch.rand(1, 3, 1, 16, 24)], dim=2)
    assert torch.allclose(network(video)[:, :, 0], network(other)[:, :, 0], atol=1e-6)
    with pytest.raises(StoppedError):
        train(dataclasses.replace(config, output_dir=str(tmp_path / "b")), stop_after(4))
    resumed = train(dataclasses.replace(config, output_dir=str(tmp_path / "b")))
    expected, actual = load_file(path), load_file(resumed)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_damaged_yardsticks_are_one_sentence(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no readable yardstick"):
        load_yardstick(tmp_path / "x.safetensors")
    assert not is_yardstick(tmp_path / "x.safetensors")


def test_a_full_disk_leaves_the_last_good_state(footage, tmp_path):
    resource = pytest.importorskip("resource")
    config = configuration(footage, tmp_path)
    with pytest.raises(StoppedError):
        train(config, stop_after(3))
    good = (tmp_path / STATE_NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(trainer, loss):
        # A file larger than this cannot be written, as on a disk with no more room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    try:
        with pytest.raises(TrainingError, match=r"could not be written .* the one before is unto"):
            train(config, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / STATE_NAME).read_bytes() == good
    assert not list(tmp_path.glob("*.part"))
    train(config)


def test_a_damaged_state_is_one_sentence(footage, tmp_path):
    (tmp_path / STATE_NAME).write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"saved state .* is damaged"):
        train(configuration(footage, tmp_path))


def test_a_perceptual_loss_without_weights_says_what_it_wants(footage, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = configuration(footage, tmp_path / "out")
    stages = (dataclasses.replace(config.stages[0], perceptual_weight=1.0),)
    with pytest.raises(TrainingError, match=r"perceptual_weight: lpips needs"):
        Trainer(dataclasses.replace(config, stages=stages))


@pytest.mark.parametrize(
    ("frames", "side", "message"),
    [(7, 64, "too small for samples of 64 px and 7 frames"), (3, 160, "160 px and 3 frames")],
)
def test_clips_shorter_or_smaller_than_a_sample_are_counted(footage, frames, side, message):
    with pytest.raises(TrainingError, match=message):
        load_sources((str(footage / "only_video"),), side, frames)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r"data_dirs must be folders, .*none is none"):
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


def test_small_validation_clips_are_one_sentence(footage, tmp_path):
    config = configuration(
        footage, tmp_path, validation_dirs=(str(footage / "clip.mkv"),), validate_every=1
    )
    with pytest.raises(TrainingError, match="must be at least 256x256 px, got 96x80"):
        train(config)


def test_single_frames_come_from_clips_that_were_degraded_whole(footage, tmp_path):
    config = configuration(footage, tmp_path)
    changes = {"num_frames": 1, "degraded_frames": 4, "degradations": {"consistent": 1.0}}
    stage = dataclasses.replace(config.stages[0], **changes)
    config = dataclasses.replace(config, stages=(stage,))
    sources = load_sources((str(footage / "only_video"),), 64, 4)
    shard = make_shard(config, 0, 0, sources)
    assert shard.truth.shape[1] == shard.resized.shape[1] == 4
    used = [resized for resized, _ in batches(shard, config, 0, 0)]
    assert all(resized.shape == (2, 3, 1, 32, 32) for resized in used)
    assert len({resized.sum().item() for resized in used}) == len(used)


def test_degrading_on_the_device_makes_the_same_samples(footage, tmp_path):
    config = configuration(footage, tmp_path, samples_per_shard=6)
    stage = dataclasses.replace(config.stages[0], degradations={"light": 0.5, "consistent": 0.5})
    config = dataclasses.replace(config, stages=(stage,))
    sources = load_sources(config.data_dirs, 64, 3)
    here = make_shard(config, 0, 0, sources)
    stream = ShardStream(config, 0, sources)
    index, there = next(stream.load(0, 1, torch.device("cpu")))
    assert index == 0
    assert torch.equal(there.truth, here.truth)
    gap = (there.resized.float() - here.resized.float()).abs()
    assert gap.mean() < 0.2 / 255
    assert (gap.amax(dim=(1, 2, 3, 4)) < 6 / 255).all()


def test_codecs_of_the_configuration_are_checked(footage, tmp_path):
    assert configuration(footage, tmp_path, codecs=("libx265",)).codecs == ("libx265",)
    with pytest.raises(TrainingError, match="codec must be one of"):
        configuration(footage, tmp_path, codecs=("theora",))
