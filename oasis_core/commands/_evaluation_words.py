"""What `oasis evaluate` prints: a line for each clip, then the means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._shared import Report

if TYPE_CHECKING:
    from ..evaluation.benchmark import ClipResult


def clip_line(result: ClipResult) -> str:
    """What was measured of one clip."""
    from ..evaluation.suite import METRICS

    text = f"{result.degradation:12} {result.name:28}"
    if result.gain_db is not None:
        text += f" bicubic {result.bicubic['psnr_db']:.2f} dB, model {result.gain_db:+.2f} dB"
        if "ssim" in result.model:
            text += f", SSIM {result.model['ssim'] - result.bicubic['ssim']:+.4f}"
        return text
    methods = "; ".join(
        f"{method} "
        + " ".join(f"{METRICS[n].title} {v:.{METRICS[n].digits}f}" for n, v in values.items())
        for method, values in result.methods.items()
    )
    return f"{text} {methods}"


def report_means(results: Sequence[ClipResult], suite: Any, report: Report) -> None:
    """Print the means of each method, and a sentence on the model, for each degradation."""
    from ..evaluation.benchmark import method_means, summarise
    from ..evaluation.suite import METRICS

    for reason in suite.unavailable.values():
        report(f"not measured: {reason}")
    for degradation, methods in method_means(results).items():
        for method, values in methods.items():
            shown = ", ".join(
                f"{METRICS[name].title} {value:.{METRICS[name].digits}f}"
                for name, value in values.items()
            )
            report(f"{degradation}, {method}: {shown}")
    for name, row in summarise(results).items():
        report(f"{name}: {_sentence(row)}")


def _sentence(row: dict[str, float]) -> str:
    """The means of one degradation for people."""
    from ..evaluation.suite import METRICS

    count = round(row["num_clips"])
    parts = []
    if "mean_gain_db" in row:
        text = (
            f"{row['mean_gain_db']:+.2f} dB over the bicubic resize, which has "
            f"{row['bicubic_psnr_db']:.2f} dB"
        )
        parts.append(text + (f"; worst clip {row['least_gain_db']:+.2f} dB" if count > 1 else ""))
    if "ssim_gain" in row:
        parts.append(f"SSIM {row['ssim_gain']:+.4f}")
    parts += [
        f"{METRICS[name].title} {value:.{METRICS[name].digits}f}"
        for name, value in row.items()
        if name in METRICS
    ]
    if "warping_error_beyond_original" in row:
        parts.append(
            f"warping error {row['warping_error_beyond_original']:+.3f} from the original's"
        )
    clips = "1 clip" if count == 1 else f"mean of {count} clips"
    return f"the model, {clips}: " + "; ".join(parts or ["no metric compares it with anything"])
