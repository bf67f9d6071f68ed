"""The simulation held against what can be said beforehand."""

import hashlib
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from oasis_core.upscale.journal import Journal, SegmentRecord

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
from scale_simulation import Fleet, simulate

IDEAL = Fleet(
    num_workers=1,
    num_films=4,
    segments_per_film=25,
    segment_s=10.0,
    segment_bytes=0,
    scan_s=0.0,
    driver_s=0.0,
    speed_spread=0.0,
    straggler_share=0.0,
    worker_mtbf_s=1e12,
)


def test_without_disturbances_time_is_work_over_workers():
    for num_workers, seconds in ((1, 1000), (10, 100), (100, 10)):
        outcome = simulate(replace(IDEAL, num_workers=num_workers))
        assert outcome.seconds == pytest.approx(seconds)
        assert outcome.efficiency == pytest.approx(1)


def test_each_limit_is_the_one_that_arithmetic_says():
    many = replace(IDEAL, num_workers=100, num_films=100)  # 2500 segments, 25 rounds
    assert simulate(replace(many, driver_s=1.0)).seconds == pytest.approx(2500, rel=0.02)
    slow_disk = replace(many, segment_bytes=10**9, storage_bytes_per_s=1e9, driver_bytes_per_s=1e15)
    assert simulate(slow_disk).seconds == pytest.approx(2500, rel=0.02)
    one_scan = replace(
        many, open_films=1, scan_s=1.0
    )  # scanned in 25 s, the last segment takes 10 more
    assert simulate(one_scan).seconds == pytest.approx(100 * 35, rel=0.01)
    join = replace(many, join_bytes=10**9, driver_bytes_per_s=1e9)
    assert simulate(join).seconds == pytest.approx(2500, rel=0.1)


def test_deaths_cost_what_was_in_work_and_nothing_is_lost():
    fleet = replace(IDEAL, num_workers=20, num_films=40, worker_mtbf_s=300.0, restart_s=30.0)
    outcome = simulate(fleet)
    assert outcome.num_deaths > 10
    assert 0.75 < outcome.efficiency < 0.95  # 10 % away, and half a segment lost with each
    assert simulate(fleet) == outcome
    assert simulate(replace(fleet, seed=1)) != outcome


def test_what_the_driver_knows_does_not_grow_with_the_archive():
    small = simulate(replace(IDEAL, num_workers=10, num_films=10))
    large = simulate(replace(IDEAL, num_workers=10, num_films=4000))  # 100,000 segments
    one_film = simulate(replace(IDEAL, num_workers=10, num_films=1, segments_per_film=100_000))
    assert small.most_known == large.most_known == one_film.most_known == 20


def test_the_journal_of_a_film_holds_little_for_each_segment(tmp_path):
    """What does grow with one film, though not with an archive: a record for each segment."""
    num_records = 1500
    with Journal(tmp_path / "film.mkv.oasis", {"source": {"size": 1}}) as journal:
        journal.start({})
        tracemalloc.start()
        for index in range(num_records):
            digest = hashlib.sha256(str(index).encode()).hexdigest()
            journal.record(
                SegmentRecord(
                    index=index,
                    first_frame=48 * index,
                    num_frames=48,
                    sha256=digest,
                    tile=(index, index),
                    shot=index,
                )
            )
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        journal.remove()
    assert grown / num_records < 500
