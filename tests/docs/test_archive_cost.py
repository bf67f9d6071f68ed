"""The arithmetic of an archive."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
from archive_cost import StageTimes, fleet_plan, main, stage_times

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
    words = ["--hours-of-video", "1000", "--workers", "125", "--frame-rate", "24", "--price", "2"]
    assert main([str(path), *words]) == 0
    out = capsys.readouterr().out
    assert "12.00 worker-hours per hour of video, 12,000 in all, 4.0 days" in out
    assert "$24,000 in all" in out
    assert main([str(tmp_path / "none.json"), *words]) == 1
    assert "cannot be read" in capsys.readouterr().err


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


def test_questions_that_make_no_sense():
    times = StageTimes(width=8, height=8, decode_s=0, upscale_s=1, encode_s=0, mux_s=0)
    for values in ({"num_workers": 0}, {"hours_of_video": -1}, {"efficiency": 1.1}):
        with pytest.raises(ValueError, match="must be"):
            fleet_plan(times, **{"hours_of_video": 1, "num_workers": 1, "frame_rate": 25} | values)
