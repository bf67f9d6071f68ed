"""One training process, or one of several that `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import math
import os
import socket
from typing import Any

import torch
from torch import Tensor, nn

from ..extras import need
from .config import TrainingError


class Processes:
    """Where this process stands, and what several processes do together.

    A single process imports and communicates nothing.

    Raises:
        TrainingError: Several processes were started without accelerate, or sharded (FSDP).
    """

    def __init__(self) -> None:
        self.index, self.count = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._accelerator: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._join()

    def _join(self) -> None:
        accelerate = need("accelerate", extra="train", purpose="training with several processes")
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
            raise TrainingError(
                "this trainer keeps a whole copy of the weights in each process (DDP), FSDP would "
                "shard them, which Muon's whole matrices forbid; choose MULTI_GPU in `accelerate "
                "config`, or torchrun --nproc-per-node N -m oasis_core train CONFIG.toml"
            )
        self._accelerator = accelerate.Accelerator(
            cpu=self.device.type == "cpu", mixed_precision="no"
        )
        self.index = self._accelerator.process_index
        self.count = self._accelerator.num_processes
        self.device = self._accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.index == 0

    def wrap(self, module: nn.Module, *, has_unused: bool = False) -> nn.Module:
        """The module to call so that gradients become means over all processes.

        Args:
            module: Keeps its parameters; call the returned one in its place.
            has_unused: Some parameters get no gradient.
        """
        if self._accelerator is None:
            return module
        return nn.parallel.DistributedDataParallel(
            module,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=has_unused,
        )

    def mean(self, value: Tensor) -> float:
        """Mean of a scalar over the processes; NaN if it is not finite in one of them."""
        if self._accelerator is None:
            return value.item()
        total = self._accelerator.reduce(value.detach().float().reshape(1), reduction="sum")
        mean = total.item() / self.count
        return mean if math.isfinite(mean) else math.nan

    def check_same(self, value: str, what: str) -> None:
        """Refuse to go on where the processes do not stand at the same place.

        Args:
            value: Must be the same everywhere.
            what: It is about, for the message.

        Raises:
            TrainingError: It is not.
        """
        if self._accelerator is None:
            return
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, (value, socket.gethostname()))
        others = {host: found for found, host in values if found != values[0][0]}
        if others:
            host, found = next(iter(others.items()))
            raise TrainingError(
                f"all processes must have the same {what}: {values[0][1]} has {values[0][0]}, "
                f"{host} {found}; put data and output_dir on a file system that all machines share"
            )

    def wait(self) -> None:
        """Until every process is here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def share_of(self, batch_size: int) -> range:
        """The places of a global batch that this process fills.

        Raises:
            TrainingError: The batch cannot be divided among the processes.
        """
        if batch_size % self.count:
            raise TrainingError(
                f"batch_size must be a multiple of the number of processes ({self.count}), got "
                f"{batch_size}"
            )
        size = batch_size // self.count
        return range(self.index * size, (self.index + 1) * size)
