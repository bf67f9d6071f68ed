"""Films on a real local Ray cluster: workers and drivers die, files stay those of the plain run."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import oasis_core
from oasis_core.cluster import Cluster
from oasis_core.upscale import journal_path
from oasis_core.upscale.status import run_statuses

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {"scale": 4, "segment_frames": 6}

ray = pytest.importorskip("ray", reason="needs the extra `cluster`")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
    context = ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False
    ).address_info
    yield context["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def plain(model_file):
    """Upscale without a cluster."""
    upscaler = oasis_core.load(model_file, device="cpu", dtype="float32")

    def run(source, destination, **options):
        return oasis_core.upscale_file(source, destination, model=upscaler, **(OPTIONS | options))

    return run


@pytest.fixture
def cluster(address, model_file):
    with Cluster(str(model_file), "cpu", "float32", num_workers=2) as cluster:
        yield cluster


class StopError(Exception):
    pass


def stop_after(num_frames):
    def on_progress(done, _):
        if done >= num_frames:
            raise StopError

    return on_progress


def test_a_killed_worker_changes_nothing(cluster, plain, make_film, tmp_path):
    source = make_film(tmp_path / "film.mp4")
    plain(source, tmp_path / "plain.mp4")
    seen = []

    def kill_a_busy_worker(done, total):
        seen.append((done, total))
        if cluster.pool.num_retries == 0:
            busy = [member for member in cluster.pool._members if member.task is not None]
            if busy:
                with suppress(ProcessLookupError):  # killed a moment ago and not yet missed
                    os.kill(busy[0].facts.pid, signal.SIGKILL)

    report = cluster.upscale_file(
        source, tmp_path / "ray.mp4", on_progress=kill_a_busy_worker, **OPTIONS
    )
    assert cluster.pool.num_retries >= 1
    assert (report.frames, report.num_shots, report.num_resumed_segments) == (72, 3, 0)
    assert (tmp_path / "ray.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()
    assert not journal_path(tmp_path / "ray.mp4").exists()
    assert seen[-1] == (72, 72)


def test_each_engine_continues_the_other(cluster, plain, make_film, tmp_path):
    source = make_film(tmp_path / "film.mkv")
    plain(source, tmp_path / "whole.mp4")
    for name, first, second in (
        ("a.mp4", plain, cluster.upscale_file),
        ("b.mp4", cluster.upscale_file, plain),
    ):
        with pytest.raises(StopError):
            first(source, tmp_path / name, on_progress=stop_after(30), **OPTIONS)
        (status,) = run_statuses(tmp_path / name)
        assert status.state == "stopped"
        assert status.num_frames >= 12
        report = second(source, tmp_path / name, **OPTIONS)
        assert report.num_resumed_segments >= 2
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_films_share_the_workers_and_fail_alone(cluster, plain, make_film, tmp_path):
    films = [make_film(tmp_path / f"{n}.mp4", lengths=(4 + 5 * n,), seed=n) for n in range(4)]
    (tmp_path / "broken.mp4").write_bytes(films[0].read_bytes()[:900])
    sources = [*films, tmp_path / "broken.mp4"]

    def do(source):
        try:
            return cluster.upscale_file(source, source.with_suffix(".ray.mp4"), **OPTIONS)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(5) as threads:
        *reports, error = threads.map(do, sources)
    assert "truncated" in str(error) or "incomplete" in str(error)
    for n, (film, report) in enumerate(zip(films, reports, strict=True)):
        assert report.frames == 4 + 5 * n
        plain(film, film.with_suffix(".plain.mp4"))
        assert film.with_suffix(".ray.mp4").read_bytes() == (
            film.with_suffix(".plain.mp4").read_bytes()
        )


def write_image_model(path):
    """A "RealESRGAN Compact" of 2x with one hidden layer and random weights."""
    generator = torch.Generator().manual_seed(0)
    state = {f"body.{index}.weight": torch.full((8,), 0.2) for index in (1, 3)}
    for name, written, read in (("body.0", 8, 3), ("body.2", 8, 8), ("body.4", 12, 8)):
        state[f"{name}.weight"] = torch.randn(written, read, 3, 3, generator=generator) * 0.05
        state[f"{name}.bias"] = torch.zeros(written)
    save_file(state, path)
    return path


def one_worker_does_as_the_plain_run(address, source, model, options, **asked):
    """A worker's model is that of this process, and so is what it makes; gives its traits."""
    upscaler = oasis_core.load(model, "cpu", "float32", **options)
    expected = oasis_core.upscale_file(
        source, source.with_suffix(".plain.mp4"), model=upscaler, **asked
    )
    with Cluster(
        str(model), "cpu", "float32", address=address, num_workers=1, **options
    ) as cluster:
        facts = cluster.pool.facts
        report = cluster.upscale_file(source, source.with_suffix(".ray.mp4"), **asked)
    assert (facts.traits, facts.model_hash) == (upscaler.traits, upscaler.model_hash)
    assert (report.frames, report.width) == (expected.frames, expected.width)
    result = source.with_suffix(".ray.mp4").read_bytes()
    assert result == source.with_suffix(".plain.mp4").read_bytes()
    return facts.traits


