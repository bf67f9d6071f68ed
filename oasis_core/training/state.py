"""What a run needs to continue, on disk: complete or not at all."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoint import write_safetensors
from .config import TrainingError

STATE_NAME = "state.safetensors"


def write_state(path: Path, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
    """Write a state; an older one is replaced only by a complete one.

    Raises:
        TrainingError: The disk is full or cannot be written; the older state is untouched.
    """
    position = {**position, "saved_at": time.strftime("%Y-%m-%d %H:%M:%S")}
    with keep_older(path):
        write_safetensors(path, tensors, {"position": json.dumps(position)})


class keep_older:  # noqa: N801 (reads as a statement)
    """Turns a failed write into one sentence, and leaves the older file and no piece behind.

    Args:
        path: The file that is being written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Clean up after an error of the disk."""
        if not isinstance(error, OSError | SafetensorError):
            return
        self.path.with_name(self.path.name + ".part").unlink(missing_ok=True)
        older = "the one before is untouched" if self.path.exists() else "there is none before"
        raise TrainingError(
            f"{self.path} could not be written ({error}), {older}; free some space and give the "
            "same command again to go on"
        ) from error


def read_state(path: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The position and the tensors of a state.

    Raises:
        TrainingError: The state is damaged or belongs to another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            if position["fingerprint"] != fingerprint:
                raise TrainingError(
                    f"{path} was made with another model, data or seed; use another output_dir"
                )
            # Copies: Windows replaces no file while a tensor still maps it.
            names = list(file.keys())
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"the saved state {path} is damaged ({error}); remove it to start afresh"
        ) from error
    return position, tensors
