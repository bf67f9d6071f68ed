import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oasis_core.digests import file_sha256
from oasis_core.upscale import JournalError, VideoUpscaler, journal_path, upscale_file
from oasis_core.upscale.journal import Journal, SegmentRecord
from oasis_core.upscale.lock import FileLock
from oasis_core.video import VideoError

SCRIPT = Path(__file__).with_name("upscale_in_process.py")
OPTIONS = {"scale": 2, "segment_frames": 3, "codec": "ffv1"}


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, device="cpu", dtype="float32")


class StopError(Exception):
    pass


def stop_after(num_frames):
    def on_progress(done, total):
        if done > num_frames:
            raise StopError

    return on_progress


def interrupt(source, destination, upscaler, num_frames, **options):
    with pytest.raises(StopError):
        upscale_file(
            source,
            destination,
            upscaler=upscaler,
            on_progress=stop_after(num_frames),
            **{**OPTIONS, **options},
        )
    assert not destination.exists()


def launch(source, destination, **options):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(source), str(destination), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def test_a_stopped_run_goes_on_and_gives_the_same_frames(
    write_video, read_video, upscaler, tmp_path
):
    source = write_video(lengths=(10, 9))
    upscale_file(source, tmp_path / "whole.mkv", upscaler=upscaler, **OPTIONS)
    destination = tmp_path / "o.mkv"
    interrupt(source, destination, upscaler, 4)
    interrupt(source, destination, upscaler, 13)
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert 3 <= report.num_resumed_segments < report.num_segments
    assert (read_video(destination)[0] == read_video(tmp_path / "whole.mkv")[0]).all()
    assert destination.read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert not journal_path(destination).exists()


def num_records(destination):
    path = journal_path(destination) / "segments.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_records(destination, number):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if num_records(destination) >= number:
            return
        time.sleep(0.002)
    raise AssertionError(f"no {number} segments after five minutes")


@pytest.mark.slow
def test_kill_at_random_moments(write_video, read_video, tmp_path):
    source = write_video(lengths=(15, 15))
    # The reference comes from a process of the same kind, so with the same number of threads.
    assert launch(source, tmp_path / "whole.mkv", **OPTIONS).wait(300) == 0
    destination = tmp_path / "o.mkv"
    stream, resumed = random.Random(0), 0
    for number in (1, 5):
        # It hangs two segments later, so that it is killed before its end however slow this is.
        stall_after = number - resumed + 2
        process = launch(source, destination, delay_s=0.05, stall_after=stall_after, **OPTIONS)
        wait_for_records(destination, number)
        time.sleep(stream.uniform(0, 0.07))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not destination.exists()
        resumed = num_records(destination)
    process = launch(source, destination, **OPTIONS)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    report = json.loads(out)
    assert report["frames"] == 30
    assert report["num_resumed_segments"] >= 5
    assert (read_video(destination)[0] == read_video(tmp_path / "whole.mkv")[0]).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "o.mkv", "whole.mkv"]


@pytest.mark.slow
def test_kill_at_twenty_random_moments(write_video, read_video, tmp_path):
    """Anywhere: while it starts, computes, encodes, joins; often enough to meet each of them."""
    source = write_video(lengths=(25, 25))
    process = launch(source, tmp_path / "whole.mkv", **OPTIONS)
    # From here, as below: a random moment of the start would mostly fall behind the end.
    begun = time.monotonic()
    assert process.wait(300) == 0
    length_s = time.monotonic() - begun
    whole = read_video(tmp_path / "whole.mkv")
    stream, destination, num_kills = random.Random(1), tmp_path / "o.mkv", 0
    while num_kills < 20:
        process = launch(source, destination, overwrite=True, fresh=num_kills % 5 == 0, **OPTIONS)
        try:
            process.wait(stream.uniform(0, length_s))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            num_kills += 1
        process.communicate()
        if process.returncode == 0:
            assert (read_video(destination)[0] == whole[0]).all()
            destination.unlink()
        else:
            assert not destination.exists() or destination.read_bytes()[:4] == b"\x1a\x45\xdf\xa3"
    process = launch(source, destination, overwrite=True, **OPTIONS)
    process.communicate(timeout=300)
    assert process.returncode == 0
    frames, times = read_video(destination)
    assert times == whole[1]
    assert (frames == whole[0]).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "o.mkv", "whole.mkv"]


def test_a_journal_folder_that_cannot_be_made(write_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(3,)), tmp_path / "o.mkv"
    journal_path(destination).write_text("a file of the user")
    with pytest.raises(VideoError, match=r"o.mkv.oasis' could not be written"):
        upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert journal_path(destination).read_text() == "a file of the user"
    assert not destination.exists()


