"""As many local heads as a bound on the pixels allows: thresholds are tried on clips, and measured.

Attention distances say which heads lose least; what that costs in the picture, only it can say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .agreement import EQUAL_DB, psnr_db
from .denoiser import OasisModel
from .head_distances import HeadDistances
from .routing import HeadRouting


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundRouting:
    """A routing and what was measured of it."""

    routing: HeadRouting
    """In the file's head order."""
    kept_db: float
    """PSNR in dB of the worst clip against the same model with all heads global."""
    num_tried: int
    """Routings that were run over the clips."""


@torch.inference_mode()
def route_within(
    model: OasisModel,
    clips: Sequence[Tensor],
    distances: HeadDistances,
    least_db: float,
    on_tried: Callable[[float, float], None] | None = None,
) -> BoundRouting:
    """The most local heads with which every clip's pixels stay as near as asked.

    One threshold serves both patterns. It is found by halving, which takes the pixels to become no
    nearer with more local heads; whether or not they do, the answer itself was measured.

    Args:
        model: The model, on its device; its routing is as before afterwards.
        clips: Videos `1 3 t h w` in [0, 1] in the precision of the arithmetic.
        distances: What the heads lose under each pattern.
        least_db: PSNR in dB that the worst clip must keep to the pixels of all heads global.
        on_tried: Called with each threshold and its PSNR.

    Returns:
        The routing; all heads global if no other keeps the bound.
    """
    own, device = model.transformer.routing, next(model.parameters()).device
    shape = (len(distances.raw), len(distances.raw[0]))
    everything = HeadRouting.all_global(*shape, window=distances.window)

    def restore(routing: HeadRouting) -> list[Tensor]:
        model.transformer.apply_routing(routing)
        videos = (clip.to(device) for clip in clips)
        return [(clip + model(clip)).clamp(0, 1).float().cpu() for clip in videos]

    values = sorted({value for row in distances.normalized for pair in row for value in pair})
    # Just above each value, so that the head it belongs to is the last to become local.
    thresholds = [0.0, *(math.nextafter(value, math.inf) for value in values)]
    best = BoundRouting(routing=everything, kept_db=EQUAL_DB, num_tried=0)
    low, high, num_tried = 0, len(thresholds) - 1, 0
    try:
        references = restore(everything)
        while low < high:
            middle = (low + high + 1) // 2
            limit = thresholds[middle]
            routing = HeadRouting.from_thresholds(distances, max_intra=limit, max_window=limit)
            pairs = zip(restore(routing), references, strict=True)
            kept_db, num_tried = min(psnr_db(*pair) for pair in pairs), num_tried + 1
            if on_tried is not None:
                on_tried(limit, kept_db)
            if kept_db >= least_db:
                low = middle
                kept_db = min(kept_db, EQUAL_DB)
                best = BoundRouting(routing=routing, kept_db=kept_db, num_tried=num_tried)
            else:
                high = middle - 1
    finally:
        if own is not None:
            model.transformer.apply_routing(own)
    rule = {**best.routing.rule, "least_db": least_db, "kept_db": round(best.kept_db, 3)}
    routing = replace(best.routing, rule=rule, distances=distances)
    return replace(best, routing=routing, num_tried=num_tried)
