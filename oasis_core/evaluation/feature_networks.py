"""LPIPS and DISTS on AlexNet and VGG16, from plain weight files; no library is needed.

Sources: Zhang et al., arXiv 1801.03924, version 0.1 (LPIPS); Ding et al., arXiv 2004.07728 (DISTS).
The layers are those of torchvision's `alexnet` and `vgg16`, whose weights the files hold.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# LPIPS shifts and scales pictures in [-1, 1]; DISTS and ImageNet networks those in [0, 1].
LPIPS_MEAN, LPIPS_DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DISTS_SIDE_PX = 256
_EPSILON = 1e-10
# (channels, side of the kernel, stride) of a convolution, or None: pool here.
_ALEXNET = ((64, 11, 4), None, (192, 5, 1), None, (384, 3, 1), (256, 3, 1), (256, 3, 1))
_VGG16 = (
    *((64, 3, 1), (64, 3, 1), None, (128, 3, 1), (128, 3, 1), None),
    *((256, 3, 1), (256, 3, 1), (256, 3, 1), None),
    *((512, 3, 1), (512, 3, 1), (512, 3, 1), None, (512, 3, 1), (512, 3, 1), (512, 3, 1)),
)
NETWORKS = {"alex": _ALEXNET, "vgg": _VGG16}
# Convolutions, counted from 0, whose activations are compared.
TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}
WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


class FeatureFileError(ValueError):
    """A weight file is not what it must be; one sentence."""


def load_weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file in float32.

    Args:
        path: The file; it may hold more.
        shapes: What it must hold.

    Raises:
        FeatureFileError: It cannot be read, or a tensor is missing, misshapen or not finite.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FeatureFileError(f"{path} cannot be read: {error}") from error
    for name, shape in shapes.items():
        if name not in found or tuple(found[name].shape) != shape:
            got = list(found[name].shape) if name in found else "nothing"
            raise FeatureFileError(f"{path} must hold {name} as {list(shape)}, got {got}")
        if not found[name].isfinite().all():
            raise FeatureFileError(f"{path} must hold finite numbers, {name} does not")
    return {name: found[name].float() for name in shapes}


def conv_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the convolutions of "alex" or "vgg", `o i h w`, by their names in a file."""
    shapes: dict[str, tuple[int, ...]] = {}
    num_in = 3
    for index, (width, side, _) in enumerate(c for c in NETWORKS[kind] if c is not None):
        shapes[f"conv.{index}.weight"] = (width, num_in, side, side)
        shapes[f"conv.{index}.bias"] = (width,)
        num_in = width
    return shapes


def lpips_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """What the file of LPIPS on "alex" or "vgg" must hold."""
    heads = {f"lin.{i}.weight": (1, width, 1, 1) for i, width in enumerate(WIDTHS[kind])}
    return {**conv_shapes(kind), **heads}


def dists_shapes() -> dict[str, tuple[int, ...]]:
    """What the file of DISTS must hold beside VGG16's convolutions."""
    num_features = 3 + sum(WIDTHS["vgg"])
    return dict.fromkeys(("alpha", "beta"), (1, num_features, 1, 1))


