"""The parts of the GPU report, one function each."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bench.attention import bench_attention
from ..bench.plan_table import routing_counts
from ..bench.stages import apply_counts, bench_stages, random_model_of
from ..config import TINY_BOTH, ModelConfig
from ..model.agreement import agreement_db
from ..model.compiled import compile_model
from ..model.cost import padded_size
from ..model.denoiser import OasisModel, inference_autocast_off
from ..model.int8 import hold_int8
from ..model.timing import fastest, synchronize
from ..upscale import VideoUpscaler
from ..upscale.memory import peak_cuda_bytes
from ..upscale.segment import Look
from .golden import golden_cases, golden_output, golden_reference
from .gpu_plan import plan_for_gpu
from .gpu_scale import FULL, ReportScale
from .seedvr2 import bench_seedvr2
from .streams import overlap_groups

CASES = (
    ("720p", "thirds", "wan"),
    ("720p", "global", "wan"),
    ("1080p", "thirds", "wan"),
    ("1080p", "thirds", "tiny"),
    ("1080p", "global", "tiny"),
    ("4K", "thirds", "tiny"),
    ("4K", "global", "tiny"),
)
"""Size, routing and decoder of the stages that are timed."""


@dataclass(slots=True, kw_only=True)
class PartContext:
    """What the parts share: one model with random weights and both decoders."""

    scale: ReportScale
    model: OasisModel
    device: torch.device
    dtype: torch.dtype
    num_runs: int

    @classmethod
    def make(cls, scale: ReportScale, device: str, dtype: str, num_runs: int) -> PartContext:
        """Make the model on a device."""
        model, chosen, arithmetic = random_model_of(scale.config, device, dtype)
        return cls(scale=scale, model=model, device=chosen, dtype=arithmetic, num_runs=num_runs)

    def choose(self, routing: str, decoder: str) -> list[tuple[int, int, int]]:
        """Set routing and decoder for what follows; returns the heads of each layer."""
        counts, _ = routing_counts(self.scale.config, None, routing)
        apply_counts(self.model, counts)
        self.model.config = dataclasses.replace(self.model.config, decoder=decoder)
        return list(counts)

    def clip(self, name: str) -> torch.Tensor:
        """A random clip of a size, padded to whole tokens: `1 3 t h w`."""
        width, height = self.scale.sizes[name]
        height, width = padded_size(self.scale.config, height, width)
        generator = torch.Generator(device=self.device).manual_seed(0)
        shape = (1, 3, self.scale.num_frames, height, width)
        return torch.rand(shape, generator=generator, device=self.device).to(self.dtype)

    def tidy(self) -> None:
        """Give back what the last part left behind."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def stage_rows(bench: PartContext) -> list[dict[str, Any]]:
    """Seconds of every stage for sizes, routings and decoders; what does not fit says so."""
    rows = []
    for name, routing, decoder in CASES:
        counts = bench.choose(routing, decoder)
        row = {"size_name": name, "routing": routing, "decoder": decoder}
        try:
            row |= bench_stages(
                bench.model,
                counts,
                size=bench.scale.sizes[name],
                num_frames=bench.scale.num_frames,
                num_runs=bench.num_runs,
                dtype=bench.dtype,
            )
        except torch.cuda.OutOfMemoryError as error:
            row["error"] = str(error).splitlines()[0]
        rows.append(row)
        bench.tidy()
    return rows


def public_rows(bench: PartContext) -> list[dict[str, Any]]:
    """Seconds of every stage, and the peak of memory, of the models whose weights are public.

    At 720p with random weights; as published first, then routed, then with their other decoders.
    """
    rows = []
    for config in bench.scale.public:
        own, other = ("wan", TINY_BOTH) if config.tiny_encoder_width else ("tiny", "wan")
        for routing, decoder in (("global", own), ("thirds", own), ("thirds", other)):
            row = {"model": config.name, "routing": routing, "decoder": decoder}
            try:
                row |= _public_row(bench, config, routing, decoder)
            except torch.cuda.OutOfMemoryError as error:
                row["error"] = str(error).splitlines()[0]
            rows.append(row)
            bench.tidy()
    return rows


