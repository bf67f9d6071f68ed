import threading
import time

import pytest

from oasis_core.upscale import VideoUpscaler, run, upscale_file
from oasis_core.upscale.background import Background
from oasis_core.video import SegmentWriter, VideoError


def test_calls_are_made_in_order_in_another_thread():
    made = []
    with Background(2) as background:
        for index in range(20):
            background.put(lambda index=index: made.append((index, threading.get_ident())))
        background.join()
        assert [index for index, _ in made] == list(range(20))
    assert {ident for _, ident in made} != {threading.get_ident()}


def test_an_error_comes_back_and_what_waits_behind_it_is_dropped():
    made = []

    def fail():
        raise OSError("disk full")

    def give():
        with Background(8) as background:
            background.put(fail)
            for _ in range(20):
                background.put(lambda: made.append(1))

    with pytest.raises(OSError, match="disk full"):
        give()
    assert made == []


def test_leaving_by_an_error_drops_what_waits_and_ends_the_thread():
    gate, made, num_threads = threading.Event(), [], threading.active_count()

    def give():
        with Background(8) as background:
            background.put(lambda: gate.wait(5))
            background.put(lambda: made.append(1))
            threading.Timer(0.1, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give()
    time.sleep(0.2)  # the timer has a thread, too
    assert threading.active_count() == num_threads
    assert made == []


@pytest.fixture
def beside(monkeypatch):
    """Encode beside the model on a CPU too, which only needs it to be tried."""
    monkeypatch.setattr(run, "ENCODES_BESIDE", ("cpu",))


@pytest.fixture
def upscaler(conv_model):
    return VideoUpscaler(conv_model, device="cpu", dtype="float32")


OPTIONS = {"scale": 2.0, "segment_frames": 3, "shots": False}


def test_the_file_is_the_same(tmp_path, write_video, upscaler, monkeypatch):
    source, files = write_video(lengths=(10,)), []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(run, "ENCODES_BESIDE", devices)
        out = tmp_path / f"{len(devices)}.mp4"
        report = upscale_file(source, out, upscaler=upscaler, **OPTIONS)
        files.append(out.read_bytes())
        assert report.num_segments == 4
        assert report.seconds["encode"] > 0
    assert files[0] == files[1]


def test_interrupted_it_goes_on_to_the_same_file(tmp_path, write_video, upscaler, beside):
    source, whole, out = write_video(lengths=(10,)), tmp_path / "whole.mp4", tmp_path / "out.mp4"
    upscale_file(source, whole, upscaler=upscaler, **OPTIONS)

    def stop(done, total):
        if done > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_file(source, out, upscaler=upscaler, on_progress=stop, **OPTIONS)
    assert not list(tmp_path.rglob("*.part"))
    report = upscale_file(source, out, upscaler=upscaler, **OPTIONS)
    assert report.num_resumed_segments < 4
    assert out.read_bytes() == whole.read_bytes()


def test_an_encoder_that_fails_ends_the_run_with_its_sentence(
    tmp_path, write_video, upscaler, beside, monkeypatch
):
    source, out, write = write_video(lengths=(10,)), tmp_path / "out.mp4", SegmentWriter.write

    def full(self, pixels, pts, *rest):
        if pts > 1 and self.num_frames == 2:
            raise VideoError("cannot write: no space left")
        return write(self, pixels, pts, *rest)

    monkeypatch.setattr(SegmentWriter, "write", full)
    with pytest.raises(VideoError, match="no space left"):
        upscale_file(source, out, upscaler=upscaler, **OPTIONS)
    assert not out.exists()
    assert not list(tmp_path.rglob("*.part"))
    monkeypatch.setattr(SegmentWriter, "write", write)
    upscale_file(source, out, upscaler=upscaler, **OPTIONS)
    assert out.exists()
