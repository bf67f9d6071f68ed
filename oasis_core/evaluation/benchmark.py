"""Restore clips and compare: end to end from sharp originals, from pairs, or without a truth."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange
from torch import Tensor

from ..degradation import DegradationError, degrade
from ..video import VideoError
from .clips import (
    ORIGINAL,
    ClipSource,
    EvaluationError,
    distinct_names,
    find_sources,
    middle_square,
    read_clip,
    read_frames,
)
from .metrics import to_uint8
from .peers import Peer, ResultCache
from .suite import DEFAULT_METRICS, MetricSuite, Values

if TYPE_CHECKING:
    from ..upscale import VideoUpscaler

__all__ = ["ClipResult", "Shown", "evaluate", "evaluate_source", "read_clip", "summarise"]

MIN_MIDDLE_PX = 32
GIVEN = "given"
"""Stands for the degradation of low-quality clips that came with the set."""
DEFAULT_DEGRADATIONS = ("light", "web", "consistent")
_SUMMED_UP = ("lpips", "dists", "cvvdp", "temporal_difference", "tlp", "still_deviation")
MAX_CROP_PX = 16
"""Results may be this much larger or smaller than the truth; the common top-left part counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """Metrics of one clip under one degradation, for every method."""

    name: str
    """The clip."""
    degradation: str
    """Preset the clip was degraded with, or "given"."""
    num_frames: int
    """Frames compared."""
    size: tuple[int, int]
    """(width, height) compared, in pixels."""
    methods: Mapping[str, Values]
    """Metrics by method; "bicubic" is the plain resize, "model" the model under test."""

    @property
    def bicubic(self) -> Values:
        """Metrics of the plain resize; empty if it was not measured."""
        return self.methods.get("bicubic", {})

    @property
    def model(self) -> Values:
        """Metrics of the model; empty if none was measured."""
        return self.methods.get("model", {})

    @property
    def gain_db(self) -> float | None:
        """PSNR of the model over the bicubic resize in dB, where there is a truth."""
        if "psnr_db" not in self.model or "psnr_db" not in self.bicubic:
            return None
        return self.model["psnr_db"] - self.bicubic["psnr_db"]

    def with_scores(self, scores: Mapping[tuple[str, str], Values]) -> ClipResult:
        """The same with scores of another tool added, by clip and method."""
        methods = {
            method: {**values, **scores.get((self.name, method), {})}
            for method, values in self.methods.items()
        }
        return dataclasses.replace(self, methods=methods)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "gain_db": self.gain_db}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The pixels behind a result, for pictures: clips `t 3 h w` in [0, 1]."""

    low: Tensor | None
    """The low-quality clip in its own size."""
    methods: Mapping[str, Tensor] = field(default_factory=dict)
    """What each method made of it."""
    truth: Tensor | None = None
    """The original."""


def _low_clips(
    source: ClipSource, truth: Tensor | None, degradations: Sequence[str], scale: float, frames: int
) -> Iterator[tuple[str, Tensor | None]]:
    """The low-quality versions of a clip: the given one, or one per degradation."""
    if source.low is not None:
        yield GIVEN, read_frames(source.low, frames)
    elif source.restored:
        yield GIVEN, None
    else:
        # The seed is the checksum of the file name, so every run degrades a file alike.
        seed = zlib.crc32(source.truth.name.encode())
        for preset in degradations:
            yield preset, degrade(truth, preset=preset, scale=scale, seed=seed)[0]


def _common(name: str, clips: dict[str, Tensor], truth: Tensor | None) -> dict[str, Tensor]:
    """The clips and the truth cut to their common size, top-left.

    Raises:
        EvaluationError: Frame counts differ, or sizes by more than `MAX_CROP_PX`.
    """
    everything = clips if truth is None else {**clips, "truth": truth}
    shapes = {method: (len(clip), *clip.shape[2:]) for method, clip in everything.items()}
    least = [min(shape[axis] for shape in shapes.values()) for axis in range(3)]
    for method, (num_frames, height, width) in shapes.items():
        if num_frames != least[0]:
            raise EvaluationError(
                f"{name}: all versions must have the same number of frames, {method} has "
                f"{num_frames} and another {least[0]}; give the missing frames or --frames"
            )
        if max(height - least[1], width - least[2]) > MAX_CROP_PX:
            raise EvaluationError(
                f"{name}: sizes must agree to {MAX_CROP_PX} px, {method} is {width}x{height} and "
                f"the smallest {least[2]}x{least[1]}; check the pairing or the scale"
            )
    return {method: clip[:, :, : least[1], : least[2]] for method, clip in everything.items()}


def _read_truth(
    source: ClipSource, scale: float, num_frames: int, middle_px: int, is_tripod: bool
) -> Tensor | None:
    """The original of a clip, or its middle, or its first frame held; None without one."""
    is_made = source.truth is not None and source.low is None and not source.restored
    if (middle_px and source.truth is not None) or is_tripod:
        what = "a scene on a tripod can be made" if is_tripod else "a middle can be measured"
        if not is_made:
            raise EvaluationError(
                f"{source.name}: {what} of sharp clips that are degraded here only"
            )
    if source.truth is None:
        return None
    # A made low-quality clip needs a size that the factor divides.
    multiple = round(scale) if is_made else 1
    truth = read_clip(source.truth, num_frames, multiple)
    if is_tripod:
        truth = truth[:1].expand_as(truth).contiguous()
    if not middle_px:
        return truth
    return middle_square(truth, middle_px // multiple * multiple, source.name)


def evaluate_source(
    upscaler: VideoUpscaler | None,
    source: ClipSource,
    suite: MetricSuite,
    *,
    degradations: Sequence[str],
    scale: float,
    num_frames: int,
    middle_px: int = 0,
    is_tripod: bool = False,
    peers: Sequence[Peer] = (),
    cache: ResultCache | None = None,
) -> Iterator[tuple[ClipResult, Shown]]:
    """Measure one clip: degrade if needed, upscale where a low-quality clip exists, compare.

    Args:
        upscaler: The model under test; None: measure given results only.
        source: The clip.
        suite: What to measure.
        degradations: Presets, for a clip without a low-quality version.
        scale: Upscaling factor where no truth tells the size.
        num_frames: Frames from the start of the clip; 0: all.
        middle_px: Side of the middle square to measure; 0: whole frames.
        is_tripod: Hold the first frame of the original, as a camera on a tripod would; what is
            done to it stays new in every frame.
        peers: Other upscalers, given the same low-quality clips.
        cache: Keeps what the peers made.

    Yields:
        One result per degradation, and the pixels behind it.

    Raises:
        EvaluationError: A middle is asked of a clip that is too small or is not degraded here.
    """
    truth = _read_truth(source, scale, num_frames, middle_px, is_tripod)
    cache = cache or ResultCache(None)
    flows, exact_size, original = None, None, {}
    given = {method: read_frames(path, num_frames) for method, path in source.restored.items()}
    for degradation, low in _low_clips(source, truth, degradations, scale, num_frames):
        clips = {}
        if low is not None and truth is None and middle_px:
            low = middle_square(low, max(1, round(middle_px / scale)), source.name)
        size = None if low is None else _target_size(low, truth, scale)
        if low is not None and upscaler is not None:
            batch = rearrange(low, "t c h w -> 1 c t h w")
            for method, strength in (("bicubic", 0.0), ("model", 1.0)):
                restored = upscaler.upscale(batch, size=size, strength=strength)
                clips[method] = rearrange(restored, "1 c t h w -> t c h w")
        if low is not None:
            clips |= {peer.name: cache.restore(peer, low, size) for peer in peers}
        clips = _common(source.name, {**clips, **given}, truth)
        exact = clips.pop("truth", None)
        if exact is not None and exact.shape != exact_size:
            # The same for every degradation, and the slowest part.
            exact_size = exact.shape
            flows = suite.flows(exact)
            original = suite.measure(exact, None, flows)
        measured = {name: suite.measure(clip, exact, flows) for name, clip in clips.items()}
        if original:
            measured[ORIGINAL] = dict(original)
        first = next(iter(clips.values()))
        result = ClipResult(
            name=source.name,
            degradation=degradation,
            num_frames=len(first),
            size=(first.shape[3], first.shape[2]),
            methods=measured,
        )
        pixels = {name: to_uint8(clip) for name, clip in clips.items()}
        yield result, Shown(low=low, methods=pixels, truth=exact)


def _target_size(low: Tensor, truth: Tensor | None, scale: float) -> tuple[int, int]:
    """(width, height) to restore to: the truth's, or the low-quality clip's times the scale."""
    if truth is not None:
        return truth.shape[3], truth.shape[2]
    return round(low.shape[3] * scale), round(low.shape[2] * scale)


def evaluate(
    upscaler: VideoUpscaler | None,
    sources: Sequence[ClipSource | Path],
    *,
    degradations: Sequence[str] = DEFAULT_DEGRADATIONS,
    scale: float = 4,
    num_frames: int = 10,
    middle_px: int = 0,
    is_tripod: bool = False,
    peers: Sequence[Peer] = (),
    cache: ResultCache | None = None,
    suite: MetricSuite | None = None,
    on_result: Callable[[ClipResult, Shown], None] | None = None,
    on_skip: Callable[[str, str], None] | None = None,
) -> list[ClipResult]:
    """Run `evaluate_source` over clips (paths are sharp originals), reporting each result.

    Args:
        upscaler: The model under test; None: measure given results only.
        sources: The clips.
        degradations: Presets, for clips without a low-quality version.
        scale: Upscaling factor where no truth tells the size.
        num_frames: Frames from the start of each clip; 0: all.
        middle_px: Side of the middle square of each clip to measure; 0: whole frames.
        is_tripod: Hold the first frame of each original.
        peers: Other upscalers, given the same low-quality clips.
        cache: Keeps what the peers made.
        suite: What to measure.
        on_result: Called with each result and its pixels, also of a clip that is skipped later.
        on_skip: Called with name and reason of a clip that cannot be read, degraded or paired,
            of which nothing counts then; None: such a clip ends the evaluation.

    Raises:
        EvaluationError, DegradationError, VideoError: A clip cannot be measured, or none of them.
    """
    if middle_px and middle_px < MIN_MIDDLE_PX:
        raise EvaluationError(f"the middle must have at least {MIN_MIDDLE_PX} px, got {middle_px}")
    suite = suite or MetricSuite(DEFAULT_METRICS)
    clips = distinct_names(
        clip
        for source in sources
        for clip in ([source] if isinstance(source, ClipSource) else find_sources([source]))
    )
    results: list[ClipResult] = []
    options = {
        "scale": scale,
        "num_frames": num_frames,
        "middle_px": middle_px,
        "is_tripod": is_tripod,
        "peers": peers,
        "cache": cache,
    }
    for clip in clips:
        measured = evaluate_source(upscaler, clip, suite, degradations=degradations, **options)
        of_clip = []
        try:
            for result, shown in measured:
                of_clip.append(result)
                if on_result:
                    on_result(result, shown)
        except (EvaluationError, DegradationError, VideoError) as error:
            if on_skip is None or len(clips) == 1:
                raise
            on_skip(clip.name, str(error))
        else:
            results += of_clip
    if clips and not results:
        raise EvaluationError(
            f"none of the {len(clips)} clips could be measured; each was named with its reason"
        )
    return results


def summarise(results: Sequence[ClipResult]) -> dict[str, dict[str, float]]:
    """The model against the bicubic resize per degradation; little where nothing compares."""
    summary = {}
    for degradation in dict.fromkeys(result.degradation for result in results):
        chosen = [result for result in results if result.degradation == degradation]
        row: dict[str, float] = {"num_clips": len(chosen)}
        gains = [result.gain_db for result in chosen if result.gain_db is not None]
        if gains:
            row["bicubic_psnr_db"] = float(np.mean([r.bicubic["psnr_db"] for r in chosen]))
            row["mean_gain_db"] = float(np.mean(gains))
            row["least_gain_db"] = float(np.min(gains))
        if "ssim" in chosen[0].model:
            row["ssim_gain"] = float(np.mean([r.model["ssim"] - r.bicubic["ssim"] for r in chosen]))
        for name in _SUMMED_UP:
            measured = [r.model[name] for r in chosen if name in r.model]
            if measured:
                row[name] = float(np.mean(measured))
        moving = [r for r in chosen if "warping_error" in r.model and ORIGINAL in r.methods]
        if moving:
            beyond = [
                r.model["warping_error"] - r.methods[ORIGINAL]["warping_error"] for r in moving
            ]
            row["warping_error_beyond_original"] = float(np.mean(beyond))
        summary[degradation] = row
    return summary


def method_means(results: Sequence[ClipResult]) -> dict[str, dict[str, Values]]:
    """Mean of each metric over the clips that have it, by degradation and method."""
    means: dict[str, dict[str, Values]] = {}
    for degradation in dict.fromkeys(result.degradation for result in results):
        chosen = [result for result in results if result.degradation == degradation]
        means[degradation] = {}
        for method in dict.fromkeys(name for result in chosen for name in result.methods):
            rows = [result.methods[method] for result in chosen if method in result.methods]
            names = dict.fromkeys(name for row in rows for name in row)
            means[degradation][method] = {
                name: float(np.mean([row[name] for row in rows if name in row])) for name in names
            }
    return means
