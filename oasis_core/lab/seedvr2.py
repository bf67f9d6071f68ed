"""SeedVR2-3B's network, from the user's own checkout of ByteDance-Seed/SeedVR, as a yardstick.

Nothing of it is part of this project. It runs in a process of its own with random weights, timed as
our stages are; what its checkout lacks of optional kernels is replaced by torch's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG = Path("configs_3b") / "main.yaml"
TIMEOUT_S = 3600
STDERR_LINES = 3
STRIDE_PX = 16


def bench_seedvr2(
    checkout: Path,
    *,
    size: tuple[int, int],
    num_frames: int,
    num_runs: int,
    device: str,
    is_shrunken: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Time encoder, transformer (one step) and decoder over random frames.

    Args:
        checkout: Folder with `configs_3b/main.yaml`; its requirements must be importable, by
            `.venv/bin/python` in it or by this interpreter.
        size: (width, height) of the result, multiples of 16.
        num_frames: 4k+1.
        num_runs: Measured runs of each; the fastest counts.
        device: "cuda" or "cpu".
        is_shrunken: A narrow, shallow network of the same kind, to try this out on a CPU.
        timeout_s: Seconds after which it is stopped.

    Returns:
        `stages` (seconds of each), `seconds`, `fps`, `parameters`, `attention` (whose kernel),
        `peak_bytes`.

    Raises:
        ValueError: It is no such checkout, its network has no such size, or its code failed or
            took too long.
    """
    if any(side % STRIDE_PX for side in size):
        raise ValueError(
            f"SeedVR2 takes sides that are multiples of {STRIDE_PX} px, got {size[0]}x{size[1]}; "
            "choose another --size"
        )
    if not (checkout / CONFIG).is_file():
        raise ValueError(
            f"--compare must be a checkout of github.com/ByteDance-Seed/SeedVR with {CONFIG}, got "
            f"{checkout}"
        )
    # The child runs in it, where a relative path would lead elsewhere.
    checkout = checkout.resolve()
    settings = {
        "checkout": str(checkout),
        "size": list(size),
        "frames": num_frames,
        "runs": num_runs,
        "device": device,
        "is_shrunken": is_shrunken,
    }
    return _run(settings, checkout, timeout_s)


def bench_beside(checkout: Path, ours: dict[str, Any], *, num_runs: int) -> dict[str, Any]:
    """Time it on just the frames that a stages bench restored.

    Args:
        checkout: As for `bench_seedvr2`.
        ours: Result of `bench_stages`.
        num_runs: Measured runs of each; the fastest counts.

    Returns:
        As `bench_seedvr2`, with `times_ours`: how many times as long it took.

    Raises:
        ValueError: As for `bench_seedvr2`.
    """
    width, height = ours["size"]
    theirs = bench_seedvr2(
        checkout,
        size=(width, height),
        num_frames=ours["frames"],
        num_runs=num_runs,
        device=ours["device_type"],
    )
    return theirs | {"times_ours": theirs["seconds"] / ours["seconds"]}


def _run(settings: dict[str, Any], checkout: Path, timeout_s: float) -> dict[str, Any]:
    """Hand the settings to the child process; its results."""
    own = checkout / ".venv" / "bin" / "python"
    root = str(Path(__file__).resolve().parents[2])
    paths = filter(None, (root, os.environ.get("PYTHONPATH")))
    command = [str(own if own.exists() else sys.executable), "-m", f"{__package__}.seedvr2_child"]
    try:
        done = subprocess.run(
            [*command, json.dumps(settings)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"SeedVR2's own code must be done within {timeout_s:g} s, but it was stopped then; "
            "compare on a faster device"
        ) from error
    if done.returncode:
        last = " / ".join(done.stderr.strip().splitlines()[-STDERR_LINES:])
        raise ValueError(f"SeedVR2's own code must run here, but it failed: {last[:500]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
