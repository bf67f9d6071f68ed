import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from oasis_core.checkpoint import CheckpointError
from oasis_core.training.data import batches, make_shard
from oasis_core.training.footage import load_sources
from oasis_core.training.loop import train
from oasis_core.training.yardstick import is_yardstick, load_yardstick


@pytest.mark.slow
def test_the_yardstick_trains_by_the_same_trainer(footage, tmp_path, configuration, stop_after):
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
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(config, output_dir=str(tmp_path / "b")), stop_after(4))
    resumed = train(dataclasses.replace(config, output_dir=str(tmp_path / "b")))
    expected, actual = load_file(path), load_file(resumed)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_damaged_yardsticks_are_one_sentence(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no readable yardstick"):
        load_yardstick(tmp_path / "x.safetensors")
    assert not is_yardstick(tmp_path / "x.safetensors")
