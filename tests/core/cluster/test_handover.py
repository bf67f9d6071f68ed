"""What a worker made gets its name; no cluster needed."""

import sys

import pytest

from oasis_core.cluster.handover import publish
from oasis_core.cluster.worker import ClusterError, Outcome
from oasis_core.upscale.journal import SegmentRecord
from oasis_core.video import VideoError

RECORD = SegmentRecord(index=0, first_frame=0, num_frames=1, sha256="", tile=(8, 8), shot=0)


def outcome(path, content=None):
    return Outcome(record=RECORD, path=path, content=content, seconds={}, warnings=(), host="there")


def test_a_file_gets_its_name_or_is_missed(tmp_path):
    (tmp_path / "loose.mkv").write_bytes(b"film")
    publish(outcome(tmp_path / "loose.mkv"), tmp_path / "segment.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["segment.mkv"]
    with pytest.raises(ClusterError, match="a worker on there wrote must appear"):
        publish(outcome(tmp_path / "loose.mkv"), tmp_path / "segment.mkv", appear_s=0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_what_came_over_the_network_is_written_whole_or_not_at_all(tmp_path, tmp_path_factory):
    import resource
    import signal

    loose = tmp_path_factory.mktemp("there") / "loose.mkv"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(VideoError, match=r"segment.mkv' could not be written .* free some"):
            publish(outcome(loose, bytes(2000)), tmp_path / "segment.mkv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())
    publish(outcome(loose, b"film"), tmp_path / "segment.mkv")
    assert (tmp_path / "segment.mkv").read_bytes() == b"film"
