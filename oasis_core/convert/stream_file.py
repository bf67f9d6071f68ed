"""Writing a safetensors file tensor by tensor, so that converting gigabytes takes little memory.

Source: huggingface/safetensors (Apache-2.0), README: the format.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
ALIGNMENT = 8
SPARE_BYTES = 1 << 20
"""What is left free beside the file."""

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Precision and shape of each tensor by its name, in the order of the file."""
OnBytes = Callable[[int, int], None]


def layout_bytes(layout: Layout) -> int:
    """Bytes that the tensors of a layout take."""
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())


def check_disk(path: Path, layout: Layout) -> None:
    """Refuse to begin a file that the disk has no room for.

    Raises:
        ValueError: Too little is free; the message names both sizes.
    """
    needed, free = layout_bytes(layout) + SPARE_BYTES, shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(
            f"{path} needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free there; "
            "free some or write it elsewhere"
        )


def write_streamed(
    path: Path,
    layout: Layout,
    read: Callable[[str], Tensor],
    metadata: dict[str, str],
    on_progress: OnBytes | None = None,
) -> None:
    """Write a file one tensor after the other; it appears complete or not at all.

    Args:
        path: Destination, replaced if it exists.
        layout: What will be in it.
        read: Gives the tensor of a name, in any precision and on the CPU.
        metadata: Texts for the reader.
        on_progress: Called with (bytes done, bytes in all) after each tensor; may raise to stop,
            which leaves nothing behind.

    Raises:
        ValueError: The disk has no room for it, or the file it is written as first exists.
    """
    check_disk(path, layout)
    temporary = path.with_name(path.name + ".part")
    try:
        file = temporary.open("xb")
    except FileExistsError as error:
        raise ValueError(
            f"{temporary} must not exist: another conversion writes it or was killed while it did; "
            "wait for it, or delete the file"
        ) from error
    done, total = 0, layout_bytes(layout)
    try:
        with file:
            file.write(_header(layout, metadata))
            for name, (dtype, shape) in layout.items():
                tensor = read(name).to(dtype).contiguous()
                # A tensor of another shape is the converter's mistake, and would shift all others.
                assert tuple(tensor.shape) == shape, (name, tuple(tensor.shape), shape)
                file.write(tensor.flatten().view(torch.uint8).numpy())
                done += tensor.numel() * tensor.element_size()
                if on_progress is not None:
                    on_progress(done, total)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _header(layout: Layout, metadata: dict[str, str]) -> bytes:
    table: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, (dtype, shape) in layout.items():
        stop = start + math.prod(shape) * dtype.itemsize
        offsets = [start, stop]
        table[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": offsets}
        start = stop
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
