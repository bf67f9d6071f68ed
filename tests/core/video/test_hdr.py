"""HDR10's static metadata through every encoder that takes it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from oasis_core.video import HDR_CODECS, ColorTags, EncodeSpec, SegmentWriter, mux, probe
from oasis_core.video.hdr import HdrMetadata

BT2020 = (35400, 14600, 8500, 39850, 6550, 2300, 15635, 16450, 10_000_000, 50)
CASES = [
    HdrMetadata(mastering=BT2020, light_level=(1000, 400)),
    HdrMetadata(mastering=BT2020),
    HdrMetadata(light_level=(600, 0)),
    HdrMetadata(),
]


@pytest.mark.parametrize("codec", HDR_CODECS)
@pytest.mark.parametrize("hdr", CASES)
def test_metadata_survives_encoding_twice(tmp_path, codec, hdr):
    color = ColorTags(primaries=9, transfer=16, matrix=9, range=1)
    spec = EncodeSpec(
        codec=codec, width=96, height=80, frame_rate=Fraction(24), time_base=Fraction(1, 24),
        bit_depth=10, hdr=hdr, color=color, preset="12" if codec == "av1" else "ultrafast",
    )  # fmt: skip
    with SegmentWriter(tmp_path / "s.mkv", spec) as writer:
        writer.write(np.full((80, 96, 3), 30_000, np.uint16), 0, 1)
    mux([tmp_path / "s.mkv"], None, tmp_path / "out.mp4", spec)
    info = probe(tmp_path / "out.mp4")
    assert info.hdr == hdr
    assert info.color == color
    again = EncodeSpec.from_source(info, codec=codec, width=96, height=80)
    assert again.hdr == hdr
    assert EncodeSpec.from_json(again.to_json()) == again
