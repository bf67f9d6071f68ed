"""Lets tests of this folder import the plain modules that lie in it, such as `infvsr_files`."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def one_thread():
    """Frames this small are slower with more threads, and one gives the same bytes anywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
