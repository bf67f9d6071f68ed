"""The chosen metrics, ready to measure clips; what cannot run is noted, not fatal."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import metrics, networks, temporal
from .clips import EvaluationError
from .warping import FlowEstimator, ilk_flow, motion, published_warping_error, warping_error

Values = dict[str, float]
Flows = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a reader needs to know of a metric."""

    title: str
    """Column head."""
    is_higher_better: bool
    """Direction."""
    digits: int
    """Decimals shown."""
    about: str
    """One sentence for reports."""


METRICS: dict[str, MetricInfo] = {
    "psnr_db": MetricInfo("PSNR", True, 2, "RGB, dB, mean over frames, no border crop"),
    "psnr_y_db": MetricInfo("PSNR-Y", True, 2, "BT.601 limited-range luma, dB"),
    "ssim": MetricInfo("SSIM", True, 4, "on luma, as the published tables have it"),
    "ssim_rgb": MetricInfo("SSIM-RGB", True, 4, "mean of R, G and B"),
    "lpips": MetricInfo("LPIPS", False, 4, "AlexNet, version 0.1"),
    "lpips_vgg": MetricInfo("LPIPS-VGG", False, 4, "VGG16, version 0.1"),
    "dists": MetricInfo("DISTS", False, 4, "VGG16"),
    "cvvdp": MetricInfo(
        "CVVDP", True, 3, "ColorVideoVDP, just-objectionable differences; 10: none can be seen"
    ),
    "clipiqa": MetricInfo("CLIP-IQA", True, 4, "RN50, 0 to 1"),
    "temporal_difference": MetricInfo(
        "temporal error",
        False,
        2,
        "how far each frame's step to the next is from the original's step, rms in 8-bit steps",
    ),
    "tlp": MetricInfo("tLP x100", False, 3, "how far LPIPS from frame to frame is from its own"),
    "still_deviation": MetricInfo(
        "on a tripod", False, 2, "standard deviation over time of a still scene, in 8-bit steps"
    ),
    "warping_error": MetricInfo(
        "flicker",
        False,
        3,
        "squared error (x 1000) along the motion of the original; below its own it is blur, "
        "not steadiness",
    ),
    "ewarp_published": MetricInfo(
        "E*warp publ.", False, 2, "x 1000, with the published tables' scaling mistake"
    ),
    "ewarp_corrected": MetricInfo("E*warp corr.", False, 2, "x 1000, the same without the mistake"),
    "musiq": MetricInfo("MUSIQ", True, 2, "KonIQ-10k, 0 to 100"),
    "dover": MetricInfo("DOVER", True, 4, "fused, 0 to 1"),
    "niqe": MetricInfo("NIQE", False, 3, "on luma"),
    "fastervqa": MetricInfo("FasterVQA", True, 4, "0 to 1"),
}
DEFAULT_METRICS = tuple(name for name in METRICS if name not in networks.FOREIGN_METRICS)
_PLAIN: dict[str, Callable[[Tensor, Tensor], float]] = {
    "psnr_db": metrics.psnr,
    "psnr_y_db": metrics.psnr_y,
    "ssim": metrics.ssim,
    "ssim_rgb": metrics.ssim_rgb,
    "temporal_difference": temporal.difference_error,
}
_TIMED = ("temporal_difference", "tlp")
_SAMPLED = ("lpips", "lpips_vgg", "dists", "clipiqa")
"""Slow metrics of single frames, which may be asked of some frames only."""
_MOTION = ("warping_error", "ewarp_published", "ewarp_corrected")