class FeatureStack(nn.Module):
    """The convolutions of AlexNet or VGG16; gives the activations that are compared.

    Args:
        kind: "alex" or "vgg".
        weights: Tensors by the names of `conv_shapes`.
        has_l2_pooling: Pool by the root of a smoothed square, as DISTS does, not by the maximum.
    """

    def __init__(
        self, kind: str, weights: dict[str, Tensor], *, has_l2_pooling: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.has_l2_pooling = kind, has_l2_pooling
        names = conv_shapes(kind)
        for name in names:
            self.register_buffer(name.replace(".", "_"), weights[name])
        self.pool_window_px = 3 if kind == "alex" else 2
        axis = torch.hann_window(5, periodic=False)[1:-1]
        self.register_buffer("pool_taps", (axis[:, None] * axis / axis.sum() ** 2)[None, None])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Activations of normalised pictures `n 3 h w`, one tensor per tap."""
        features, index = [], 0
        for layer in NETWORKS[self.kind]:
            if layer is None:
                pictures = self._pool(pictures)
                continue
            _, side, stride = layer
            weight, bias = (getattr(self, f"conv_{index}_{part}") for part in ("weight", "bias"))
            # AlexNet's first kernel has 11 pixels and 2 of padding.
            padding = 2 if side == 11 else side // 2
            pictures = F.conv2d(pictures, weight, bias, stride, padding).relu()
            if index in TAPS[self.kind]:
                features.append(pictures)
            index += 1
        return features

    def _pool(self, pictures: Tensor) -> Tensor:
        if not self.has_l2_pooling:
            return F.max_pool2d(pictures, self.pool_window_px, 2)
        channels = pictures.shape[1]
        taps = self.pool_taps.expand(channels, -1, -1, -1)
        smooth = F.conv2d(pictures.square(), taps, None, 2, 1, groups=channels)
        return (smooth + 1e-12).sqrt()


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


class Lpips(nn.Module):
    """LPIPS v0.1.

    Args:
        kind: "alex" or "vgg".
        path: The weight file, see `lpips_shapes`.

    Raises:
        FeatureFileError: The file is not that.
    """

    def __init__(self, kind: str, path: Path) -> None:
        super().__init__()
        weights = load_weights(path, lpips_shapes(kind))
        self.stack = FeatureStack(kind, weights)
        for index in range(len(TAPS[kind])):
            self.register_buffer(f"lin_{index}", weights[f"lin.{index}.weight"])
        self.register_buffer("mean", _channels(LPIPS_MEAN))
        self.register_buffer("deviation", _channels(LPIPS_DEVIATION))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What is compared of pictures `n 3 h w` in [-1, 1]."""
        return [_unit(x) for x in self.stack((pictures - self.mean) / self.deviation)]

    def distance(self, features: list[Tensor], of_truth: list[Tensor]) -> Tensor:
        """Distance of each pair of pictures by their features, as `n`."""
        total = torch.zeros(len(features[0]), device=features[0].device)
        for index, (x, y) in enumerate(zip(features, of_truth, strict=True)):
            weighted = F.conv2d((x - y).square(), getattr(self, f"lin_{index}"))
            total = total + weighted.mean(dim=(1, 2, 3))
        return total

    def forward(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """Distance of each pair of pictures `n 3 h w` in [-1, 1], as `n`."""
        return self.distance(self.features(pictures), self.features(truth))


def _unit(features: Tensor) -> Tensor:
    """Features `n c h w` with unit length at each place."""
    # The small number under the root only keeps the gradient finite where all features are 0.
    length = (features.square().sum(1, keepdim=True) + _EPSILON**2).sqrt()
    return features / (length + _EPSILON)


class Dists(nn.Module):
    """DISTS.

    Args:
        backbone_path: File with VGG16's convolutions, that of LPIPS on "vgg".
        path: File with alpha and beta, see `dists_shapes`.

    Raises:
        FeatureFileError: A file is not that.
    """

    def __init__(self, backbone_path: Path, path: Path) -> None:
        super().__init__()
        convs = load_weights(backbone_path, conv_shapes("vgg"))
        self.stack = FeatureStack("vgg", convs, has_l2_pooling=True)
        shares = load_weights(path, dists_shapes())
        # Equal pictures have distance 0 only if the shares sum to 1; the authors' own do.
        total = shares["alpha"].sum() + shares["beta"].sum()
        self.register_buffer("alpha", shares["alpha"] / total)
        self.register_buffer("beta", shares["beta"] / total)
        self.register_buffer("mean", _channels(IMAGENET_MEAN))
        self.register_buffer("deviation", _channels(IMAGENET_DEVIATION))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What is compared of pictures `n 3 h w` in [0, 1]."""
        pictures = _at_most(pictures, DISTS_SIDE_PX)
        return [pictures, *self.stack((pictures - self.mean) / self.deviation)]

    def distance(self, features: list[Tensor], of_truth: list[Tensor]) -> Tensor:
        """Distance of each pair of pictures by their features, as `n`."""
        sizes = (3, *WIDTHS["vgg"])
        shares = zip(self.alpha.split(sizes, 1), self.beta.split(sizes, 1), strict=True)
        alike = torch.zeros(len(features[0]), device=features[0].device)
        for x, y, (alpha, beta) in zip(features, of_truth, shares, strict=True):
            x_mean, y_mean = (f.mean(dim=(2, 3), keepdim=True) for f in (x, y))
            x_var, y_var = (f.var(dim=(2, 3), keepdim=True, unbiased=False) for f in (x, y))
            covariance = (x * y).mean(dim=(2, 3), keepdim=True) - x_mean * y_mean
            texture = (2 * x_mean * y_mean + 1e-6) / (x_mean.square() + y_mean.square() + 1e-6)
            structure = (2 * covariance + 1e-6) / (x_var + y_var + 1e-6)
            alike = alike + (alpha * texture + beta * structure).sum(dim=(1, 2, 3))
        return 1 - alike

    def forward(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """Distance of each pair of pictures `n 3 h w` in [0, 1], as `n`."""
        return self.distance(self.features(pictures), self.features(truth))


def _at_most(pictures: Tensor, side_px: int) -> Tensor:
    """Pictures whose smaller side is larger than this, reduced to it."""
    least = min(pictures.shape[2:])
    if least <= side_px:
        return pictures
    size = [round(n * side_px / least) for n in pictures.shape[2:]]
    return F.interpolate(pictures, size=size, mode="bilinear", antialias=True)
