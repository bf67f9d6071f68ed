"""Spans read by anyone are the frames that the plain run sees; no cluster needed."""

from dataclasses import replace

import numpy as np
import pytest

from oasis_core.cluster import spans
from oasis_core.cluster.spans import ScanEnd, read_span, scan
from oasis_core.cluster.worker import (
    ClusterError,
    Ticket,
    check_source,
    check_versions,
    manifest_sha256,
    sees_folder,
    versions_here,
)
from oasis_core.digests import file_fingerprint
from oasis_core.upscale import UpscaleOptions
from oasis_core.upscale.assemble import SegmentAssembler
from oasis_core.upscale.job import Job
from oasis_core.upscale.plan import Plan
from oasis_core.upscale.segment import Look, StageClock
from oasis_core.video import EncodeSpec, Source, TimeWindow, VideoError, VideoFrame, probe


def job_of(source, window=None):
    info = probe(source)
    return Job(
        source=Source.resolve(source),
        destination=source.with_suffix(".out.mkv"),
        info=info,
        look=Look(width=info.width, height=info.height),
        spec=EncodeSpec.from_source(info, codec="h264", width=info.width, height=info.height),
        upscaler=None,
        options=UpscaleOptions(),
        clock=StageClock({}),
        window=window,
        frame_rate=None,
        num_frames=info.num_frames,
    )


PLAN = Plan(
    tile=(64, 64),
    overlap_px=0,
    segment_frames=7,
    halo_frames=2,
    dtype="float32",
    num_tiles=1,
    estimated_bytes=0,
    free_bytes=0,
)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
@pytest.mark.parametrize(
    "window", [None, TimeWindow(start_s=0.5, duration_s=1.7, context_frames=2)]
)
def test_a_span_holds_the_frames_of_the_plain_run(tmp_path, make_film, name, window):
    job = job_of(make_film(tmp_path / name), window)
    assembler = SegmentAssembler(PLAN.segment_frames, PLAN.halo_frames, has_shots=True)
    with job.open() as reader:
        expected = list(assembler.segments(iter(reader)))
    *spans, end = scan(job, PLAN)
    assert isinstance(end, ScanEnd)
    assert len(spans) == len(expected) > 5
    for span, plain in list(zip(spans, expected, strict=True))[::-1]:
        segment = read_span(job, span)
        assert (segment.index, segment.shot, segment.first_frame, segment.keep) == (
            plain.index,
            plain.shot,
            plain.first_frame,
            plain.keep,
        )
        for frame, other in zip(segment.frames, plain.frames, strict=True):
            assert (frame.pts, frame.duration) == (other.pts, other.duration)
            assert np.array_equal(frame.pixels, other.pixels)


@pytest.mark.parametrize(
    "window", [None, TimeWindow(start_s=0.5, duration_s=1.7, context_frames=5)]
)
def test_spans_of_a_model_with_a_state_name_the_first_frame_of_their_shot(
    tmp_path, make_film, window
):
    job = job_of(make_film(tmp_path / "film.mp4"), window)
    plan = replace(PLAN, lead_frames=5, segment_multiple=4, segment_frames=4)
    assembler = SegmentAssembler.of(plan, has_shots=True)
    with job.open() as reader:
        expected = list(assembler.segments(iter(reader)))
    *spans, _ = scan(job, plan)
    assert len({segment.shot for segment in expected}) > 1
    assert any(segment.opening is not segment.frames[0] for segment in expected)
    for span, plain in zip(spans, expected, strict=True):
        segment = read_span(job, span)
        assert segment.opening.pts == plain.opening.pts
        assert np.array_equal(segment.opening.pixels, plain.opening.pixels)
        assert (span.opening is None) == (plain.opening.pts == plain.frames[0].pts)


def test_where_seeking_gives_other_frames_the_film_is_read_from_the_beginning(tmp_path, make_film):
    job = job_of(make_film(tmp_path / "film.mkv"))
    spans = list(scan(job, PLAN))[:-1]
    span = replace(spans[4], start_s=spans[3].start_s)  # as if the index pointed elsewhere
    frames = read_span(job, span).frames
    assert [frame.pts for frame in frames] == [mark[0] for mark in spans[4].marks]


def test_a_film_that_changed_meanwhile_is_refused(tmp_path, make_film):
    job = job_of(make_film(tmp_path / "film.mkv"))
    span = list(scan(job, PLAN))[2]
    make_film(tmp_path / "film.mkv", seed=1)
    with pytest.raises(VideoError, match="must read the same on every worker"):
        read_span(job, span)


def test_other_versions_are_refused():
    check_versions(versions_here())
    with pytest.raises(ClusterError, match=r"has torch .* \(driver: 1\.0\)"):
        check_versions(versions_here() | {"torch": "1.0"})


def test_a_folder_that_is_not_the_drivers_is_told_apart(tmp_path):
    folder = tmp_path / "out.mkv.oasis"
    folder.mkdir()
    ticket = Ticket(
        film="f", job=None, plan=PLAN, folder=folder, source={}, manifest_sha256="0" * 64
    )
    assert not sees_folder(ticket)
    (folder / "manifest.json").write_text("{}")  # a folder of that name, but another machine's
    assert not sees_folder(ticket)
    assert sees_folder(replace(ticket, manifest_sha256=manifest_sha256(folder)))


def test_a_source_that_is_not_the_drivers_is_refused(tmp_path, make_film):
    job = job_of(make_film(tmp_path / "film.mkv"))
    ticket = Ticket(
        film="f",
        job=job,
        plan=PLAN,
        folder=tmp_path,
        source=file_fingerprint(job.source.path),
        manifest_sha256="",
    )
    check_source(ticket)
    make_film(tmp_path / "film.mkv", seed=1)
    with pytest.raises(ClusterError, match="is another file on"):
        check_source(ticket)
    job.source.path.unlink()
    with pytest.raises(ClusterError, match=r"cannot be read on .* or name their URL"):
        check_source(ticket)


def test_what_lies_beyond_the_pixels_is_marked_too():
    """An OpenEXR picture that differs outside [0, 1] only is another picture."""
    pixels = np.zeros((4, 6, 3), np.uint16)
    marks = {
        spans._mark(VideoFrame(pixels=pixels, pts=0, duration=1, excess=excess))
        for excess in (None, np.zeros((4, 6, 3), np.float32), np.full((4, 6, 3), 2.5, np.float32))
    }
    assert len(marks) == 3
