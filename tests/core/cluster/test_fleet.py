"""The arithmetic of an archive, and the simulation held against what can be said beforehand."""

import hashlib
import json
import tracemalloc
from dataclasses import replace

import pytest

from oasis_core.cli import main
from oasis_core.cluster.fleet import StageTimes, fleet_plan, stage_times
from oasis_core.cluster.simulate import Fleet, simulate
from oasis_core.upscale.journal import Journal, SegmentRecord

REPORT = {
    "frames": 100,
    "width": 1280,
    "height": 720,
    "num_resumed_segments": 0,
    "device": "cpu",
    "dtype": "float32",
    "model": "small",
    "seconds": {
        "decode": 1, "shots": 1, "resize": 2, "model": 36, "blend": 2, "encode": 8, "mux": 1,
    },
}  # fmt: skip


def test_hours_and_dollars_follow_from_the_report(tmp_path, capsys):
    times = stage_times(REPORT)
    assert times.worker_s == pytest.approx(0.5)
    plan = fleet_plan(
        times, hours_of_video=1000, num_workers=125, frame_rate=24, dollars_per_hour=2
    )
    small, _, large = plan["rows"]
    assert small["worker_hours_per_hour"] == pytest.approx(12)
    assert small["days"] == pytest.approx(12 * 1000 / 125 / 24)
    assert small["dollars"] == pytest.approx(24_000)
    assert large["worker_hours"] == pytest.approx(9 * small["worker_hours"])
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    words = ["bench", "--plan", "--hours-of-video", "1000", "--workers", "125", "--frame-rate"]
    words += ["24", "--price", "2", "--report", str(path)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fleet"]["rows"] == plan["rows"]
    assert main(words) == 0
    assert "12.00 worker-hours per hour of video" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_resumed_segments": 3}, "3 segments were done before"),
        ({"frames": 0}, "must be one object"),
        ({"seconds": {}}, "must be one object"),
        ({"seconds": dict.fromkeys(REPORT["seconds"], 0)}, "must take some time"),
        ({"seconds": REPORT["seconds"] | {"mux": float("nan")}}, "mux_s must be 0 or more"),
    ],
)
def test_reports_that_cannot_be_used(change, message):
    with pytest.raises(ValueError, match=message):
        stage_times(REPORT | change)


def test_questions_that_make_no_sense(tmp_path, capsys):
    assert main(["bench", "--plan", "--hours-of-video", "10"]) == 1
    assert "needs --plan and --report" in capsys.readouterr().err
    times = StageTimes(width=8, height=8, decode_s=0, upscale_s=1, encode_s=0, mux_s=0)
    for values in ({"num_workers": 0}, {"hours_of_video": -1}, {"efficiency": 1.1}):
        with pytest.raises(ValueError, match="must be"):
            fleet_plan(times, **{"hours_of_video": 1, "num_workers": 1, "frame_rate": 25} | values)


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
