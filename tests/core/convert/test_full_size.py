"""Public files of full size, synthetic: memory of converting them."""

import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from flashvsr_files import decoder_shapes, projector_shapes
from infvsr_files import transformer_shapes
from safetensors import safe_open

from oasis_core.checkpoint import load_checkpoint
from oasis_core.convert.flashvsr import FlashvsrFiles, convert_flashvsr
from oasis_core.convert.folders import OWN_BYTES
from oasis_core.convert.stream_file import write_streamed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

logger = logging.getLogger(__name__)

NEEDED_DISK_BYTES = 12 << 30


def own_bytes():
    """Memory of this process that the system cannot drop: not that of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def write_synthetic(path, shapes, dtype=torch.float32):
    """A file of published shapes, small numbers in place of weights."""
    layout = {name: (dtype, tuple(shape)) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 20, generator=generator)

    def read(name):
        shape = torch.Size(shapes[name])
        is_gain = ("norm" in name or "gamma" in name) and not name.endswith("bias")
        if is_gain:
            return torch.ones(shape)
        count = shape.numel()
        values = noise.repeat(-(-count // len(noise)))[:count].view(shape)
        return values * (shape[1:].numel() ** -0.5 if len(shape) > 1 else 0.1)

    write_streamed(path, layout, read, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    space = os.statvfs(folder)
    if space.f_bavail * space.f_frsize < NEEDED_DISK_BYTES:
        pytest.skip("less than 12 GiB of disk")
    write_synthetic(folder / "dit.safetensors", transformer_shapes(1536, 30, 8960, 4096, 256))
    write_synthetic(folder / "lq.safetensors", projector_shapes(1024, 1536), torch.bfloat16)
    write_synthetic(folder / "tc.safetensors", decoder_shapes(128))
    write_synthetic(folder / "prompt.safetensors", {"context": (1, 512, 4096)}, torch.bfloat16)
    return folder


def test_flashvsr_converts_in_little_memory(folder):
    files = FlashvsrFiles(
        transformer=folder / "dit.safetensors",
        projector=folder / "lq.safetensors",
        prompt=folder / "prompt.safetensors",
        tiny=folder / "tc.safetensors",
    )
    out, before, peaks = folder / "flashvsr.safetensors", own_bytes(), []
    convert_flashvsr(
        files, out, magnitudes={}, on_progress=lambda *_: peaks.append(own_bytes() - before)
    )
    logger.info("converting: %.2f GB, %.2f written", max(peaks) / 1e9, out.stat().st_size / 1e9)
    assert max(peaks) < OWN_BYTES
    model = load_checkpoint(out).model
    assert model.config.num_context_keys == 512
    assert sum(weight.numel() for weight in model.parameters()) > 1_600_000_000
    stored = model.transformer.blocks[29].ffn.expand.weight
    with safe_open(folder / "dit.safetensors", framework="pt") as file:
        assert torch.equal(stored, file.get_tensor("blocks.29.ffn.0.weight").bfloat16())
