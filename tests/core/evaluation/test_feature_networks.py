"""LPIPS and DISTS from plain files: against their definitions, and against their authors' code."""

import importlib.util
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from oasis_core.evaluation import networks
from oasis_core.evaluation.feature_networks import (
    TAPS,
    FeatureFileError,
    Lpips,
    dists_shapes,
    lpips_shapes,
)
from oasis_core.evaluation.networks import FILE_NAMES, WEIGHTS_FOLDER, MetricUnavailableError
from oasis_core.evaluation.suite import MetricSuite
from oasis_core.training.perceptual import PerceptualLoss

SCRIPT = Path(__file__).parents[3] / "docs" / "take_metric_weights.py"
REAL = os.environ.get(WEIGHTS_FOLDER)
needs_real_files = pytest.mark.skipif(
    not REAL or not all((Path(REAL) / name).is_file() for name in FILE_NAMES.values()),
    reason=f"{WEIGHTS_FOLDER} names no folder with the metrics' weights (docs/evaluation.md)",
)


def random_tensors(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        spread = (2 / values[0].numel()) ** 0.5 if len(shape) == 4 and shape[0] > 1 else 0.1
        is_weighing = name in ("alpha", "beta") or name.startswith("lin")
        tensors[name] = values.abs() if is_weighing else spread * values
    return tensors


@pytest.fixture
def folder(monkeypatch, tmp_path):
    for seed, kind in enumerate(("alex", "vgg")):
        name = FILE_NAMES[f"lpips_{kind}"]
        save_file(random_tensors(lpips_shapes(kind), seed), tmp_path / name)
    save_file(random_tensors(dists_shapes(), 2), tmp_path / FILE_NAMES["dists"])
    monkeypatch.setenv(WEIGHTS_FOLDER, str(tmp_path))
    return tmp_path


def pictures(side=64, count=2):
    generator = torch.Generator().manual_seed(5)
    first = torch.rand(count, 3, side, side, generator=generator)
    second = (first + 0.2 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    return tuple((x * 255).round() / 255 for x in (first, second))


def activations(kind, weights, x, pool):
    """The compared activations, written out: where pooling happens is spelled by index."""
    pooled_before = {"alex": (1, 2), "vgg": (2, 4, 7, 10)}[kind]
    outputs = []
    for index in range(5 if kind == "alex" else 13):
        if index in pooled_before:
            x = pool(x)
        weight, bias = weights[f"conv.{index}.weight"], weights[f"conv.{index}.bias"]
        is_first = kind == "alex" and index == 0
        stride, padding = (4, 2) if is_first else (1, weight.shape[-1] // 2)
        x = F.conv2d(x, weight, bias, stride, padding).relu()
        if index in TAPS[kind]:
            outputs.append(x)
    return outputs


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_lpips_equals_its_definition_without_any_library(folder, kind):
    weights = load_file(folder / FILE_NAMES[f"lpips_{kind}"])
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    clip, truth = pictures()
    window = {"alex": 3, "vgg": 2}[kind]
    features = [
        activations(
            kind, weights, (2 * x - 1 - shift) / scale, lambda y: F.max_pool2d(y, window, 2)
        )
        for x in (clip, truth)
    ]
    expected = 0
    for index, (x, y) in enumerate(zip(*features, strict=True)):
        x, y = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
        head = weights[f"lin.{index}.weight"]
        expected += ((x - y).square() * head).sum(1).mean()
    name = "lpips" if kind == "alex" else "lpips_vgg"
    suite = MetricSuite((name,))
    assert not suite.unavailable
    assert suite.measure(clip, truth, None)[name] == pytest.approx(float(expected), rel=1e-4)
    assert suite.measure(truth, truth, None)[name] == 0


def test_dists_equals_its_definition_without_any_library(folder):
    weights = load_file(folder / FILE_NAMES["lpips_vgg"])
    shares = load_file(folder / FILE_NAMES["dists"])
    axis = torch.tensor([0.5, 1.0, 0.5])
    kernel = (axis[:, None] * axis / 4)[None, None]

    def l2_pool(x):
        taps = kernel.expand(x.shape[1], -1, -1, -1)
        return (F.conv2d(x.square(), taps, None, 2, 1, groups=x.shape[1]) + 1e-12).sqrt()

    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    clip, truth = pictures()
    pairs = [
        [x, *activations("vgg", weights, (x - mean) / deviation, l2_pool)] for x in (clip, truth)
    ]
    total, start = shares["alpha"].sum() + shares["beta"].sum(), 0
    expected = torch.ones(len(clip))
    for x, y in zip(*pairs, strict=True):
        x_mean, y_mean = (f.mean(dim=(2, 3)) for f in (x, y))
        x_var, y_var = (f.var(dim=(2, 3), unbiased=False) for f in (x, y))
        covariance = (x * y).mean(dim=(2, 3)) - x_mean * y_mean
        share = slice(start, start := start + x.shape[1])
        alpha, beta = (shares[name][0, share, 0, 0] / total for name in ("alpha", "beta"))
        texture = (2 * x_mean * y_mean + 1e-6) / (x_mean.square() + y_mean.square() + 1e-6)
        structure = (2 * covariance + 1e-6) / (x_var + y_var + 1e-6)
        expected -= (alpha * texture + beta * structure).sum(1)
    suite = MetricSuite(("dists",))
    found = suite.measure(clip, truth, None)["dists"]
    assert found == pytest.approx(float(expected.mean()), rel=1e-3)
    assert suite.measure(truth, truth, None)["dists"] == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lpips", "lpips_vgg", "dists"])
def test_remembered_features_are_those_of_the_original_that_is_given(folder, name):
    clip, truth = pictures(side=48, count=6)
    suite = MetricSuite((name,))
    expected = []
    for original in (truth, truth.flip(3), truth[:5], truth):
        fresh = MetricSuite((name,))
        expected.append(fresh.measure(clip[: len(original)], original, None))
    found = [
        suite.measure(clip[: len(original)], original, None)
        for original in (truth, truth.flip(3), truth[:5], truth)
    ]
    assert found == expected
    assert found[0] != found[1]


@pytest.mark.slow
def test_dists_reduces_large_pictures_to_256(folder):
    clip, truth = pictures(side=320, count=1)
    small = [
        F.interpolate(x, size=(256, 256), mode="bilinear", antialias=True) for x in (clip, truth)
    ]
    network = networks.build_network("dists")
    with torch.no_grad():
        assert torch.allclose(network(clip, truth), network(*small), atol=1e-6)


@pytest.mark.parametrize("name", ["lpips", "lpips_vgg", "dists"])
def test_each_is_a_loss_with_a_finite_gradient(folder, name):
    loss = PerceptualLoss(name, torch.device("cpu"))
    clip, truth = pictures(count=1)
    # A black corner: features of length 0, where a plain root has no gradient.
    clip[:, :, :32] = 0
    video = clip[:, :, None].requires_grad_()
    value = loss(video, truth[:, :, None])
    (gradient,) = torch.autograd.grad(value, video)
    assert value > 0
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_files_that_are_not_it_are_one_sentence(folder):
    path = folder / FILE_NAMES["lpips_alex"]
    good = load_file(path)
    for change, message in (
        ({"conv.0.bias": good["conv.0.bias"][:3]}, r"must hold conv.0.bias as \[64\], got \[3\]"),
        (
            {"lin.4.weight": torch.full((1, 256, 1, 1), torch.nan)},
            "must hold finite numbers, lin.4",
        ),
    ):
        save_file({**good, **change}, path)
        with pytest.raises(MetricUnavailableError, match=f"lpips: .*{message}"):
            networks.build_network("lpips")
    del good["conv.3.weight"]
    save_file(good, path)
    with pytest.raises(FeatureFileError, match=r"must hold conv\.3\.weight as .*, got nothing"):
        Lpips("alex", path)
    path.write_bytes(b"no tensors")
    with pytest.raises(FeatureFileError, match="cannot be read"):
        Lpips("alex", path)


def test_an_absent_file_is_named_with_the_variable(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder / "none"))
    (folder / FILE_NAMES["dists"]).unlink()
    message = f"dists needs .*{WEIGHTS_FOLDER} name a folder with lpips_vgg.* and dists"
    with pytest.raises(MetricUnavailableError, match=message):
        networks.build_network("dists")
    assert MetricSuite(("lpips", "dists")).names == ("lpips",)


def script():
    spec = importlib.util.spec_from_file_location("take_metric_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_reads_arrays_and_refuses_what_a_pickle_may_run():
    module = script()
    tree = {
        "AlexNet_0": {
            "Conv_0": {
                "kernel": np.arange(11 * 11 * 3 * 64, dtype=np.float32).reshape(11, 11, 3, 64),
                "bias": np.arange(64, dtype=np.float32),
            }
        },
        "NetLinLayer_2": {"Conv_0": {"kernel": np.ones((1, 1, 384, 1), np.float32)}},
    }
    read = module.read_arrays(pickle.dumps(tree))
    tensors = module.lpips_tensors(read)
    assert tensors["conv.0.weight"].shape == (64, 3, 11, 11)
    kernel = tree["AlexNet_0"]["Conv_0"]["kernel"]
    assert tensors["conv.0.weight"][5, 2, 7, 1] == kernel[7, 1, 2, 5]
    assert tensors["lin.2.weight"].shape == (1, 384, 1, 1)

    class Harmful:
        def __reduce__(self):
            return os.getenv, ("HOME",)

    stream = io.BytesIO()
    pickle.dump({"kernel": Harmful()}, stream)
    with pytest.raises(pickle.UnpicklingError, match=r"only arrays are read, .* os\.getenv"):
        module.read_arrays(stream.getvalue())


def library(name):
    try:
        return __import__(name)
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch
        pytest.skip(f"{name} cannot be imported: {error}")


@needs_real_files
@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_real_lpips_equals_its_authors_package(kind):
    lpips = library("lpips")
    weights = load_file(Path(REAL) / FILE_NAMES[f"lpips_{kind}"])
    theirs = lpips.LPIPS(net=kind, version="0.1", pnet_rand=True, verbose=False).eval()
    convs = [m for m in theirs.net.modules() if isinstance(m, torch.nn.Conv2d)]
    for index, conv in enumerate(convs):
        conv.weight.data.copy_(weights[f"conv.{index}.weight"])
        conv.bias.data.copy_(weights[f"conv.{index}.bias"])
    for index, head in enumerate(theirs.lins):
        assert torch.equal(head.model[-1].weight, weights[f"lin.{index}.weight"])
    ours = networks.build_network("lpips" if kind == "alex" else "lpips_vgg")
    first, second = (2 * x - 1 for x in pictures(side=96))
    with torch.no_grad():
        expected = theirs(first, second).flatten()
        assert torch.allclose(ours(first, second), expected, rtol=1e-4, atol=1e-6)
    assert 0.05 < float(expected.mean()) < 1.5


@needs_real_files
def test_real_dists_equals_another_implementation(monkeypatch, tmp_path):
    library("piq")
    from torchvision import models

    ours = networks.build_network("dists")
    # The same numbers where the other one looks for them; the classifier is never used.
    weights = load_file(Path(REAL) / FILE_NAMES["lpips_vgg"])
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in models.vgg16(weights=None).state_dict().items()}
    convs = iter(range(13))
    state = {}
    for name, shape in shapes.items():
        if name.startswith("features") and name.endswith("weight"):
            index = next(convs)
            state[name] = weights[f"conv.{index}.weight"]
            state[name.replace("weight", "bias")] = weights[f"conv.{index}.bias"]
        elif name.startswith("classifier"):
            state[name] = torch.zeros(1).expand(shape)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone, heads = networks.WEIGHTS["dists"]
    backbone.path.parent.mkdir(parents=True)
    torch.save(state, backbone.path)
    torch.save(load_file(Path(REAL) / FILE_NAMES["dists"]), heads.path)
    theirs = networks._build_dists().eval()
    first, second = pictures(side=96)
    pairs = zip(first, second, strict=True)
    with torch.no_grad():
        expected = torch.stack([theirs(x[None], y[None]) for x, y in pairs])
        assert torch.allclose(ours(first, second), expected, rtol=1e-3, atol=1e-5)
    assert 0.01 < float(expected.mean()) < 1


@needs_real_files
def test_real_networks_agree_with_the_eye_on_blur_and_noise():
    # A sharp drawn picture: a little noise is nearer to it than a strong blur.
    axis = torch.linspace(0, 40, 128)
    signs = torch.sign(torch.sin(axis)[:, None] * torch.cos(axis)[None])
    stripes = 0.5 + 0.4 * signs
    truth = stripes.expand(1, 3, -1, -1).contiguous()
    blurred = F.avg_pool2d(F.pad(truth, (4,) * 4, mode="reflect"), 9, 1)
    error = float((blurred - truth).square().mean().sqrt())
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    noisy = (truth + 0.3 * error * noise).clamp(0, 1)
    suite = MetricSuite(("lpips", "lpips_vgg", "dists"))
    blur, grain = (suite.measure(x, truth, None) for x in (blurred, noisy))
    assert all(0 < grain[name] < blur[name] for name in suite.names), (grain, blur)
