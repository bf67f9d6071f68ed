"""How near two ways of computing the same pixels are."""

from __future__ import annotations

import math

from torch import Tensor


def psnr_db(video: Tensor, reference: Tensor) -> float:
    """PSNR of values in [0, 1] over all of them: inf where equal, -inf where any is not finite."""
    error = (video.float() - reference.float()).square().mean().item()
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else -10 * math.log10(error)
