from dataclasses import replace

import pytest
import torch

hypothesis = pytest.importorskip("hypothesis", reason="the extra `test` brings it")

from hypothesis import given, settings  # noqa: E402 - after the skip
from hypothesis import strategies as st  # noqa: E402

from oasis_core import geometry, sizes  # noqa: E402
from oasis_core.config import OASIS_TINY  # noqa: E402
from oasis_core.model.denoiser import OasisModel  # noqa: E402
from oasis_core.upscale import VideoUpscaler  # noqa: E402
from oasis_core.upscale.tiles import axis_weights  # noqa: E402

SIDES = st.integers(8, 20_000)
quick = settings(max_examples=150, deadline=None, derandomize=True)


@quick
@given(width=SIDES, height=SIDES, scale=st.floats(0.1, 16))
def test_sizes_follow_the_scale_or_are_refused(width, height, scale):
    try:
        found = sizes.target_size(width, height, scale=scale)
    except ValueError:
        return  # too small or too large, which tests beside this one cover
    for side, source in zip(found, (width, height), strict=True):
        assert side >= 1
        assert abs(side - source * scale) <= 1


@quick
@given(length=st.integers(1, 600), more=st.integers(0, 900))
def test_padding_points_into_the_picture(length, more):
    indices = geometry.padding_indices(length, length + more)
    assert len(indices) == more
    assert all(0 <= index < length for index in indices)


@quick
@given(num_frames=st.integers(1, 10_000), stride=st.sampled_from((1, 2, 4, 8)))
def test_valid_numbers_of_frames_are_the_next(num_frames, stride):
    valid = geometry.next_valid_num_frames(num_frames, stride)
    assert num_frames <= valid < num_frames + stride
    assert geometry.is_valid_num_frames(valid, stride)


@quick
@given(num_frames=st.integers(1, 500), segment=st.integers(1, 60), halo=st.integers(0, 8))
def test_segments_cover_every_frame_once(num_frames, segment, halo):
    segments = geometry.plan_segments(num_frames, segment, halo)
    kept = [n for s in segments for n in range(s.start, s.stop)]
    assert kept == list(range(num_frames))
    for piece in segments:
        assert 0 <= piece.read_start <= piece.start < piece.stop <= piece.read_stop <= num_frames
        assert piece.start - piece.read_start <= halo
        assert piece.read_stop - piece.stop <= halo


@quick
@given(
    cells=st.integers(1, 300),
    tile_cells=st.integers(2, 80),
    overlap_cells=st.integers(0, 8),
    stride=st.sampled_from((8, 16)),
)
def test_tiles_cover_the_axis_and_lie_on_tokens(cells, tile_cells, overlap_cells, stride):
    length, tile, overlap = cells * stride, tile_cells * stride, overlap_cells * stride
    axis = geometry.plan_tile_axis(length, tile, overlap, stride)
    covered = set()
    for start in axis.starts:
        assert start % stride == 0
        assert 0 <= start <= length - axis.tile
        covered.update(range(start // stride, (start + axis.tile) // stride))
    assert covered == set(range(cells))


@quick
@given(
    cells=st.integers(1, 60),
    tile_cells=st.integers(2, 20),
    overlap_cells=st.integers(0, 6),
)
def test_weights_of_tiles_sum_to_one_up_to_the_edge(cells, tile_cells, overlap_cells):
    axis = geometry.plan_tile_axis(cells * 8, tile_cells * 8, overlap_cells * 8, 8)
    total = torch.zeros(cells * 8)
    for start, weights in zip(axis.starts, axis_weights(axis), strict=True):
        assert weights.min() >= 0
        total[start : start + axis.tile] += weights
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.fixture(scope="module")
def changes_nothing():
    config = replace(OASIS_TINY, name="nothing", width=12, num_layers=1, ffn_width=8)
    config = replace(config, stem_channels=8, out_channels=8)
    model = OasisModel(replace(config, num_stem_blocks=1, num_decoder_blocks=1))
    for parameter in model.parameters():
        parameter.data.zero_()
    return VideoUpscaler(model, device="cpu", dtype="float32")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    num_frames=st.integers(1, 9),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    scale=st.sampled_from((1.0, 1.37, 2.0, 3.0)),
    tile_px=st.sampled_from((None, 32, 48, 64)),
    segment_frames=st.integers(1, 6),
    halo_frames=st.integers(0, 3),
)
def test_cutting_up_and_joining_gives_the_whole(
    changes_nothing, num_frames, height, width, scale, tile_px, segment_frames, halo_frames
):
    video = torch.rand(1, 3, num_frames, height, width, generator=torch.Generator().manual_seed(0))
    cut = {"tile_px": tile_px, "segment_frames": segment_frames, "halo_frames": halo_frames}
    found = changes_nothing.upscale(video, scale=scale, shots=False, **cut)
    out_width, out_height = sizes.target_size(width, height, scale=scale)
    assert found.shape == (1, 3, num_frames, out_height, out_width)
    plain = changes_nothing.upscale(video, scale=scale, shots=False, strength=0.0)
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-5)
