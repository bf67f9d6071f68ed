import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from oasis_core.evaluation.pictures import encode_picture
from oasis_core.training.config import TrainingError
from oasis_core.training.processes import Processes

RUNNER = Path(__file__).parent / "train_in_process.py"
CONFIG = """
model = "small"
data_dirs = ["{data}"]
output_dir = "{out}"
samples_per_shard = 8
uses_per_sample = 1
autocast_bf16 = false

[[stages]]
name = "convolutions"
num_steps = 2
learning_rate = 1e-3
final_learning_rate = 1e-3
warmup_steps = 1
batch_size = 2
num_frames = 2
crop_px = 32
skip_transformer = true
degradations = {{ light = 1.0 }}

[[stages]]
name = "routed"
num_steps = 3
learning_rate = 1e-3
final_learning_rate = 1e-3
warmup_steps = 1
batch_size = 2
num_frames = 2
crop_px = 32
temporal_weight = 0.1
adversarial_weight = 0.01
degradations = {{ light = 1.0 }}
calibrate_window_heads = 4
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(config, index, count, port):
    environment = {
        **os.environ,
        "RANK": str(index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    return subprocess.Popen(
        [sys.executable, str(RUNNER), str(config)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(tmp_path, name, count, batch_size=2):
    config = tmp_path / f"{name}.toml"
    text = CONFIG.format(data=tmp_path / "data", out=tmp_path / name)
    config.write_text(text.replace("batch_size = 2", f"batch_size = {batch_size}"))
    port = free_port()
    processes = [start(config, index, count, port) for index in range(count)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [process.returncode for process in processes], "\n".join(outputs)


@pytest.fixture
def footage(tmp_path):
    (tmp_path / "data").mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        texture = torch.rand(1, 3, 24, 24, generator=generator)
        image = torch.nn.functional.interpolate(texture, size=(96, 96), mode="bicubic")[0]
        (tmp_path / "data" / f"{index}.png").write_bytes(encode_picture(image))
    return tmp_path


@pytest.mark.slow
def test_two_processes_train_like_one_at_the_same_global_batch(footage):
    pytest.importorskip("accelerate")
    for name, count in (("one", 1), ("two", 2)):
        codes, output = run(footage, name, count)
        assert codes == [0] * count, output
    one, two = (load_file(footage / name / "state.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, expected in one.items():
        if name.startswith(("model.", "ema.", "discriminator.")):
            # Muon and Adam's division enlarge the last bit of single small gradients,
            # so whole tensors are compared.
            gap = (two[name] - expected).norm() / expected.norm().clamp_min(1e-6)
            assert gap < 2e-2, f"{name}: {gap}"
    # These start at zero, so their norm is all movement, and a wrong batch would show in full.
    for name in ("model.decoder.conv.weight", "model.transformer.head.weight"):
        assert one[name].abs().max() > 1e-3


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(footage):
    pytest.importorskip("accelerate")
    codes, output = run(footage, "odd", 2, batch_size=3)
    assert all(codes)
    assert "batch_size must be a multiple of the number of processes (2), got 3" in output


def test_one_process_has_the_whole_batch_and_wraps_nothing():
    processes = Processes()
    module = torch.nn.Linear(2, 2)
    assert processes.wrap(module) is module
    assert processes.share_of(5) == range(5)
    assert processes.mean(torch.tensor(2.5)) == 2.5
    assert processes.is_main


def test_sharded_training_is_refused_in_one_sentence(monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match="FSDP would shard them"):
        Processes()
