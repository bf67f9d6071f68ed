"""Counting the memory of live tensors, operator by operator; what a plan adds to the count."""

from __future__ import annotations

import weakref

import torch
from torch.overrides import TorchFunctionMode

SAFETY = 1.15
"""Factor on counted bytes: allocators and kernels take more than the tensors alone."""
DEVICE_SHARE = 0.85
"""Share of a device's memory that a job may plan with."""


class LiveTensorBytes(TorchFunctionMode):
    """Counts the bytes of tensors that are made inside the block and not yet gone.

    A function mode, not a dispatch mode: the latter imports torch's compiler, which takes seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._holders: dict[int, int] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204 - torch's signature
        """Run a function and count what it returns."""
        out = function(*args, **(kwargs or {}))
        outside = {_storage_key(a) for a in args if isinstance(a, torch.Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor, outside)
        return out

    def _count(self, tensor: torch.Tensor, outside: set[int]) -> None:
        key, num_bytes = _storage_key(tensor), tensor.untyped_storage().nbytes()
        if key not in self._holders:
            if key in outside:
                return  # a view of a tensor from outside
            self.now += num_bytes
            self.peak = max(self.peak, self.now)
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(tensor, self._release, key, num_bytes)

    def _release(self, key: int, num_bytes: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.now -= num_bytes


def _storage_key(tensor: torch.Tensor) -> int:
    """What tells storages apart; those of the meta device have no address."""
    storage = tensor.untyped_storage()
    return storage._cdata if tensor.is_meta else storage.data_ptr()
