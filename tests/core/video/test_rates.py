"""Every frame rate that a number can hold becomes one that encoders take, and the right one."""

import random
from fractions import Fraction

import numpy as np
import pytest

from oasis_core.options import rate_of
from oasis_core.video import EncodeSpec, SegmentWriter, VideoError, nearest_rate
from oasis_core.video.spec import MOST_TICKS

MEANT = {
    23.976: (24000, 1001), 23.98: (24000, 1001), 23.976023976: (24000, 1001),
    29.97: (30000, 1001), 29.97002997: (30000, 1001), 30000 / 1001: (30000, 1001),
    47.952: (48000, 1001), 59.94: (60000, 1001), 59.9401: (60000, 1001), 119.88: (120000, 1001),
    14.985: (15000, 1001), 11.988: (12000, 1001),
    24.0: (24, 1), 25.0: (25, 1), 30.0: (30, 1), 50.0: (50, 1), 60.0: (60, 1), 12.5: (25, 2),
    16.666: (8333, 500), 50 / 3: (50, 3), 0.1: (1, 10), 1 / 3: (1, 3), 120.1: (1201, 10),
    8: (8, 1), 0.001: (1, 1000), 1000: (1000, 1), 7.5: (15, 2), 15.15: (303, 20),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), MEANT.items())
def test_a_number_means_the_nearest_usual_rate(value, expected):
    rate = Fraction(*expected)
    assert nearest_rate(value) == rate
    assert nearest_rate(Fraction(value)) == rate
    assert rate_of(repr(value)) == rate
    assert nearest_rate(rate) == rate


def test_any_float_is_met_closely_and_fits_into_32_bits():
    draw = random.Random(0)
    values = [draw.uniform(0.001, 1000) for _ in range(2000)]
    values += [10 ** draw.uniform(-3, 3) for _ in range(2000)]
    values += [whole + draw.uniform(-0.06, 0.06) for whole in range(1, 250) for _ in range(4)]
    for value in values:
        rate = nearest_rate(value)
        assert abs(rate / Fraction(value) - 1) < 1e-3, value
        assert max(rate.as_integer_ratio()) <= MOST_TICKS
        assert nearest_rate(rate) == rate


@pytest.mark.parametrize("value", [23.976, 16.666, 0.1, 1 / 3, 120.1, 59.94, 0.0017, 999.97])
def test_an_encoder_takes_what_is_found(tmp_path, value):
    rate = nearest_rate(value)
    spec = EncodeSpec(codec="h264", width=32, height=32, frame_rate=rate, time_base=1 / rate)
    with SegmentWriter(tmp_path / "a.mkv", spec) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8), 0, 1)
    assert writer.path.is_file()


@pytest.mark.parametrize(
    "value", [0, -1, float("nan"), float("inf"), 1e-9, 1001, "x", "1/0", Fraction(10**400)]
)
def test_no_rate_is_refused_in_a_sentence(value):
    with pytest.raises(VideoError, match="fps must be"):
        nearest_rate(value)


def test_a_rate_beyond_ffmpegs_fractions_names_the_way_out():
    with pytest.raises(VideoError, match="nearest_rate"):
        EncodeSpec(
            codec="h264",
            width=32,
            height=32,
            frame_rate=Fraction(29.97),
            time_base=Fraction(1, 30),
        )
