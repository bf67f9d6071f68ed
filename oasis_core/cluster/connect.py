"""Finding or starting a Ray cluster, and sharing its processors out."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any

from ..extras import need
from .worker import ClusterError

LOCAL = "local"
AUTO = "auto"
DEFAULT_PORT = 6379
CONNECT_S = 5.0
"""How long an address may take to answer."""
CPUS_PER_WORKER = 2
"""Of workers without a GPU, unless their number is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many workers, and what each gets."""

    num_workers: int
    num_cpus: int
    """Also its threads."""
    num_gpus: float


def import_ray() -> Any:
    """Ray, told to keep quiet and to report nothing.

    Raises:
        MissingExtraError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its future default; today's hides the GPUs from workers that ask for none, with a warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    return need("ray", extra="cluster", purpose="the engine ray")


def connect(ray: Any, address: str | None, num_workers: int | None) -> bool:
    """Join a cluster, or start one on this machine.

    Args:
        ray: From `import_ray`.
        address: None or "local" starts one here; "auto" finds the one this machine is part of;
            otherwise HOST or HOST:PORT of its head.
        num_workers: Wanted workers, for which a cluster that is started here has room.

    Returns:
        Whether this call connected, and so somebody should disconnect.

    Raises:
        ClusterError: There is none, or it does not answer in time.
    """
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address in (None, LOCAL):
        # Ray also reads RAY_ADDRESS; "local" keeps it from joining somebody's cluster by accident.
        num_cpus = max(_num_cpus(), num_workers or 1)
        # Ray runs workers at nice 15, for the sake of its own processes on busy servers.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(address=LOCAL, num_cpus=num_cpus, include_dashboard=False, **options)
        return True
    if address != AUTO:
        address = _check_reachable(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = "running on this machine" if address == AUTO else f"at {address} that this machine"
        rest = "" if address == AUTO else " is part of"
        raise ClusterError(
            f"there must be a Ray cluster {where}{rest}, and there is none "
            f"({_first_line(error)}); start it with 'ray start', or leave --address out"
        ) from error
    return True


def share_out(
    ray: Any, *, num_workers: int | None, gpus_per_worker: float | None, device: str
) -> Share:
    """Decide how many workers there are and what each gets.

    Args:
        ray: Connected.
        num_workers: Fixed by the user, or None.
        gpus_per_worker: Likewise; a fraction lets workers share a GPU, so that one decodes and
            encodes while another's model runs.
        device: What the user wants; "cpu" uses no GPU.

    Raises:
        ClusterError: The cluster does not have so much.
    """
    if num_workers is not None and num_workers < 1:
        raise ClusterError(f"workers must be at least 1, got {num_workers}")
    if gpus_per_worker is not None and not 0 <= gpus_per_worker <= 8:
        raise ClusterError(f"gpus_per_worker must be from 0 to 8, got {gpus_per_worker}")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    num_gpus = sum(node.get("GPU", 0) for node in nodes)
    is_cpu = device == "cpu" or (gpus_per_worker is None and not num_gpus)
    each = 0.0 if is_cpu else (1.0 if gpus_per_worker is None else gpus_per_worker)
    if each > 0:
        if num_gpus < each:
            raise ClusterError(
                f"each worker asks for {each:g} GPU and the cluster has {num_gpus:g}; give "
                "--gpus-per-worker 0 to work without"
            )
        num_workers = num_workers or int(sum(node.get("GPU", 0) // each for node in nodes))
        room = max(1, sum(cpus) // num_workers)
        return Share(num_workers=num_workers, num_cpus=min(room, max(cpus)), num_gpus=each)
    if num_workers is None:
        num_workers = max(1, sum(count // CPUS_PER_WORKER for count in cpus))
    num_cpus = max(1, min(sum(cpus) // num_workers, max(cpus)))
    return Share(num_workers=num_workers, num_cpus=num_cpus, num_gpus=0.0)


def _num_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_reachable(address: str) -> str:
    """Ask the address to answer now: Ray itself would wait for a minute, and say it in a page."""
    if "://" in address:
        raise ClusterError(
            f"address must be auto or HOST[:PORT] of the cluster's head, got {address!r}; run "
            "'oasis' on a machine of the cluster"
        )
    host, _, port = address.partition(":")
    try:
        number = int(port or DEFAULT_PORT)
        with socket.create_connection((host, number), timeout=CONNECT_S):
            return f"{host}:{number}"
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"the Ray cluster at {host}:{port or DEFAULT_PORT} must answer within {CONNECT_S:g} s "
            f"and does not ({_first_line(error)}); check the address, and that 'ray start --head' "
            "runs there"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
