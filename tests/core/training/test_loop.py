import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from oasis_core.checkpoint import load_checkpoint
from oasis_core.training.config import TrainingError
from oasis_core.training.data import cut_context, sample_seed
from oasis_core.training.footage import load_sources
from oasis_core.training.loop import STATE_NAME, WEIGHTS_NAME, Trainer, train


@pytest.fixture
def fancy(configuration):
    """A run with everything that has a state: discriminator, checkpointing, several losses."""

    def make(footage, output_dir, **changes):
        plain = configuration(footage, output_dir)
        stages = tuple(
            dataclasses.replace(stage, adversarial_weight=0.01, frequency_weight=0.1)
            for stage in plain.stages
        )
        return dataclasses.replace(plain, stages=stages, gradient_checkpointing=True, **changes)

    return make


@pytest.mark.slow
def test_killed_run_continues_to_the_same_weights(footage, tmp_path, configuration, stop_after):
    whole = train(configuration(footage, tmp_path / "whole"))
    # Killed in the middle of a shard of the first stage, then in the second one.
    config = configuration(footage, tmp_path / "killed")
    for steps in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            train(config, stop_after(steps))
    resumed = train(config)
    expected, actual = load_file(whole), load_file(resumed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.slow
def test_training_lowers_the_loss_and_saves_a_routed_model(footage, tmp_path, configuration):
    stage = configuration(footage, tmp_path).stages[0]
    stages = (dataclasses.replace(stage, num_steps=150, degradations={"light": 1.0}),)
    config = configuration(
        footage, tmp_path, stages=(*stages, configuration(footage, tmp_path).stages[1])
    )
    losses = []
    path = train(config, lambda trainer, loss: losses.append(loss))
    first, last = sum(losses[:40]), sum(losses[110:150])
    assert last < 0.97 * first
    loaded = load_checkpoint(path)
    total = [sum(loaded.routing.counts(i)[kind] for i in range(2)) for kind in range(3)]
    assert total == [1, 1, 4]
    assert loaded.routing.permutation(0) == (0, 1, 2)
    assert loaded.info["training"]["seed"] == 0


def test_calibration_in_the_loop_keeps_the_function_apart_from_the_patterns(
    footage, tmp_path, configuration
):
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


@pytest.mark.slow
def test_context_is_looked_at_and_the_frames_between_count(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path)
    stage = dataclasses.replace(config.stages[0], num_frames=2, context_frames=2)
    trainer = Trainer(dataclasses.replace(config, stages=(stage,)))
    # Every frame has a brightness of its own, so a frame compared with another one shows; an
    # untrained model changes nothing.
    clip = torch.linspace(0.2, 0.8, stage.frames_seen).view(1, 1, -1, 1, 1).expand(2, 3, -1, 32, 32)
    seen = set()
    for step in range(40):
        trainer.step = step
        seed = sample_seed(trainer.config.seed, 3, 0, step)
        frames, kept = cut_context(clip, stage, seed)
        seen.add((kept.start, frames.shape[2] - kept.stop))
        loss, (restored, *_) = trainer._loss(clip, clip)
        assert restored.shape[2] == 2
        assert loss < 2e-3
    assert {(2, 2), (0, 1), (1, 2)} <= seen


def test_state_of_another_configuration_is_refused(footage, tmp_path, configuration, stop_after):
    with pytest.raises(KeyboardInterrupt):
        train(configuration(footage, tmp_path), stop_after(3))
    with pytest.raises(TrainingError, match="another model, data or seed"):
        train(configuration(footage, tmp_path, seed=9))


def test_nan_stops_the_run_and_keeps_state_and_batch(footage, tmp_path, configuration):
    def poison(trainer, loss):
        if trainer.step == 3:
            next(trainer.model.parameters()).data.fill_(float("nan"))

    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        train(configuration(footage, tmp_path), poison)
    assert (tmp_path / "bad_batch.safetensors").exists()
    state = load_file(tmp_path / STATE_NAME)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    load_checkpoint(tmp_path / WEIGHTS_NAME)


@pytest.mark.slow
def test_a_run_can_start_from_a_checkpoint(footage, tmp_path, configuration):
    first = train(configuration(footage, tmp_path / "first"))
    config = configuration(footage, tmp_path / "second", initial_model=str(first))
    trainer = Trainer(config)
    loaded = load_checkpoint(first)
    video = torch.rand(1, 3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(trainer.ema.eval()(video), loaded.model(video), atol=1e-6)
    assert trainer.routing == loaded.routing
    trainer.output_dir.mkdir()
    written = load_checkpoint(trainer.save_weights()).info
    assert written["initial"]["training"] == loaded.info["training"]
    assert written["initial"]["footage"] == loaded.info["footage"]


def test_a_checkpoint_of_another_architecture_is_refused(footage, tmp_path, configuration):
    with pytest.raises(TrainingError, match="another architecture named 'oasis-tiny'"):
        Trainer(configuration(footage, tmp_path, initial_model="oasis-tiny"))


@pytest.mark.slow
def test_killed_run_with_a_discriminator_continues_to_the_same_state(
    footage, tmp_path, fancy, stop_after
):
    train(fancy(footage, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(fancy(footage, tmp_path / "killed"), stop_after(5))
    train(fancy(footage, tmp_path / "killed", data_workers=2))
    expected, actual = (load_file(tmp_path / name / STATE_NAME) for name in ("whole", "killed"))
    assert expected.keys() == actual.keys()
    assert any(name.startswith("discriminator_optimizer.") for name in expected)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing_but_memory(footage, tmp_path, configuration):
    first, second = (
        train(configuration(footage, tmp_path / name, gradient_checkpointing=is_on))
        for name, is_on in (("kept", False), ("recomputed", True))
    )
    expected, actual = load_file(first), load_file(second)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_state(footage, tmp_path, configuration, stop_after):
    resource = pytest.importorskip("resource")
    config = configuration(footage, tmp_path)
    with pytest.raises(KeyboardInterrupt):
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


def test_a_damaged_state_is_one_sentence(footage, tmp_path, configuration):
    (tmp_path / STATE_NAME).write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"saved state .* is damaged"):
        train(configuration(footage, tmp_path))


def test_a_perceptual_loss_without_weights_says_what_it_wants(
    footage, tmp_path, monkeypatch, configuration
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("OASIS_METRIC_WEIGHTS", raising=False)
    config = configuration(footage, tmp_path / "out")
    stages = (dataclasses.replace(config.stages[0], perceptual_weight=1.0),)
    with pytest.raises(TrainingError, match=r"perceptual_weight: lpips needs"):
        Trainer(dataclasses.replace(config, stages=stages))
