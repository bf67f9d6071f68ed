"""Several machines on one: Ray nodes that are lost, see other files, or hold another version."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import oasis_core
from oasis_core.cluster import Cluster

ray = pytest.importorskip("ray", reason="needs the extra `cluster`")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {"scale": 4, "segment_frames": 6}
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
HAS_NAMESPACES = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
)
needs_namespaces = pytest.mark.skipif(
    not HAS_NAMESPACES, reason="needs Linux and the right to make mount namespaces (root)"
)


@pytest.fixture(scope="module")
def head():
    """A cluster whose head does nothing but know the others."""
    from ray.cluster_utils import Cluster as Machines

    os.environ.update(QUIET)
    machines = Machines(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    ray.init(address=machines.address, log_to_driver=False)
    yield machines
    ray.shutdown()
    machines.shutdown()


@pytest.fixture
def machines(head):
    """The head, without what an earlier test added."""
    yield head
    for node in list(head.worker_nodes):
        head.remove_node(node, False)
    wait_for(lambda: len(alive()) == 1, "end of the nodes")


@contextmanager
def machine_of_its_own(address, mounts="true", **environment):
    """A node in its own mount namespace, where a shell may mount what it likes beforehand."""
    command = [
        f"{mounts} && exec {sys.executable} -m ray.scripts.scripts start --address={address} "
        "--num-cpus=1 --block --object-store-memory=100000000"
    ]
    before = len(alive())
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", *command],
        env={**os.environ, **QUIET, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(alive()) > before, "the node", lambda: node.poll() is None)
        yield node
    finally:
        node.terminate()  # `ray start --block` takes its processes along
        node.wait(30)


def alive():
    return [found for found in ray.nodes() if found["Alive"]]


def wait_for(is_there, what, may_go_on=lambda: True, seconds=300):
    deadline = time.monotonic() + seconds
    while not is_there():
        assert may_go_on(), f"{what} ended"
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def plain(model_file):
    upscaler = oasis_core.load(model_file, device="cpu", dtype="float32")

    def run(source, destination):
        return oasis_core.upscale_file(source, destination, model=upscaler, **OPTIONS)

    return run


def test_a_machine_lost_in_the_middle_changes_nothing(
    machines, model_file, plain, make_film, tmp_path
):
    source = make_film(tmp_path / "film.mp4", lengths=(40, 12, 40))
    plain(source, tmp_path / "plain.mp4")
    _, second = machines.add_node(num_cpus=1), machines.add_node(num_cpus=1)
    lost = []

    def lose_a_machine(done, _):
        busy = sum(member.task is not None for member in cluster.pool._members)
        if not lost and done >= 24 and busy == 2:
            # In a thread: the driver must go on meanwhile.
            thread = threading.Thread(target=machines.remove_node, args=(second, False))
            thread.start()
            lost.append(thread)

    with Cluster(str(model_file), "cpu", "float32", num_workers=2, start_s=400) as cluster:
        wait_for(lambda: all(m.facts for m in cluster.pool._members), "second worker")
        report = cluster.upscale_file(
            source, tmp_path / "ray.mp4", on_progress=lose_a_machine, **OPTIONS
        )
        lost[0].join()
        assert cluster.pool.num_retries >= 1
    wait_for(lambda: len(alive()) == 2, "loss of the node")
    assert report.frames == 92
    assert (tmp_path / "ray.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_when_every_machine_is_lost_the_run_waits_for_a_new_one(
    machines, model_file, plain, make_film, tmp_path
):
    source = make_film(tmp_path / "film.mp4", lengths=(36,))
    plain(source, tmp_path / "plain.mp4")
    only = machines.add_node(num_cpus=1)
    is_in_the_middle, is_lost = threading.Event(), threading.Event()

    def wait_for_the_loss(done, _):
        if done >= 12:
            is_in_the_middle.set()
            is_lost.wait(300)

    with (
        ThreadPoolExecutor(1) as threads,
        Cluster(str(model_file), "cpu", "float32", num_workers=1, start_s=400) as cluster,
    ):
        target = tmp_path / "ray.mp4"
        run = threads.submit(
            cluster.upscale_file, source, target, on_progress=wait_for_the_loss, **OPTIONS
        )
        # Ray sets signal handlers for a new node, which only the main thread may.
        wait_for(is_in_the_middle.is_set, "progress", lambda: not run.done())
        machines.remove_node(only, False)
        is_lost.set()
        wait_for(lambda: len(alive()) == 1, "loss of the node")
        machines.add_node(num_cpus=1)
        run.result(300)
        assert cluster.pool.num_retries >= 1
    assert (tmp_path / "ray.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()


@needs_namespaces
def test_a_machine_without_the_model_file_is_named(machines, model_file):
    hidden = f"mount -t tmpfs none {model_file.parent}"
    with (
        machine_of_its_own(machines.address, hidden),
        pytest.raises(ValueError, match=rf"worker on \S+: .*{re.escape(model_file.name)}"),
    ):
        Cluster(str(model_file), "cpu", "float32", num_workers=1, start_s=400)


@needs_namespaces
def test_a_machine_with_another_model_of_that_name_is_refused(machines, model_file, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    bundled = ROOT / "oasis_core" / "weights" / "oasis-tiny.safetensors"
    shutil.copy(bundled, other / model_file.name)
    machines.add_node(num_cpus=1)

    def begin():
        # Whichever worker is ready second is refused, perhaps while the first one works.
        with Cluster(str(model_file), "cpu", "float32", num_workers=2, start_s=400) as cluster:
            wait_for(lambda: cluster.pool._failure is not None, "refusal")
            raise cluster.pool._failure

    with (
        machine_of_its_own(machines.address, f"mount --bind {other} {model_file.parent}"),
        pytest.raises(ValueError, match="all workers must have the same model file"),
    ):
        begin()


@needs_namespaces
def test_a_machine_with_another_version_is_refused(machines, model_file, tmp_path):
    shutil.copytree(
        ROOT / "oasis_core",
        tmp_path / "other" / "oasis_core",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    init = tmp_path / "other" / "oasis_core" / "version.py"
    init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "0.0.1"', init.read_text()))
    there = f"mount --bind {tmp_path / 'other' / 'oasis_core'} {ROOT / 'oasis_core'}"
    with (
        machine_of_its_own(machines.address, there),
        pytest.raises(ValueError, match=r"must have the driver's versions and has oasis 0\.0\.1"),
    ):
        Cluster(str(model_file), "cpu", "float32", num_workers=1, start_s=400)


@needs_namespaces
def test_a_source_that_only_the_driver_has_is_refused(machines, model_file, make_film, tmp_path):
    (tmp_path / "in").mkdir()
    source = make_film(tmp_path / "in" / "film.mp4", lengths=(12,))
    with (
        machine_of_its_own(machines.address, f"mount -t tmpfs none {source.parent}"),
        Cluster(str(model_file), "cpu", "float32", num_workers=1, start_s=400) as cluster,
        pytest.raises(ValueError, match=r"film\.mp4' cannot be read on .* or name their URL"),
    ):
        cluster.upscale_file(source, tmp_path / "ray.mp4", **OPTIONS)


@needs_namespaces
def test_results_travel_where_nothing_is_shared(
    machines, model_file, plain, make_film, tmp_path, caplog, file_server
):
    pytest.importorskip("aiohttp", reason="needs fsspec[http]")
    (tmp_path / "in").mkdir()
    source = make_film(tmp_path / "in" / "film.mkv")
    plain(source, tmp_path / "plain.mkv")
    (tmp_path / "out").mkdir()
    hidden = f"mount -t tmpfs none {source.parent} && mount -t tmpfs none {tmp_path / 'out'}"
    with (
        file_server(source.parent) as server,
        machine_of_its_own(machines.address, hidden),
        Cluster(str(model_file), "cpu", "float32", num_workers=1, start_s=400) as cluster,
    ):
        report = cluster.upscale_file(
            f"{server.url}/film.mkv", tmp_path / "out" / "ray.mkv", **OPTIONS
        )
    assert report.frames == 72
    assert caplog.text.count("its results travel over the network") == 1
    assert (tmp_path / "out" / "ray.mkv").read_bytes() == (tmp_path / "plain.mkv").read_bytes()
