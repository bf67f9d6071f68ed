"""A rehearsal of several nodes on one machine: torchrun on loopback, ranks killed and restarted."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from oasis_core.evaluation.pictures import encode_picture
from oasis_core.training.config import TrainingError
from oasis_core.training.processes import Processes
from oasis_core.training.state import newest_state, read_state, save_state

pytest.importorskip("accelerate", reason="needs the extra `train`")
pytestmark = pytest.mark.slow
RUNNER = Path(__file__).parent / "train_in_process.py"
CONFIG = """
model = "small"
data_dirs = ["{data}"]
output_dir = "{out}"
samples_per_shard = 8
uses_per_sample = 1
autocast_bf16 = false
save_every = 2
sharded_state = {sharded}

[[stages]]
name = "only"
num_steps = 6
learning_rate = 1e-3
final_learning_rate = 1e-3
warmup_steps = 1
batch_size = 2
num_frames = 2
crop_px = 32
degradations = {{ light = 1.0 }}
"""


@pytest.fixture
def footage(tmp_path):
    (tmp_path / "data").mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        texture = torch.rand(1, 3, 24, 24, generator=generator)
        image = torch.nn.functional.interpolate(texture, size=(96, 96), mode="bicubic")[0]
        (tmp_path / "data" / f"{index}.png").write_bytes(encode_picture(image))
    return tmp_path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_config(folder, name, *, sharded=True, out=None):
    config = folder / f"{name}.toml"
    out = out or folder / name
    config.write_text(
        CONFIG.format(data=folder / "data", out=out, sharded=str(sharded).lower()), encoding="utf-8"
    )
    return config


def torchrun(config, *options, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, str(RUNNER), str(config)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two_nodes(*configs):
    """One launcher for each node, as two machines would start them."""
    common = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    common += [f"--master-port={free_port()}"]
    nodes = [
        torchrun(config, *common, f"--node-rank={rank}") for rank, config in enumerate(configs)
    ]
    outputs = [node.communicate(timeout=900)[0] for node in nodes]
    return [node.returncode for node in nodes], "\n".join(outputs)


def final_state(folder):
    path = newest_state(folder)
    if path.is_dir():
        position = json.loads((path / "position.json").read_text())
    else:
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
    return read_state(path, position["fingerprint"])


def assert_same(one, other):
    (position, tensors), (other_position, others) = one, other
    assert position["stage_index"] == other_position["stage_index"] == 1
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_two_nodes_train_and_a_killed_rank_is_restarted_to_the_same_weights(footage):
    """Two nodes; then one node of two ranks, one of them killed, which torchrun starts again."""
    config = write_config(footage, "nodes")
    codes, output = two_nodes(config, config)
    assert codes == [0, 0], output
    (state,) = (footage / "nodes").glob("state-*")
    assert sorted(path.name for path in state.glob("part-*")) == [
        "part-00001-of-00002.safetensors",
        "part-00002-of-00002.safetensors",
    ]
    assert not (footage / "nodes" / "state.safetensors").exists()
    elastic = torchrun(
        write_config(footage, "elastic"),
        "--standalone",
        "--nproc-per-node=2",
        "--max-restarts=2",
        OASIS_TEST_KILL=f"1:5:{footage / 'killed'}",
    )
    output = elastic.communicate(timeout=900)[0]
    assert elastic.returncode == 0, output
    assert (footage / "killed").exists()
    assert_same(final_state(footage / "elastic"), final_state(footage / "nodes"))
    assert (footage / "nodes" / "oasis.safetensors").exists()


def test_any_number_of_processes_goes_on_from_a_sharded_state(footage):
    """Two ranks stop for good after step 4; one process finishes, with a whole state."""
    stopped = torchrun(
        write_config(footage, "run"),
        "--standalone",
        "--nproc-per-node=2",
        "--max-restarts=0",
        OASIS_TEST_KILL=f"0:5:{footage / 'killed'}",
    )
    output = stopped.communicate(timeout=900)[0]
    assert stopped.returncode != 0
    position, _ = final_state(footage / "run")
    assert (position["step"], position["num_parts"]) == (4, 2), output
    alone = write_config(footage, "run", sharded=False)
    subprocess.run([sys.executable, str(RUNNER), str(alone)], check=True, timeout=900, env={
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[3])
    })  # fmt: skip
    assert (footage / "run" / "state.safetensors").exists()
    assert not list((footage / "run").glob("state-*"))


def test_nodes_that_do_not_share_the_output_folder_are_refused(footage):
    once = torchrun(
        write_config(footage, "shared"),
        "--standalone",
        "--nproc-per-node=1",
        OASIS_TEST_KILL=f"0:5:{footage / 'killed'}",
    )
    once.communicate(timeout=900)
    configs = [
        write_config(footage, "shared"),
        write_config(footage, "elsewhere", out=footage / "elsewhere"),
    ]
    codes, output = two_nodes(*configs)
    assert all(codes)
    assert "all processes must have the same state" in output
    assert "stage 1, step 4" in output


class TwoWriters:
    """Stands for the processes of `save_state` where only who writes what matters."""

    def __init__(self, index):
        self.index, self.count, self.is_main = index, 2, index == 0

    def wait(self):
        pass


def test_a_sharded_state_is_complete_or_not_there(tmp_path):
    tensors = {f"w{i}": torch.full((i + 1, 3), float(i)) for i in range(7)}
    position = {"stage_index": 0, "step": 3, "fingerprint": "f"}
    first, second = TwoWriters(0), TwoWriters(1)
    (tmp_path / "state-000-000000003").mkdir()
    save_state(tmp_path, tensors, position, second, is_sharded=True)
    assert newest_state(tmp_path) is None  # nobody said that it is complete
    save_state(tmp_path, tensors, position, first, is_sharded=True)
    found, loaded = read_state(newest_state(tmp_path), "f")
    assert found["step"] == 3
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    sizes = [part.stat().st_size for part in newest_state(tmp_path).glob("part-*")]
    assert max(sizes) < 2 * min(sizes)
    (newest_state(tmp_path) / "part-00002-of-00002.safetensors").unlink()
    with pytest.raises(TrainingError, match="is damaged"):
        read_state(newest_state(tmp_path), "f")
    save_state(tmp_path, tensors, position | {"step": 4}, Processes(), is_sharded=False)
    assert newest_state(tmp_path).name == "state.safetensors"
    assert not list(tmp_path.glob("state-*"))
