import time

import pytest
import torch
from torch import nn

from oasis_core.families.catalog import restorer_of
from oasis_core.families.module import ModuleRestorer
from oasis_core.families.restorer import Traits
from oasis_core.upscale import VideoUpscaler, precision
from oasis_core.upscale.precision import (
    Arithmetic,
    arithmetic_of,
    arithmetic_of_cuda,
    arithmetic_of_processor,
    choose_device,
    choose_dtype,
    processor_flags,
)

CPU = torch.device("cpu")


class Unlike(nn.Module):
    """A model whose result in low precision is off by what the test says, and late."""

    def __init__(self, model, low_error, slow_s=(0.0, 0.0)):
        super().__init__()
        self.model, self.config = model, model.config
        self.low_error, self.slow_s = low_error, slow_s

    def forward(self, video):
        residual = self.model(video)
        is_low = torch.is_autocast_enabled("cpu")
        time.sleep(self.slow_s[is_low])
        return residual + self.low_error if is_low else residual


@pytest.mark.parametrize(
    ("capability", "is_hip", "expected", "reason"),
    [
        ((9, 0), False, torch.bfloat16, "compute capability 9.0"),
        ((8, 0), False, torch.bfloat16, "compute capability 8.0"),
        ((7, 5), False, torch.float16, "compute capability 7.5"),
        ((7, 0), False, torch.float16, "compute capability 7.0"),
        ((6, 1), False, torch.float32, "compute capability 6.1"),
        ((9, 4), True, torch.bfloat16, "AMD GPU"),
    ],
)
def test_a_gpu_computes_in_what_its_kind_has(capability, is_hip, expected, reason):
    chosen = arithmetic_of_cuda(capability, is_hip=is_hip)
    assert chosen == Arithmetic(dtype=expected, reason=reason)


@pytest.mark.parametrize(
    ("flags", "expected", "reason"),
    [
        ({"amx_bf16", "avx512_bf16"}, torch.bfloat16, "processor with bfloat16 in AMX"),
        ({"avx512_bf16"}, torch.bfloat16, "processor with bfloat16 in AVX-512"),
        (set(), torch.float32, "processor without bfloat16"),
    ],
)
def test_a_processor_computes_in_what_it_has_instructions_for(flags, expected, reason):
    chosen = arithmetic_of_processor(frozenset(flags))
    assert chosen == Arithmetic(dtype=expected, reason=reason)


def test_flags_are_read_from_the_system_and_else_from_torch(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: fpu avx512_bf16 avx2 amx_bf16\nbugs : none\n")
    assert processor_flags(path) == {"amx_bf16", "avx512_bf16"}
    path.write_text("Features : asimd bf16\n")
    assert processor_flags(path) == frozenset()
    assert processor_flags(tmp_path / "missing") <= {"amx_bf16", "avx512_bf16"}


@pytest.mark.parametrize("slow_s", [(0.0, 0.3), (0.3, 0.0)])
def test_auto_never_asks_a_clock(conv_model, slow_s):
    model = restorer_of(Unlike(conv_model, 0.0, slow_s))
    chosen = choose_dtype(model, CPU, "auto")
    assert chosen == arithmetic_of(CPU)
    wanted = Arithmetic(dtype=torch.bfloat16, reason="asked")
    assert precision._checked(model, CPU, wanted) == wanted


@pytest.mark.parametrize(
    ("low_error", "reason"),
    [(0.02, "bfloat16 agrees to 34 dB, 45 "), (float("nan"), "bfloat16 agrees to -inf dB, ")],
)
def test_low_precision_that_is_not_close_is_not_taken(conv_model, low_error, reason):
    model = restorer_of(Unlike(conv_model, low_error))
    wanted = Arithmetic(dtype=torch.bfloat16, reason="asked")
    chosen = precision._checked(model, CPU, wanted)
    assert chosen.dtype == torch.float32
    assert chosen.reason.startswith(reason)


def test_models_without_the_dtype_stay_in_float32(conv_model):
    class Fails(Unlike):
        def forward(self, video):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError('"kernel" not implemented for BFloat16')
            return super().forward(video)

    wanted = Arithmetic(dtype=torch.bfloat16, reason="asked")
    chosen = precision._checked(restorer_of(Fails(conv_model, 0.0)), CPU, wanted)
    assert chosen == Arithmetic(dtype=torch.float32, reason="the model fails in bfloat16")


def test_nothing_is_chosen_that_a_model_cannot_do(conv_model):
    traits = Traits(name="exact", family="test", stride=(1, 8, 8), dtypes=("float32",))
    exact = ModuleRestorer(conv_model, traits)
    assert choose_dtype(exact, CPU, "auto").dtype == torch.float32
    with pytest.raises(ValueError, match=r"exact can compute in \(float32\), got bfloat16"):
        choose_dtype(exact, CPU, torch.bfloat16)


def test_the_plan_says_why_and_an_unfinished_run_keeps_its_own(conv_model):
    upscaler = VideoUpscaler(conv_model, device="cpu")
    plan = upscaler.plan((32, 32), (64, 64))
    reason = arithmetic_of(CPU).reason
    assert f"; {plan.dtype} (auto: {reason}); about" in str(plan)
    other = "float32" if plan.dtype == "bfloat16" else "bfloat16"
    earlier = plan.to_json() | {"dtype": other}
    del earlier["dtype_reason"]  # as older versions wrote it
    following = plan.following(earlier)
    assert (following.dtype, following.dtype_reason) == (other, "as the run was begun")
    assert plan.following(plan.to_json()) == plan
    fixed = VideoUpscaler(conv_model, device="cpu", dtype="float32").plan((32, 32), (64, 64))
    assert "; float32; about" in str(fixed)


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
