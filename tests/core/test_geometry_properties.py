import pytest

hypothesis = pytest.importorskip("hypothesis", reason="the extra `test` brings it")

from hypothesis import given, settings  # noqa: E402 - after the skip
from hypothesis import strategies as st  # noqa: E402

from oasis_core import geometry  # noqa: E402

SIDES = st.integers(8, 20_000)
quick = settings(max_examples=150, deadline=None, derandomize=True)


@quick
@given(width=SIDES, height=SIDES, scale=st.floats(0.1, 16))
def test_sizes_follow_the_scale_or_are_refused(width, height, scale):
    try:
        found = geometry.target_size(width, height, scale=scale)
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
