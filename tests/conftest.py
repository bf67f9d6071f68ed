"""Put the repository root last on the path: `nodes/` must never shadow ComfyUI's `nodes.py`."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))


def pytest_runtest_setup(item):
    """Skip what needs a GPU where there is none, unless skipping is not accepted."""
    if item.get_closest_marker("gpu") and not os.environ.get("OASIS_REQUIRE_GPU"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
