"""Where the segments are done: in this process, or on a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..choices import BUNDLED, ENGINES
from ._shared import Options, load_model

FILMS_PER_WORKER = 2
"""In work at once: one is planned, read or joined while another is upscaled."""
MOST_FILMS = 256
DEFAULT_SCALE = 4.0
"""Of models that work at any scale."""


class Engine(Protocol):
    """Upscales films."""

    num_at_once: int
    """Films that may be in work at the same time."""
    default_scale: float
    """Factor where the user named none: the model's own, if it has one."""

    def upscale_file(self, source: Any, destination: Any, **options: Any) -> Any:
        """As `oasis_core.upscale_file`."""

    def forecast_file(self, source: Any, destination: Any, **options: Any) -> Any:
        """As `oasis_core.upscale.forecast_file`."""

    def close(self) -> None:
        """Make films in work end soon."""


def add_engine_options(parser: Options) -> None:
    """Add --engine and what belongs to it."""
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help="ray: on several workers or machines"
    )
    parser.add_argument(
        "--address", metavar="auto|HOST", help="of a Ray cluster; without it one is started here"
    )
    parser.add_argument("--workers", type=int, help="each holds the model once")
    parser.add_argument("--gpus-per-worker", type=float, metavar="N", help="0.5: two share a GPU")


@contextmanager
def open_engine(arguments: argparse.Namespace) -> Iterator[Engine]:
    """Make ready what the options ask for.

    Raises:
        ValueError: An option is for the other engine, or the engine cannot be had.
    """
    if arguments.engine == "local":
        names = ("address", "workers", "gpus_per_worker")
        given = [name for name in names if getattr(arguments, name) is not None]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')} is for --engine ray; add that")
        yield _Local(arguments)
        return
    from ..cluster import Cluster

    for name in ("compile", "int8", "decoder_tile"):
        if getattr(arguments, name):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is for the local engine; leave it out with --engine ray")
    with Cluster(
        arguments.model,
        arguments.device,
        arguments.dtype,
        arguments.decoder,
        transformer=arguments.transformer == "on",
        detail=arguments.detail,
        address=arguments.address,
        num_workers=arguments.workers,
        gpus_per_worker=arguments.gpus_per_worker,
    ) as cluster:
        yield _Ray(cluster)


class _Local:
    num_at_once = 1

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._upscaler: Any = None

    def _load(self) -> Any:
        """The model, loaded when the first file has been checked and kept for those that follow."""
        if self._upscaler is None:
            self._upscaler = load_model(self._arguments)
        return self._upscaler

    @property
    def default_scale(self) -> float:
        # Known of the bundled model, so that its files are checked before it is loaded.
        is_bundled = self._arguments.model == BUNDLED[0]
        return DEFAULT_SCALE if is_bundled else _scale_of(self._load().traits)

    def upscale_file(self, source: Any, destination: Any, **options: Any) -> Any:
        from ..upscale import upscale_file

        return upscale_file(source, destination, upscaler=self._load, **options)

    def forecast_file(self, source: Any, destination: Any, **options: Any) -> Any:
        from ..upscale import forecast_file

        return forecast_file(source, destination, upscaler=self._load, **options)

    def close(self) -> None:
        pass


class _Ray:
    def __init__(self, cluster: Any) -> None:
        self.num_at_once = max(2, min(MOST_FILMS, FILMS_PER_WORKER * cluster.share.num_workers))
        self.default_scale = _scale_of(cluster.pool.facts.traits)
        self.upscale_file = cluster.upscale_file
        self.forecast_file = cluster.forecast_file
        self.close = cluster.pool.close


def _scale_of(traits: Any) -> float:
    return traits.native_scale if traits.reads == "source" else DEFAULT_SCALE