def test_ctrl_c_leaves_a_run_that_goes_on(write_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(30,)), tmp_path / "o.mkv"
    process = launch(source, destination, signal_after=1, **OPTIONS)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert not destination.exists()
    # The model's class differs from the process's, its weights and configuration do not.
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert report.num_resumed_segments >= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strength": 0.5}, "setting strength was 1.0 and is 0.5"),
        ({"scale": 3}, "setting width was 64 and is 96"),
        ({"segment_frames": 4}, "setting segment_frames was 3 and is 4"),
        ({"codec": "h264"}, "encoding codec was 'ffv1' and is 'h264'"),
        ({"shots": False}, "setting shots was True and is False"),
    ],
)
def test_changed_settings_are_refused_and_named(write_video, upscaler, tmp_path, options, text):
    source, destination = write_video(lengths=(9,)), tmp_path / "o.mkv"
    interrupt(source, destination, upscaler, 4)
    before = sorted(p.name for p in journal_path(destination).iterdir())
    with pytest.raises(JournalError, match=f"{text}.*--fresh"):
        upscale_file(source, destination, upscaler=upscaler, **{**OPTIONS, **options})
    assert sorted(p.name for p in journal_path(destination).iterdir()) == before
    report = upscale_file(
        source, destination, upscaler=upscaler, fresh=True, **{**OPTIONS, **options}
    )
    assert report.num_resumed_segments == 0


def test_changed_source_model_or_version_is_refused(
    write_video, upscaler, point_model, tmp_path, monkeypatch
):
    source, destination = write_video(lengths=(9,)), tmp_path / "o.mkv"
    interrupt(source, destination, upscaler, 4)
    other = VideoUpscaler(point_model, device="cpu", dtype="float32")
    with pytest.raises(JournalError, match="model name was 'tiny-conv' and is 'tiny-point'"):
        upscale_file(source, destination, upscaler=other, **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("oasis_core.upscale.job.__version__", "99.0")
        with pytest.raises(JournalError, match=r"version oasis was '.*' and is '99.0'"):
            upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    write_video(lengths=(8,))
    with pytest.raises(JournalError, match="source file has changed"):
        upscale_file(source, destination, upscaler=upscaler, **OPTIONS)


def test_a_damaged_segment_is_done_again(write_video, read_video, upscaler, tmp_path, caplog):
    source, destination = write_video(lengths=(15,)), tmp_path / "o.mkv"
    upscale_file(source, tmp_path / "whole.mkv", upscaler=upscaler, **OPTIONS)
    interrupt(source, destination, upscaler, 10)
    damaged = journal_path(destination) / "segment_000001.mkv"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert "segment 1 (frames 3 to 5) is missing or damaged and is done again" in caplog.text
    assert report.num_resumed_segments == 2
    assert (read_video(destination)[0] == read_video(tmp_path / "whole.mkv")[0]).all()


def test_a_line_cut_short_by_a_crash_is_ignored(write_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(15,)), tmp_path / "o.mkv"
    interrupt(source, destination, upscaler, 10)
    records = journal_path(destination) / "segments.jsonl"
    records.write_bytes(records.read_bytes()[:-30])
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert (report.frames, report.num_resumed_segments) == (15, 2)


def test_a_crash_between_the_last_two_steps_is_no_failure(
    write_video, upscaler, tmp_path, monkeypatch
):
    """The result has its name but the journal is still there: the same command just cleans up."""
    source, destination = write_video(lengths=(6,)), tmp_path / "o.mkv"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "remove", lambda self: (_ for _ in ()).throw(StopError))
        with pytest.raises(StopError):
            upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    content = destination.read_bytes()
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert (report.frames, report.num_resumed_segments) == (6, 2)
    assert destination.read_bytes() == content
    assert not journal_path(destination).exists()
    with pytest.raises(VideoError, match="exists already"):
        upscale_file(source, destination, upscaler=upscaler, **OPTIONS)


@pytest.mark.slow
def test_a_second_process_on_the_same_output_is_refused(write_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(6,)), tmp_path / "o.mkv"
    folder = journal_path(destination)
    folder.mkdir()
    with FileLock(folder / "lock"):
        process = launch(source, destination, **OPTIONS)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"another process already writes this output (pid {os.getpid()} on " in out
    # A lock that nobody holds any more is no obstacle.
    assert upscale_file(source, destination, upscaler=upscaler, **OPTIONS).frames == 6


