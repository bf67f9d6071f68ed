"""Frame rates as encoders and containers can hold them."""

from __future__ import annotations

from fractions import Fraction

from ..geometry import plain_number
from .errors import VideoError

BROADCAST_RATES = (12, 15, 24, 30, 48, 60, 72, 90, 96, 120, 144, 240)
"""Rates of which television knows a form slowed by 1001/1000: 24000/1001 for 24, and so on."""
TOLERANCE = 2e-4
"""Relative; 23.98 is meant as 24000/1001, which is 0.00017 away, while 24 is 0.001 away."""
LEAST_RATE, MOST_RATE = Fraction(1, 1000), Fraction(1000)
MOST_DENOMINATOR = 1001


def nearest_rate(value: float | str | Fraction) -> Fraction:
    """Return the frame rate that a number stands for, as a fraction of small whole numbers.

    A float such as 29.97 is a fraction with a large power of two below the line, which no encoder
    takes. 23.976, 29.97, 59.94 and their like are the n/1001 of broadcasting; all others become the
    nearest fraction with at most 1001 below the line (above it, where the rate is less than 1).

    Args:
        value: frames per second: a number, or text such as "23.976" or "24000/1001".

    Raises:
        VideoError: it is no number, or less than 0.001 or more than 1000.
    """
    try:
        rate = Fraction(plain_number(value))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise VideoError(
            f"fps must be a number like 24, 23.976 or 24000/1001, got {value}"
        ) from error
    if not LEAST_RATE <= rate <= MOST_RATE:
        shown = f"{float(rate):g}" if rate < 1e9 else "far more"
        raise VideoError(f"fps must be at least 0.001 and at most 1000, got {shown}")
    for whole in BROADCAST_RATES:
        exact = Fraction(whole * 1000, 1001)
        if abs(rate / exact - 1) < TOLERANCE:
            return exact
    if rate < 1:
        return 1 / (1 / rate).limit_denominator(MOST_DENOMINATOR)
    return rate.limit_denominator(MOST_DENOMINATOR)
