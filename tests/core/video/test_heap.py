"""Encoders must not damage the memory of the process: what they overwrite, nobody sees at first."""

import ctypes
import os
import subprocess
import sys

import pytest

CHECKER = "libc_malloc_debug.so.0"  # glibc's: ends the process at the free() of damaged memory

ENCODE = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy, torch
from oasis_core.degradation.codec import compress
from oasis_core.video import EncodeSpec
from oasis_core.video.writer import SegmentWriter

random = numpy.random.default_rng(0)
for width in (16, 32, 48, 50, 64):
    for codec, depth in (("h264", 8), ("h265", 8), ("h265", 10), ("ffv1", 8), ("prores", 10)):
        spec = EncodeSpec(
            codec=codec, width=width, height=48, bit_depth=depth,
            time_base=Fraction(1, 25), frame_rate=Fraction(25),
        )
        with SegmentWriter(Path(sys.argv[1]) / f"{codec}{depth}-{width}.mkv", spec) as writer:
            for pts in range(8):
                pixels = random.integers(0, 255, (48, width, 3), dtype=numpy.uint8)
                writer.write(pixels, pts, 1)
    compress(torch.rand(4, 3, 24, width), "libx265", 28)
print("whole")
"""


def test_encoders_stay_inside_their_memory(tmp_path):
    """x265 wrote past its arrays where pictures are narrow; the process died at some later time."""
    try:
        ctypes.CDLL(CHECKER)
    except OSError:
        pytest.skip("no glibc to check the heap with")
    environment = os.environ | {"LD_PRELOAD": CHECKER, "MALLOC_CHECK_": "3"}
    command = [sys.executable, "-c", ENCODE, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout) == (0, "whole\n"), result.stderr[-500:]