def test_an_image_model_runs_on_workers_as_here(address, make_film, tmp_path):
    pytest.importorskip("spandrel", reason="needs the extra `image-models`")
    source = make_film(tmp_path / "film.mp4", lengths=(9, 4))
    model = write_image_model(tmp_path / "2x-random.safetensors")
    asked = {"scale": 3, "segment_frames": 4, "tile_px": 64}
    traits = one_worker_does_as_the_plain_run(address, source, model, {}, **asked)
    assert (traits.family, traits.reads, traits.native_scale) == ("image", "source", 2)


def test_a_detail_reaches_the_workers(address, make_film, tmp_path):
    source = make_film(tmp_path / "film.mp4", lengths=(4,))
    one_worker_does_as_the_plain_run(address, source, "oasis-tiny", {"detail": 0.25}, scale=2)


def test_a_killed_driver_is_continued(address, plain, model_file, make_film, tmp_path):
    source, target = make_film(tmp_path / "film.mp4", lengths=(70, 70)), tmp_path / "out.mp4"
    words = ["upscale", source, target, "--scale", "4", "--segment", "6", "--device", "cpu"]
    words += ["--model", model_file, "--dtype", "float32"]
    words += ["--engine", "ray", "--address", address, "--workers", "2", "--json"]
    command = [sys.executable, "-m", "oasis_core", *map(str, words)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    records = journal_path(target) / "segments.jsonl"
    deadline = time.monotonic() + 300
    while not (records.exists() and records.read_bytes().count(b"\n") >= 3):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run_statuses(target)[0].state == "running"
    driver.kill()
    driver.wait()
    (status,) = run_statuses(tmp_path)
    assert (status.state, status.total_frames) == ("stopped", 140)
    assert 18 <= status.num_frames < 140
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert '"num_resumed_segments": 0' not in again.stdout
    plain(source, tmp_path / "plain.mp4")
    assert target.read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_workers_leave_the_transformer_out_too(address, model_file, make_film, tmp_path):
    source, target = make_film(tmp_path / "in.mp4", lengths=(8,)), tmp_path / "out.mp4"
    options = {"transformer": False, "num_workers": 1}
    with Cluster(str(model_file), "cpu", "float32", **options) as cluster:
        report = cluster.upscale_file(source, target, **OPTIONS)
    upscaler = oasis_core.load(model_file, device="cpu", dtype="float32", transformer=False)
    oasis_core.upscale_file(source, tmp_path / "plain.mp4", model=upscaler, **OPTIONS)
    assert report.model_hash == upscaler.model_hash
    assert target.read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_workers_take_the_detail_too(address, make_film, tmp_path):
    source, target = make_film(tmp_path / "in.mp4", lengths=(8,)), tmp_path / "out.mp4"
    with Cluster("oasis-tiny", "cpu", "float32", detail=0.25, num_workers=1) as cluster:
        report = cluster.upscale_file(source, target, **OPTIONS)
    upscaler = oasis_core.load("oasis-tiny", device="cpu", dtype="float32", detail=0.25)
    oasis_core.upscale_file(source, tmp_path / "plain.mp4", model=upscaler, **OPTIONS)
    assert report.model_hash == upscaler.model_hash
    assert report.model_hash.endswith("-detail0.25")
    assert target.read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_a_worker_without_the_model_file_is_named(address, tmp_path):
    with pytest.raises(ValueError, match=r"worker on \S+: .*nowhere\.safetensors"):
        Cluster(str(tmp_path / "nowhere.safetensors"), "cpu", "float32", num_workers=1)


def test_more_than_the_cluster_has_is_refused(address, model_file):
    with pytest.raises(ValueError, match=r"asks for 1 GPU and the cluster has 0"):
        Cluster(str(model_file), num_workers=1, gpus_per_worker=1)

    @ray.remote(num_cpus=2)
    def take_all() -> None:
        time.sleep(60)

    hog = take_all.remote()
    time.sleep(1)
    with pytest.raises(ValueError, match=r"must be ready within 2 s .* or is busy"):
        Cluster(str(model_file), "cpu", "float32", num_workers=1, start_s=2)
    ray.cancel(hog, force=True)