class MetricSuite:
    """Measures clips with every chosen metric that can run.

    Args:
        names: Keys of `METRICS`.
        device: Where networks run; the plain metrics run where the clips are.
        num_sampled: Frames from the middle of each clip for the networks that look at single
            frames; 0: all.

    Raises:
        EvaluationError: A name is unknown.
    """

    def __init__(
        self,
        names: Sequence[str] = DEFAULT_METRICS,
        device: str = "cpu",
        *,
        num_sampled: int = 0,
    ) -> None:
        if unknown := [name for name in names if name not in METRICS]:
            raise EvaluationError(f"metric must be one of {', '.join(METRICS)}, got {unknown[0]!r}")
        self.names = tuple(name for name in METRICS if name in names)
        self.device, self.num_sampled = device, num_sampled
        self._networks: dict[str, nn.Module] = {}
        self.unavailable: dict[str, str] = {}
        """Metrics that cannot run here, with the reason."""
        self.notes: dict[str, str] = {}
        """What a reader must know about a metric that did run."""
        self._comparing: dict[str, Callable[[Tensor, Tensor], float]] = {
            name: _PLAIN[name] for name in self.names if name in _PLAIN
        }
        self._alone: dict[str, Callable[[Tensor], float]] = {}
        for name in self.names:
            try:
                self._prepare(name)
            except networks.MetricUnavailableError as error:
                self.unavailable[name] = str(error)
        self.names = tuple(name for name in self.names if name not in self.unavailable)

    def _prepare(self, name: str) -> None:
        if name in networks.FOREIGN_METRICS:
            networks.check_available(name)
        elif name in ("lpips", "lpips_vgg", "dists"):
            wrap = networks.dists_score if name == "dists" else networks.lpips_score
            self._comparing[name] = _moved(wrap(self._network(name)), self.device)
        elif name == "tlp":
            network = self._network("lpips", name)
            self._comparing[name] = _moved(_tlp(network), self.device)
        elif name == "cvvdp":
            networks.check_available(name)
            self._comparing[name] = _moved(temporal.color_video_vdp(self.device), self.device)
        elif name == "clipiqa":
            network = networks.build_network(name).to(self.device)
            self._alone[name] = _moved(networks.clipiqa_score(network), self.device)
        elif name in _MOTION:
            self._prepare_motion(name)

    def _network(self, name: str, wanted_by: str = "") -> nn.Module:
        """A network with its weights, once."""
        if name not in self._networks:
            network = networks.build_network(name, wanted_by)
            self._networks[name] = network.to(self.device)
        return self._networks[name]

    def _prepare_motion(self, name: str) -> None:
        if name == "ewarp_published":
            self._alone[name] = _ewarp(networks.raft_flows(name)[0])
        if name == "ewarp_corrected":
            try:
                self._alone[name] = _ewarp(networks.raft_flows(name)[1])
            except networks.MetricUnavailableError as error:
                self._alone[name] = _ewarp(ilk_flow)
                self.notes[name] = f"iterative Lucas-Kanade flow in place of RAFT: {error}"

    def flows(self, truth: Tensor | None) -> Flows | None:
        """Motion of the original, once per clip, where a chosen metric wants it."""
        if truth is None or len(truth) < 2 or "warping_error" not in self.names:
            return None
        return motion(truth)

    def measure(self, clip: Tensor, truth: Tensor | None, flows: Flows | None) -> Values:
        """All metrics that apply to a clip `t 3 h w` in [0, 1], rounded to 8 bit first."""
        clip, values = metrics.to_uint8(clip), {}
        is_video = len(clip) > 1
        for name in self.names:
            frames = self._sampled(len(clip)) if name in _SAMPLED else slice(None)
            if name in self._comparing and truth is not None and (is_video or name not in _TIMED):
                values[name] = self._comparing[name](clip[frames], truth[frames])
            elif name in self._alone and (is_video or name not in _MOTION):
                values[name] = self._alone[name](clip[frames])
            elif name == "still_deviation" and truth is not None and temporal.is_still(truth):
                values[name] = temporal.still_deviation(clip)
            elif name == "warping_error" and flows:
                values[name] = warping_error(clip, flows)
        return values

    def _sampled(self, num_frames: int) -> slice:
        """The frames in the middle that the slow metrics look at."""
        count = min(self.num_sampled or num_frames, num_frames)
        start = (num_frames - count) // 2
        return slice(start, start + count)


def _tlp(network: nn.Module) -> Callable[[Tensor, Tensor], float]:
    @torch.inference_mode()
    def score(clip: Tensor, truth: Tensor) -> float:
        return temporal.tlp(lambda x, y: network(2 * x - 1, 2 * y - 1), clip, truth)

    return score


def _ewarp(estimate: FlowEstimator) -> Callable[[Tensor], float]:
    return lambda clip: published_warping_error(clip, estimate)


def _moved(score: Callable[..., float], device: str) -> Callable[..., float]:
    return lambda *clips: score(*(clip.to(device) for clip in clips))


def read_scores(path: Path) -> dict[tuple[str, str], Values]:
    """Scores that another tool measured, by clip and method.

    Args:
        path: CSV with the columns `clip`, `method` and any of `METRICS`.

    Raises:
        EvaluationError: The file cannot be read, or lacks a column, or holds no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"scores {path} cannot be read: {error}") from error
    if not rows or not {"clip", "method"} <= set(rows[0]):
        raise EvaluationError(f"scores {path} must have rows and the columns clip and method")
    known = [name for name in rows[0] if name in METRICS]
    if not known:
        raise EvaluationError(
            f"scores {path} must have a column of {', '.join(METRICS)}, got {', '.join(rows[0])}"
        )
    scores: dict[tuple[str, str], Values] = {}
    for number, row in enumerate(rows, start=2):
        try:
            values = {name: float(row[name]) for name in known if row[name]}
        except ValueError as error:
            raise EvaluationError(f"scores {path}, line {number}: {error}") from error
        if not all(math.isfinite(value) for value in values.values()):
            raise EvaluationError(f"scores {path}, line {number}: numbers must be finite")
        scores[row["clip"], row["method"]] = values
    return scores
