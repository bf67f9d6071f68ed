"""Every file that cannot be used is refused in one sentence, and is left as it was."""

from __future__ import annotations

import os
import re
import struct

import pytest

from oasis_core.video import VideoError, VideoReader, probe


def refused(path, match):
    """Assert the sentence, and that it is one."""
    with pytest.raises(VideoError, match=match) as caught:
        probe(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert not text.endswith(".")
    return text


def test_missing_file(tmp_path):
    refused(tmp_path / "no.mp4", "does not exist")


def test_folder(tmp_path):
    refused(tmp_path, "the folder .* holds no picture")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    refused(path, "is empty")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user without all rights")
def test_unreadable_file(make_clip):
    path = make_clip()
    path.chmod(0)
    refused(path, "cannot be read")


@pytest.mark.parametrize(("name", "match"), [("t.mp4", "not a video"), ("t.txt", "text file")])
def test_text(tmp_path, name, match):
    path = tmp_path / name
    path.write_text("This is a text and not a film.\n" * 40)
    refused(path, match)


def test_playlist_cannot_reach_the_network(tmp_path):
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    refused(path, "not a video")


def test_sound_only(tmp_path, clips):
    refused(clips.write_sound(tmp_path / "sound.mp4"), "no video stream .found: audio")


def test_no_frames(tmp_path):
    path = tmp_path / "none.y4m"
    path.write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420\n")
    refused(path, "without a single readable frame")


@pytest.mark.parametrize(
    ("size", "match"),
    [((20000, 8000), "declares 20000x8000 pixels, but at most 16384"), ((30000, 30000), "larger")],
)
def test_huge_size_is_refused_before_it_is_allocated(make_clip, size, match):
    path = make_clip("huge.mkv", codec="ffv1", size=(320, 260), pts=1)
    data = path.read_bytes()
    for name, old, new in ((b"\xb0\x82", 320, size[0]), (b"\xba\x82", 260, size[1])):
        assert data.count(name + struct.pack(">H", old)) == 1
        data = data.replace(name + struct.pack(">H", old), name + struct.pack(">H", new))
    path.write_bytes(data)
    refused(path, match)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi"])
def test_truncated_file_is_refused_at_once(make_clip, name):
    options = {"codec": "mpeg4"} if name.endswith("avi") else {}
    path = make_clip(name, pts=30, container_options={"movflags": "+faststart"}, **options)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size * 2 // 3])
    text = refused(path, "truncated")
    assert f"{size:,}" in text


def test_truncated_file_can_be_read_on_request(make_clip, caplog):
    path = make_clip(pts=30, container_options={"movflags": "+faststart"}, options={"g": "5"})
    path.write_bytes(path.read_bytes()[:-2000])
    with VideoReader(path, allow_truncated=True) as reader:
        num_frames = sum(1 for _ in reader)
    assert 5 < num_frames < 30
    assert "truncated" in caplog.text


def test_recording_without_its_index(make_clip):
    path = make_clip(pts=30)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    refused(path, "incomplete MP4 or MOV.*moov")


def test_index_that_lists_more_frames_than_there_are(make_clip, clips):
    # Cut between two frames, with the box sizes made to agree: only counting can tell.
    path = make_clip(pts=9, container_options={"movflags": "+faststart"})
    cut = clips.packets_of(path, 0)[5].pos
    data = bytearray(path.read_bytes()[:cut])
    box = data.index(b"mdat") - 4
    data[box : box + 4] = struct.pack(">I", cut - box)
    path.write_bytes(data)
    with VideoReader(path) as reader, pytest.raises(VideoError, match="lists 9 frames but only 5"):
        list(reader)


def test_one_sentence_never_shows_a_python_name(tmp_path):
    path = tmp_path / "t.mkv"
    path.write_bytes(b"\x1a\x45\xdf\xa3" + b"\x81" * 64)
    text = refused(path, "not a video")
    assert not re.search(r"av\.|Error|Errno", text)
