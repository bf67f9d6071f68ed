import time

import pytest
import torch
from torch import nn

from oasis_core.families.catalog import restorer_of
from oasis_core.upscale import VideoUpscaler
from oasis_core.upscale.precision import choose_device, choose_dtype

CPU = torch.device("cpu")


class Timed(nn.Module):
    """A model whose speed and error in low precision are set by the test."""

    def __init__(self, model, slow_s, low_error):
        super().__init__()
        self.model, self.config = model, model.config
        self.slow_s, self.low_error = slow_s, low_error
        self.num_calls = 0

    def forward(self, video):
        self.num_calls += 1
        residual = self.model(video)
        is_low = torch.is_autocast_enabled("cpu")
        time.sleep(self.slow_s[is_low])
        return residual + self.low_error if is_low else residual


@pytest.mark.parametrize(
    ("slow_s", "low_error", "expected"),
    [
        ((0.25, 0.0), 0.0, torch.bfloat16),
        ((0.0, 0.25), 0.0, torch.float32),  # slower
        ((0.25, 0.0), 0.02, torch.float32),  # 34 dB away
        ((0.25, 0.0), float("nan"), torch.float32),
    ],
)
def test_auto_takes_low_precision_only_if_faster_and_close(conv_model, slow_s, low_error, expected):
    model = Timed(conv_model, slow_s, low_error)
    assert choose_dtype(restorer_of(model), CPU, "auto") == expected
    calls = model.num_calls
    assert choose_dtype(restorer_of(model), CPU, "auto") == expected
    assert model.num_calls == calls  # probed once


def test_a_precision_that_the_processor_imitates_is_tried_once(conv_model):
    model = Timed(conv_model, (0.05, 0.5), 0.0)
    assert choose_dtype(restorer_of(model), CPU, "auto") == torch.float32
    assert model.num_calls == 2


def test_models_without_the_dtype_stay_in_float32(conv_model):
    class Fails(Timed):
        def forward(self, video):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError('"kernel" not implemented for BFloat16')
            return super().forward(video)

    assert choose_dtype(restorer_of(Fails(conv_model, (0, 0), 0)), CPU, "auto") == torch.float32


def test_bfloat16_result_is_close_to_float32(conv_model, clip):
    video = clip(4, 24, 24)
    exact, close = (
        VideoUpscaler(conv_model, device="cpu", dtype=d).upscale(video, scale=2)
        for d in ("float32", "bfloat16")
    )
    assert not torch.equal(exact, close)
    assert (exact - close).abs().max() < 0.01


@pytest.mark.parametrize("dtype", ["int8", "fp32", torch.float64])
def test_unknown_dtypes_are_refused(conv_model, dtype):
    with pytest.raises(ValueError, match="dtype must be auto or one of float32"):
        VideoUpscaler(conv_model, device="cpu", dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu0", "meta"])
def test_unknown_devices_are_refused(device):
    with pytest.raises(ValueError, match=r"device must be .*try cpu"):
        choose_device(device)


def test_model_hash_tells_weights_apart(conv_model):
    first = VideoUpscaler(conv_model, device="cpu", dtype="float32").model_hash
    with torch.no_grad():
        conv_model.head.bias[0] += 1e-6
    second = VideoUpscaler(conv_model, device="cpu", dtype="float32").model_hash
    assert len(first) == 64
    assert first != second