def _public_row(
    bench: PartContext, config: ModelConfig, routing: str, decoder: str
) -> dict[str, Any]:
    dtype = str(bench.dtype).removeprefix("torch.")
    model, _, _ = random_model_of(config, str(bench.device), dtype, decoder)
    counts, _ = routing_counts(model.config, None, routing)
    apply_counts(model, counts)
    result = bench_stages(
        model,
        counts,
        size=bench.scale.sizes["720p"],
        num_frames=bench.scale.num_frames,
        num_runs=bench.num_runs,
        dtype=bench.dtype,
    )
    return {**result, "decoder": decoder}


def attention_rows(bench: PartContext) -> list[dict[str, Any]]:
    """Patterns and backends on the token grids of the sizes."""
    heads = max(1, bench.scale.config.num_heads // 3)
    return [
        row
        for grid in bench.scale.grids
        for row in bench_attention(
            grid=grid,
            num_heads=heads,
            head_size=bench.scale.config.head_size,
            window=bench.scale.config.window_size,
            device=bench.device,
            dtype=bench.dtype,
            num_repeats=bench.num_runs,
        )
    ]


def quality(bench: PartContext) -> dict[str, dict[str, float]]:
    """PSNR in dB of every backend and precision against the float32 reference on the CPU.

    Of the small model with fixed weights: the reference attends through a mask over all pairs.
    """
    found: dict[str, dict[str, float]] = {}
    for decoder in bench.scale.golden_decoders:
        reference = golden_reference(decoder)
        found[decoder] = {
            name: agreement_db(golden_output(decoder, bench.device, dtype, backend), reference)
            for name, dtype, backend in golden_cases(bench.device)
        }
    return found


def variants(bench: PartContext) -> dict[str, Any]:
    """What optional ways of running take, next to the plain way, at 720p with the Wan decoder."""
    bench.choose("thirds", "wan")
    clip = bench.clip("720p")

    def transformer() -> torch.Tensor:
        return bench.model.predict_latent(clip)

    def seconds(function: Callable[[], object]) -> float:
        with torch.inference_mode(), inference_autocast_off(bench.device):
            return fastest(function, bench.device, bench.num_runs)[0]

    found: dict[str, Any] = {"transformer_s": seconds(transformer)}
    ways = {
        "streams_s": lambda: _with_streams(bench, lambda: seconds(transformer)),
        "cuda_graph_s": lambda: _graph_seconds(bench, transformer),
        "decoder_beside_transformer_s": lambda: _beside(bench, clip),
        "int8": lambda: _int8(bench, clip, lambda: seconds(transformer)),
        "compiled_s": lambda: _compiled(bench, lambda: seconds(transformer)),
    }
    for name, way in ways.items():
        try:
            found[name] = way()
        except Exception as error:
            # Each is optional: what a GPU cannot do is noted in place of its time.
            found[name] = f"{type(error).__name__}: {str(error).strip()[:200]}"
        bench.tidy()
    return found


def _with_streams(bench: PartContext, measure: Callable[[], float]) -> float:
    overlap_groups(bench.model)
    try:
        return measure()
    finally:
        overlap_groups(bench.model, is_on=False)


def _needs_cuda(bench: PartContext) -> None:
    if bench.device.type != "cuda":
        raise ValueError(f"needs CUDA, got {bench.device}")


def _graph_seconds(bench: PartContext, function: Callable[[], torch.Tensor]) -> float:
    _needs_cuda(bench)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), inference_autocast_off(bench.device):
        function()
        with torch.cuda.graph(graph):
            function()
        return fastest(graph.replay, bench.device, bench.num_runs)[0]


def _beside(bench: PartContext, clip: torch.Tensor) -> dict[str, float]:
    """Decoding one segment on a second stream while the next one's transformer runs."""
    _needs_cuda(bench)
    stream = torch.cuda.Stream(bench.device)
    with torch.inference_mode(), inference_autocast_off(bench.device):
        latent = bench.model.predict_latent(clip)

        def in_turn() -> None:
            bench.model.predict_latent(clip)
            for _ in bench.model.decode(latent):
                pass

        def together() -> None:
            stream.wait_stream(torch.cuda.current_stream(bench.device))
            with torch.cuda.stream(stream):
                decoding = bench.model.decode(latent)
                next(decoding)
            bench.model.predict_latent(clip)
            with torch.cuda.stream(stream):
                for _ in decoding:
                    pass
            synchronize(bench.device)

        return {
            "in_turn": fastest(in_turn, bench.device, bench.num_runs)[0],
            "together": fastest(together, bench.device, bench.num_runs)[0],
        }


