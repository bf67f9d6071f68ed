"""Golden outputs of a fixed-weight model, per backend and precision: how close, and no drift.

The stored file was made by this one, `python tests/core/model/test_golden.py`, which refuses unless
the newest release in the changelog says that it changes output.
"""

import hashlib
import json
import platform
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from oasis_core.lab.golden import (
    DECODERS,
    golden_cases,
    golden_model,
    golden_output,
    golden_reference,
)
from oasis_core.model.agreement import EQUAL_DB, agreement_db

GOLDEN = Path(__file__).with_name("golden_wan.json")
CHANGELOG = Path(__file__).parents[3] / "CHANGELOG.md"
CPU = torch.device("cpu")
SLOW = {"wan": pytest.mark.slow}
"""Its VAE takes 20 seconds in all precisions; its reference is looked at each time."""
LEAST_DB = {torch.float32: 50, torch.bfloat16: 40, torch.float16: 40}


def thumbnail(video):
    cells = F.avg_pool3d(video, (1, 16, 16))[0, :, ::4]
    return [round(value, 5) for value in cells.flatten().tolist()]


def pixels_sha256(video):
    """Of frames in [0, 1] as the 8-bit values that a file gets."""
    pixels = (video.clamp(0, 1) * 255).round().to(torch.uint8)
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def machine():
    """What the last bits depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return [torch.__version__, torch.backends.cpu.get_cpu_capability(), name or platform.machine()]


def outputs(decoder):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are split otherwise with more
    try:
        return {
            name: golden_output(decoder, CPU, dtype, backend)
            for name, dtype, backend in golden_cases(CPU)
        }
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=DECODERS)
def reference(request):
    return request.param, golden_reference(request.param)


@pytest.fixture(scope="module", params=[pytest.param(d, marks=SLOW.get(d, ())) for d in DECODERS])
def case(request):
    return request.param, golden_reference(request.param), outputs(request.param)


def test_what_is_not_finite_agrees_with_nothing():
    video = torch.rand(1, 3, 1, 4, 4)
    assert agreement_db(video, video) == EQUAL_DB
    assert agreement_db(video + 0.1, video) == pytest.approx(20, abs=1e-3)
    broken = video.clone()
    broken[..., 0] = torch.nan
    assert agreement_db(broken, video) == agreement_db(broken, broken) == -EQUAL_DB


def test_every_backend_and_precision_is_close_to_the_reference(case):
    _, expected, found = case
    assert expected.std() > 0.02
    bounds = {name: LEAST_DB[dtype] for name, dtype, _ in golden_cases(CPU)}
    close = {name: agreement_db(video, expected) for name, video in found.items()}
    assert all(close[name] >= bounds[name] for name in bounds), close
    assert close["bfloat16 halo"] < 90  # it is another precision


def test_the_reference_has_not_drifted(reference):
    decoder, expected = reference
    pictures = torch.tensor(json.loads(GOLDEN.read_text())["pictures"][decoder])
    assert (torch.tensor(thumbnail(expected)) - pictures).abs().max() <= 2e-4


def test_no_pixel_has_drifted(case):
    decoder, _, found = case
    stored = json.loads(GOLDEN.read_text())
    if stored["machine"] == machine():
        hashes = {name: pixels_sha256(video) for name, video in found.items()}
        assert hashes == stored["hashes"][decoder]


def test_a_drift_is_noticed(reference):
    decoder, expected = reference
    model = golden_model(decoder)
    model.transformer.head.bias.data[0] += 0.05
    with torch.inference_mode():
        from oasis_core.lab.golden import golden_video

        video = golden_video()
        drifted = video + model(video)
    assert (torch.tensor(thumbnail(drifted)) - torch.tensor(thumbnail(expected))).abs().max() > 2e-4


@pytest.mark.gpu
def test_cuda_agrees_with_the_reference(case):
    decoder, expected, _ = case
    for name, dtype, backend in golden_cases(torch.device("cuda")):
        got = golden_output(decoder, torch.device("cuda"), dtype, backend)
        assert agreement_db(got, expected) >= LEAST_DB[dtype], name


def write():
    newest = CHANGELOG.read_text(encoding="utf-8").split("\n## ")[1].lower()
    if "changes output: yes" not in newest:
        raise SystemExit(
            "CHANGELOG.md must say 'Changes output: yes' in its newest release before stored "
            "outputs are replaced; add the line, or undo what changes them"
        )
    found = {decoder: outputs(decoder) for decoder in DECODERS}
    stored = {
        "machine": machine(),
        "hashes": {
            decoder: {name: pixels_sha256(video) for name, video in videos.items()}
            for decoder, videos in found.items()
        },
        "pictures": {decoder: thumbnail(golden_reference(decoder)) for decoder in DECODERS},
    }
    GOLDEN.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    write()
