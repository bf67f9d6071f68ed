"""How near two ways of computing the same pixels are."""

from __future__ import annotations

import math

from torch import Tensor

EQUAL_DB = 200.0
"""Said of equal pictures: JSON has no infinity."""


def psnr_db(video: Tensor, reference: Tensor) -> float:
    """PSNR of values in [0, 1] over all of them: inf where equal, -inf where any is not finite."""
    error = (video.float() - reference.float()).square().mean().item()
    if not math.isfinite(error):
        return -math.inf
    return math.inf if error == 0 else -10 * math.log10(error)


def agreement_db(video: Tensor, reference: Tensor) -> float:
    """PSNR of two clips in [0, 1] in dB, as a number that JSON knows: between +-`EQUAL_DB`."""
    return max(-EQUAL_DB, min(EQUAL_DB, psnr_db(video, reference)))
