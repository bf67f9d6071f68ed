import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from oasis_core.checkpoint import has_vivid, load_checkpoint
from oasis_core.evaluation.feature_networks import lpips_shapes
from oasis_core.training.config import TrainingError
from oasis_core.training.judges import FEATURE_SIZE, FeatureJudge, Judges, relativistic
from oasis_core.training.loop import WEIGHTS_NAME, train

WIDTHS = (8, 16)


def clips(seed, t=2):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(1, 3, t, 32, 32, generator=generator)
    restored = torch.nn.functional.avg_pool3d(truth, (1, 3, 3), 1, (0, 1, 1))
    return restored, truth, restored.clone()


def features(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((1, 8, 16, 16), (1, 16, 8, 8))
    fake, real = ([torch.rand(s, generator=generator) * k for s in shapes] for k in (1, 3))
    return fake, real


@pytest.mark.slow
def test_judges_learn_to_tell_and_then_show_the_model_the_way():
    judges = Judges(0, WIDTHS, torch.device("cpu"))
    frames, seen = clips(0), features(0)
    before = judges.losses(*frames, seen)
    assert list(before) == ["picture", "change", "feature"]
    for step in range(40):
        judges.train_step(*frames, seen, 2e-3, step)
    restored = frames[0].requires_grad_()
    after = judges.losses(restored, *frames[1:], seen)
    # The better the judges, the less real the restored clip looks to them.
    assert all(after[name] > before[name] + 0.3 for name in before)
    judges.zero_grad()
    (after["picture"] + after["change"]).backward()
    assert restored.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in judges.parameters())
    assert all(parameter.requires_grad for parameter in judges.parameters())


def test_a_single_frame_has_no_changes_and_features_may_be_absent():
    judges = Judges(0, (), torch.device("cpu"))
    assert list(judges.losses(*clips(1, t=1), None)) == ["picture"]
    judges.train_step(*clips(1, t=1), None, 1e-3, 0)


def test_relativistic_loss_is_small_for_the_better():
    high, low = [torch.full((1, 1, 2, 2), 5.0)], [torch.zeros(1, 1, 2, 2)]
    assert relativistic(high, low) < 0.01
    assert relativistic(low, high) > 4.9


def test_features_are_brought_to_one_size_by_the_first_batch():
    judge = FeatureJudge(WIDTHS)
    fake, _ = features(3)
    judge(fake)
    scales = judge.scales.clone()
    lengths = [(x * s).square().sum(1).mean().sqrt() for x, s in zip(fake, scales, strict=True)]
    assert torch.allclose(torch.stack(lengths), torch.tensor(FEATURE_SIZE))
    judge([10 * x for x in fake])
    assert torch.equal(judge.scales, scales)


def test_a_state_goes_on_as_if_nothing_had_happened():
    frames, seen = clips(4), features(4)
    first, second = (Judges(seed, WIDTHS, torch.device("cpu")) for seed in (0, 1))
    first.train_step(*frames, seen, 1e-3, 0)
    second.load_state_tensors({name: x.clone() for name, x in first.state_tensors().items()})
    losses = [judges.train_step(*frames, seen, 1e-3, 1) for judges in (first, second)]
    assert losses[0] == losses[1]
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture
def metric_weights(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for kind in ("vgg", "alex"):
        tensors = {
            name: 0.1 * torch.rand(shape, generator=generator)
            for name, shape in lpips_shapes(kind).items()
        }
        save_file(tensors, tmp_path / f"lpips_{kind}.safetensors")
    monkeypatch.setenv("OASIS_METRIC_WEIGHTS", str(tmp_path))


def vivid_stage(stage):
    weights = ("cell", "grid", "flat", "picture", "change", "feature", "perceptual", "temporal")
    values = {f"{name}_weight": 0.1 for name in weights}
    return dataclasses.replace(
        stage,
        num_frames=2,
        context_frames=1,
        num_steps=2,
        skip_transformer=True,
        calibrate_window_heads=-1,
        calibrate_intra_heads=0,
        **values,
    )


@pytest.mark.slow
def test_a_vivid_end_is_trained_beside_the_faithful_one_and_goes_on(
    footage, tmp_path, configuration, stop_after, metric_weights
):
    faithful = train(configuration(footage, tmp_path / "faithful"))
    assert not has_vivid(faithful)
    config = configuration(footage, tmp_path / "vivid")
    config = dataclasses.replace(
        config,
        model="initial",
        initial_model=str(faithful),
        trained_end="vivid",
        perceptual_network="lpips_vgg",
        save_every=1,
        stages=tuple(vivid_stage(stage) for stage in config.stages[:1]),
    )
    with pytest.raises(KeyboardInterrupt):
        train(config, stop_after(1))
    resumed = load_checkpoint(train(config), detail=1)
    whole = train(dataclasses.replace(config, output_dir=str(tmp_path / "whole")))
    start, ends = load_checkpoint(faithful), load_checkpoint(whole, detail=0)
    vivid = load_checkpoint(whole, detail=1)
    assert ends.routing == start.routing
    assert vivid.info["vivid"]["training"]["trained_end"] == "vivid"
    assert vivid.info["footage"] == start.info["footage"]
    for name, tensor in start.model.state_dict().items():
        assert torch.equal(tensor, ends.model.state_dict()[name]), name
        assert torch.equal(resumed.model.state_dict()[name], vivid.model.state_dict()[name]), name
    assert not torch.equal(
        vivid.model.decoder.blocks[0].conv1.weight, start.model.decoder.blocks[0].conv1.weight
    )
    assert (tmp_path / "whole" / WEIGHTS_NAME).stat().st_size > faithful.stat().st_size


def test_what_does_not_fit_together_is_refused(footage, tmp_path, configuration):
    config = configuration(footage, tmp_path)
    stage = config.stages[0]
    with pytest.raises(TrainingError, match=r"change_weight needs num_frames of at least 2, got 1"):
        dataclasses.replace(stage, num_frames=1, change_weight=0.1)
    with pytest.raises(TrainingError, match=r"feature_weight judges what perceptual_weight"):
        dataclasses.replace(stage, feature_weight=0.1)
    with pytest.raises(TrainingError, match=r"trained_end must be one of faithful, vivid, got 'x'"):
        dataclasses.replace(config, trained_end="x")
    with pytest.raises(TrainingError, match=r'"vivid" needs initial_model'):
        dataclasses.replace(config, trained_end="vivid")
    with pytest.raises(TrainingError, match=r'"vivid" needs skip_transformer in every stage'):
        dataclasses.replace(config, trained_end="vivid", initial_model="oasis-tiny")