def _compiled(bench: PartContext, measure: Callable[[], float]) -> float:
    """Last of the ways: the model stays compiled."""
    compile_model(bench.model, backend=bench.scale.compiler)
    return measure()


def _int8(bench: PartContext, clip: torch.Tensor, measure: Callable[[], float]) -> dict[str, float]:
    plain = bench.model
    bench.model, _, _ = random_model_of(bench.scale.config, str(bench.device), _name(bench.dtype))
    try:
        bench.choose("thirds", "wan")
        psnr_db = hold_int8(bench.model, clip[:, :, :1])
        return {"psnr_db": psnr_db, "transformer_s": measure()}
    finally:
        bench.model = plain


def memory_rows(bench: PartContext) -> list[dict[str, Any]]:
    """Plans for GPUs of several sizes, and on CUDA the memory that a clip really takes in each."""
    source, result = bench.scale.memory_sizes
    bench.choose("thirds", "wan")
    dtype = _name(bench.dtype)
    rows = []
    for budget in bench.scale.budgets:
        row: dict[str, Any] = {"budget_bytes": budget, "sizes": [list(source), list(result)]}
        try:
            plan = plan_for_gpu(bench.model.config, budget, source, result, dtype=dtype)
            row["plan"] = plan.to_json()
            if bench.device.type == "cuda":
                row |= _real_memory(bench, budget)
            else:
                row["reason"] = f"planned {plan.tile[1]}x{plan.tile[0]} px tiles, not run: no GPU"
        except ValueError as error:
            row["reason"] = str(error)
        except torch.cuda.OutOfMemoryError as error:
            row |= {"reason": str(error).splitlines()[0], "has_run_out": True}
        rows.append(row)
        bench.tidy()
    return rows


def _real_memory(bench: PartContext, budget: int) -> dict[str, Any]:
    """Peak of a full segment of the plan, two of its tiles wide: others would take no more."""
    source, result = bench.scale.memory_sizes
    with gpu_of_size(bench.device, budget):
        upscaler = VideoUpscaler(bench.model, bench.device, bench.dtype, model_hash="random")
        plan = upscaler.plan(source, result)
        height = min(result[1], plan.tile[0])
        width = min(result[0], max(plan.tile[1], 2 * plan.tile[1] - plan.overlap_px))
        segments = upscaler.segment_upscaler(Look(width=width, height=height), plan)
        shape = (height // 2, width // 2, 3)
        frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        before = max(plan.halo_frames, plan.lead_frames)
        frames = [frame] * (before + plan.segment_frames + plan.halo_frames)
        keep = slice(before, before + plan.segment_frames)
        for _ in segments.run(frames, keep):
            pass
        return {
            "peak_bytes": peak_cuda_bytes(bench.device),
            "plan": plan.to_json(),
            "tile": list(segments.tile),
        }


@contextmanager
def gpu_of_size(device: torch.device, num_bytes: int) -> Iterator[None]:
    """Let this process use no more of a GPU than a smaller one has.

    Raises:
        ValueError: The GPU itself is smaller.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    if num_bytes > total:
        raise ValueError(
            f"a GPU of {num_bytes / 2**30:.0f} GiB can be tried on a larger one only, got "
            f"{total / 2**30:.1f} GiB"
        )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.set_per_process_memory_fraction(num_bytes / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def seedvr2(bench: PartContext, checkout: Path | None) -> dict[str, Any] | None:
    """SeedVR2-3B's network at 720p; None without a checkout."""
    if checkout is None:
        return None
    return bench_seedvr2(
        checkout,
        size=bench.scale.sizes["720p"],
        num_frames=bench.scale.num_frames,
        num_runs=bench.num_runs,
        device=str(bench.device),
        is_shrunken=bench.scale is not FULL,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
