"""A user's own weight files, here random ones, against the published definitions of the metrics."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oasis_core.evaluation import networks
from oasis_core.evaluation.suite import MetricSuite

IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)


def library(name):
    try:
        return __import__(name)
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch
        pytest.skip(f"{name} cannot be imported: {error}")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    library("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(networks.WEIGHTS_FOLDER, raising=False)
    # Random weights cannot have the digest that the published names carry.
    digests = {"alexnet": "7be5be79", "vgg16": "397923af"}

    def digest(path):
        known = digests.get(Path(path).name.split("-")[0])
        return known or hashlib.sha256(Path(path).read_bytes()).hexdigest()

    monkeypatch.setattr(networks, "file_sha256", digest)
    return tmp_path


def put(file, value):
    file.path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, file.path)


def backbone(name):
    """Random weights of a torchvision network, and the convolutions that use them."""
    from torchvision import models

    torch.manual_seed(0)
    with torch.device("meta"):
        network = getattr(models, name)(weights=None)
    weights = {}
    for key, value in network.state_dict().items():
        # The classifier, most of the file, is never used: one stored number stands for it.
        is_used = key.startswith("features")
        scale = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
        weights[key] = (
            torch.randn(value.shape) * scale if is_used else torch.zeros(1).expand(value.shape)
        )
    return weights


def layers(weights, video, activations, pool):
    """The outputs of the activations of these numbers."""
    outputs, x, number = [], video, 0
    last = max(activations)
    while number <= last:
        if f"features.{number}.weight" in weights:
            weight = weights[f"features.{number}.weight"]
            stride = 4 if weight.shape[-1] == 11 else 1
            padding = 2 if weight.shape[-1] == 11 else weight.shape[-1] // 2
            x = F.conv2d(x, weight, weights[f"features.{number}.bias"], stride, padding).relu()
            number += 1
            if number in activations:
                outputs.append(x)
        else:
            x = pool(x)
        number += 1
    return outputs


def clips(side=64):
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(5, 3, side, side, generator=generator) for _ in range(2))


def test_lpips_takes_the_users_file_and_equals_its_definition():
    lpips = library("lpips")
    weights = backbone("alexnet")
    put(*networks.WEIGHTS["lpips"], weights)
    suite = MetricSuite(("lpips",))
    assert not suite.unavailable
    clip, truth = clips()
    heads = torch.load(
        Path(lpips.__file__).parent / "weights/v0.1/alex.pth", weights_only=True, map_location="cpu"
    )
    # LPIPS has its own mean and deviation, on the scale -1 to 1.
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    rounded = (clip * 255).round() / 255
    features = [
        layers(
            weights, (2 * x - 1 - shift) / scale, (1, 4, 7, 9, 11), lambda y: F.max_pool2d(y, 3, 2)
        )
        for x in (rounded, truth)
    ]
    expected = torch.zeros(len(clip))
    for index, (x, y) in enumerate(zip(*features, strict=True)):
        x, y = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
        weighted = F.conv2d((x - y).square(), heads[f"lin{index}.model.1.weight"])
        expected += weighted.mean(dim=(1, 2, 3))
    found = suite.measure(clip, truth, None)["lpips"]
    assert found == pytest.approx(float(expected.mean()), rel=1e-4)


def test_dists_takes_the_users_files_and_equals_its_definition():
    library("piq")
    weights = backbone("vgg16")
    alpha, beta = torch.rand(2, 1, 1475, 1, 1)
    backbone_file, heads_file = networks.WEIGHTS["dists"]
    put(backbone_file, weights)
    put(heads_file, {"alpha": alpha, "beta": beta})
    suite = MetricSuite(("dists",))
    assert not suite.unavailable
    clip, truth = clips()
    rounded = (clip * 255).round() / 255
    axis = torch.hann_window(5, periodic=False)[1:-1]
    kernel = (axis[:, None] * axis / axis.sum() ** 2)[None, None]

    def l2_pool(x):
        taps = kernel.expand(x.shape[1], -1, -1, -1)
        return (F.conv2d(x.square(), taps, None, 2, 1, groups=x.shape[1]) + 1e-12).sqrt()

    mean, deviation = IMAGENET
    pairs = []
    for x in (rounded, truth):
        pairs.append([x, *layers(weights, (x - mean) / deviation, (3, 8, 15, 22, 29), l2_pool)])
    total, start = alpha.sum() + beta.sum(), 0
    expected = torch.ones(len(clip))
    for x, y in zip(*pairs, strict=True):
        x_mean, y_mean = (f.mean(dim=(2, 3)) for f in (x, y))
        x_var, y_var = (f.var(dim=(2, 3), unbiased=False) for f in (x, y))
        covariance = (x * y).mean(dim=(2, 3)) - x_mean * y_mean
        luminance = (2 * x_mean * y_mean + 1e-6) / (x_mean.square() + y_mean.square() + 1e-6)
        structure = (2 * covariance + 1e-6) / (x_var + y_var + 1e-6)
        share = slice(start, start := start + x.shape[1])
        a, b = alpha[0, share, 0, 0] / total, beta[0, share, 0, 0] / total
        expected -= (a * luminance + b * structure).sum(1)
    found = suite.measure(clip, truth, None)["dists"]
    assert found == pytest.approx(float(expected.mean()), rel=1e-3)


class Archive(nn.Module):
    """Holds weights by dotted names, as CLIP's TorchScript file does."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            *path, last = name.split(".")
            owner = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]
            owner.register_buffer(last, value)


def test_clipiqa_takes_the_users_files_and_equals_its_definition():
    library("piq")
    from piq.feature_extractors import clip as clip_module

    torch.manual_seed(1)
    small = clip_module.CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).float()
    clip_file, tokens_file = networks.WEIGHTS["clipiqa"]
    clip_file.path.parent.mkdir(parents=True)
    torch.jit.script(Archive(small.state_dict())).save(str(clip_file.path))
    tokens = torch.randint(1, 99, (2, 77))
    put(tokens_file, tokens)
    suite = MetricSuite(("clipiqa",))
    assert not suite.unavailable, suite.unavailable
    clip, _ = clips(96)
    rounded = (clip * 255).round() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    reference = clip_module.build_model(dict(small.state_dict())).float()
    with torch.no_grad():
        anchors = F.normalize(reference.encode_text(tokens).float(), dim=-1)
        images = reference.encode_image((rounded - mean) / deviation, pos_embedding=False).float()
        logits = reference.logit_scale.exp() * F.normalize(images, dim=-1) @ anchors.T
    expected = float(logits.softmax(dim=-1)[:, 0].mean())
    assert suite.measure(clip, None, None)["clipiqa"] == pytest.approx(expected, rel=1e-3)


def test_each_metric_names_every_file_it_lacks_one_after_the_other():
    library("piq")
    backbone_file, heads_file = networks.WEIGHTS["dists"]
    with pytest.raises(networks.MetricUnavailableError, match=backbone_file.name):
        networks.build_network("dists")
    put(backbone_file, backbone("vgg16"))
    with pytest.raises(networks.MetricUnavailableError, match=heads_file.name):
        networks.build_network("dists")
