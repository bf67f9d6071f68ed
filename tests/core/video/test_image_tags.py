"""Colour profiles and camera data of damaged and hostile pictures."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import pytest

from oasis_core.video.image_tags import read_image_tags

EXIF = b"II*\x00" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 6) + bytes(4)


def webp(exif):
    body = b"WEBPEXIF" + struct.pack("<I", len(exif)) + exif + b"\x00" * (len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(exif):
    content = b"Exif\x00\x00" + exif
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(content) + 2) + content + b"\xff\xda"


def png(name, content):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", len(content), name) + content + bytes(4)


WRAPPED = {"webp": webp, "jpg": jpeg, "png": lambda exif: png(b"eXIf", exif), "tif": bytes}


@pytest.mark.parametrize("kind", WRAPPED)
def test_camera_data_may_end_anywhere(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(WRAPPED[kind](EXIF))
    assert read_image_tags(path).orientation.rotation_deg == 90
    for length in range(len(EXIF) - 4):  # without the directory's end it is whole
        path.write_bytes(WRAPPED[kind](EXIF[:length]))
        assert read_image_tags(path).orientation.rotation_deg == 0, length


def test_a_colour_profile_cannot_fill_the_memory(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(200 << 20), 9)))
    tracemalloc.start()
    icc = read_image_tags(path).icc
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert icc is None
    assert peak < 64 << 20