@pytest.mark.slow
def test_a_full_disk_keeps_the_journal(write_video, read_video, upscaler, tmp_path):
    """A limit on the size of a file stands for the full disk."""
    source, destination = write_video(lengths=(6, 6), height=64, width=64), tmp_path / "o.mkv"
    options = {**OPTIONS, "scale": 4}
    upscale_file(source, tmp_path / "whole.mkv", upscaler=upscaler, **options)
    interrupt(source, destination, upscaler, 4, scale=4)
    size = (journal_path(destination) / "segment_000000.mkv").stat().st_size
    process = launch(source, destination, file_limit_bytes=size // 2, **options)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "could not be written" in out
    assert "free some space" in out
    assert not destination.exists()
    assert list(journal_path(destination).glob("*.part")) == []
    report = upscale_file(source, destination, upscaler=upscaler, **options)
    assert report.num_resumed_segments >= 1
    assert (read_video(destination)[0] == read_video(tmp_path / "whole.mkv")[0]).all()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_leaves_no_part_of_a_line(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    values = {"num_frames": 3, "sha256": "0" * 64, "tile": (64, 48), "shot": 0}
    records = [SegmentRecord(index=i, first_frame=3 * i, **values) for i in range(3)]
    with Journal(tmp_path / "o.mkv.oasis", {"setting": {"a": 1}}) as journal:
        journal.start({"tile_px": 64})
        journal.record(records[0])
        lines = journal.folder / "segments.jsonl"
        whole = lines.read_bytes()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, limits[1]))
            with pytest.raises(VideoError, match="free some space"):
                journal.record(records[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert lines.read_bytes() == whole
        journal.record(records[2])
        assert Journal.read_records(journal.folder) == [records[0], records[2]]


def test_files_of_others_in_the_folder_stay(write_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(4,)), tmp_path / "o.mkv"
    folder = journal_path(destination)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    upscale_file(source, destination, upscaler=upscaler, fresh=True, **OPTIONS)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_a_journal_of_another_format_is_refused(tmp_path):
    folder = tmp_path / "o.mkv.oasis"
    with Journal(folder, {"setting": {"a": 1}}) as journal:
        journal.start({"tile_px": 64})
        path = journal.segment_path(0)
        path.write_bytes(b"segment")
        journal.record(
            SegmentRecord(
                index=0,
                first_frame=0,
                num_frames=3,
                sha256=file_sha256(path),
                tile=(64, 48),
                shot=0,
            )
        )
    with Journal(folder, {"setting": {"a": 1}}) as journal:
        assert [record.num_frames for record in journal.records] == [3]
        assert journal.records[0].tile == (64, 48)
        assert journal.plan == {"tile_px": 64}
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"number": 1', '"number": 2'))
    with pytest.raises(JournalError, match="its format is"):
        Journal(folder, {"setting": {"a": 1}})
    manifest.write_text("{")
    with pytest.raises(JournalError, match=r"cannot be read .*--fresh"):
        Journal(folder, {"setting": {"a": 1}})
    with Journal(folder, {"setting": {"a": 1}}, is_fresh=True) as journal:
        assert journal.records == []


def test_a_kill_while_the_journal_is_removed_costs_nothing(
    write_video, upscaler, tmp_path, monkeypatch
):
    source, destination = write_video(), tmp_path / "o.mkv"

    def die(self):
        for path in self.folder.glob("segment_*"):
            path.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            upscale_file(source, destination, upscaler=upscaler, scale=2, segment_frames=3)
    before = destination.read_bytes()
    report = upscale_file(source, destination, upscaler=upscaler, scale=2, segment_frames=3)
    assert report.num_resumed_segments == report.num_segments == 3
    assert destination.read_bytes() == before
    assert not journal_path(destination).exists()


def test_one_flipped_digit_in_the_journal_is_noticed(write_video, upscaler, tmp_path):
    source, destination = write_video(lengths=(10,)), tmp_path / "o.mkv"
    interrupt(source, destination, upscaler, 8)
    records = journal_path(destination) / "segments.jsonl"
    first = records.read_text().splitlines()[0]
    records.write_text(first.replace('"shot": 0', '"shot": 1') + "\n")
    report = upscale_file(source, destination, upscaler=upscaler, **OPTIONS)
    assert report.num_resumed_segments == 0
    interrupt(source, destination.with_name("p.mkv"), upscaler, 8)
    manifest = journal_path(tmp_path / "p.mkv") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"overlap_px": 32', '"overlap_px": 36'))
    with pytest.raises(VideoError, match=r"cannot be read \(its checksum is wrong\); start over"):
        upscale_file(source, tmp_path / "p.mkv", upscaler=upscaler, **OPTIONS)


def test_a_journal_fits_beside_the_longest_name(tmp_path):
    names = ["a" * 251 + ".mp4", "a" * 250 + "b.mp4", "\N{CLAPPER BOARD}" * 62 + ".mp4"]
    folders = [journal_path(tmp_path / name) for name in names]
    assert len(set(folders)) == 3
    for folder in folders:
        folder.mkdir()
        assert folder.name.endswith(".oasis")
