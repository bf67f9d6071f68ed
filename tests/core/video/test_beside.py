"""What lies beside the pixels: side data of frames, notes of pictures, transparency apart."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from oasis_core.video import VideoError, VideoReader, open_source
from oasis_core.video.fields import FieldPairs
from oasis_core.video.image_notes import note_lines
from oasis_core.video.image_tags import ImageTags, read_image_tags, with_tags
from oasis_core.video.image_writer import ImageEncoder, ImageSpec
from oasis_core.video.side_data import lines_about


def chunk(name, content):
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def png(pixels, *chunks):
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body


PROFILE = bytes(16) + b"RGB XYZ " + bytes(200)
NAMED_PROFILE = chunk(b"iCCP", b"a name\0\0" + zlib.compress(PROFILE))
READ = """
import sys
from oasis_core.video import VideoReader
with VideoReader(sys.argv[1]) as reader:
    frames = list(reader)
print(len(frames), reader.info.not_kept)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mov", ".nut"])
def test_a_named_profile_does_not_end_the_process(clips, tmp_path, suffix):
    path = tmp_path / ("a" + suffix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        stream.time_base = Fraction(1, 25)
        for index in range(3):
            packet = av.Packet(png(clips.picture(index, 64, 48), NAMED_PROFILE))
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, True
            container.mux(packet)
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 ")
    assert "colour profile (ICC)" in done.stdout


def test_captions_are_named_from_the_first_frame_or_later(make_clip, tmp_path, caplog):
    plain = make_clip("plain.h264", format="h264", options={"bf": "0"})
    body = b"\xb5\0\x31GA94" + bytes((3, 0x41, 0xFF, 0xFC, 0x94, 0x2C, 0xFF))
    sei = b"\0\0\0\1" + bytes((6, 4, len(body))) + body + b"\x80"
    units = plain.read_bytes().replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    for first in (0, 4):
        data, number = b"", 0
        for unit in units:
            is_picture = unit[0] & 31 in (1, 5)
            data += (sei if is_picture and number >= first else b"") + b"\0\0\0\1" + unit
            number += is_picture
        (tmp_path / "in.h264").write_bytes(data)
        caplog.clear()
        with VideoReader(tmp_path / "in.h264") as reader:
            frames = list(reader)
        assert len(frames) == 10
        named = "closed captions" in " ".join(reader.info.not_kept)
        assert named == (first == 0)
        assert ("frame 4" in caplog.text and "closed captions" in caplog.text) == (first == 4)


def test_every_kind_of_side_data_has_a_line_or_a_reason():
    from av.sidedata.sidedata import Type

    quiet = {
        "DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "SKIP_SAMPLES",
        "MOTION_VECTORS", "VIDEO_ENC_PARAMS", "VIDEO_HINT", "REGIONS_OF_INTEREST",
    }  # fmt: skip
    for kind in Type:
        assert bool(lines_about({kind.name: b"\1"})) == (kind.name not in quiet), kind


WORKFLOW = chunk(b"tEXt", b'workflow\0{"nodes": []}')
CICP = chunk(b"cICP", bytes((9, 16, 0, 1)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_notes_are_kept_or_named(clips, tmp_path, suffix):
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    source = tmp_path / "in.png"
    dots = struct.pack(">IIB", 11811, 11811, 1)
    source.write_bytes(
        png(
            clips.picture(0, 64, 48), WORKFLOW, CICP, chunk(b"pHYs", dots),
            chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp), chunk(b"tIME", bytes(7)),
        )
    )  # fmt: skip
    tags = read_image_tags(source)
    data = ImageEncoder(ImageSpec(suffix=suffix, width=64, height=48)).encode(
        clips.picture(0, 64, 48), None, tags
    )
    out = tmp_path / ("out" + suffix)
    out.write_bytes(data)
    found = read_image_tags(out).notes
    kept, dropped = note_lines(tags.notes, suffix)
    assert found.xmp == xmp
    assert "XMP" in kept
    assert any("PNG chunk tIME" in line for line in dropped)
    assert bool(found.texts) == (suffix == ".png") == any("workflow" in line for line in kept)
    assert (suffix == ".png") == (found.cicp == bytes((9, 16, 0, 1)))
    assert (suffix != ".png") == any("cICP" in line for line in dropped)
    assert (found.density is not None) == (suffix != ".webp")
    if found.density is not None:
        across, _, unit = found.density
        per_inch = across * {"m": 0.0254, "cm": 2.54, "in": 1}[unit]
        assert per_inch == pytest.approx(300, abs=0.1)
    with av.open(str(out)) as container:
        assert next(container.decode(video=0)).width == 64


@pytest.mark.parametrize("space", [b"CMYK", b"GRAY"])
def test_a_profile_of_another_colour_model_is_not_written(clips, space):
    icc = bytes(16) + space + bytes(120)
    plain = png(clips.picture(0, 16, 16))
    assert b"iCCP" not in with_tags(plain, ImageTags(icc=icc), (16, 16), has_alpha=False)
    rgb = ImageTags(icc=icc.replace(space, b"RGB "))
    assert b"iCCP" in with_tags(plain, rgb, (16, 16), has_alpha=False)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_webm_keeps_its_transparency(clips, tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg build has no {codec}")
    path = tmp_path / "a.webm"
    cover = np.zeros((48, 64), np.uint8)
    cover[12:36, 16:48] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"auto-alt-ref": "0", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for index in range(4):
            rgba = np.dstack((clips.picture(index, 64, 48), cover))
            frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="yuva420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        frames = list(reader)
    assert reader.info.has_alpha
    assert len(frames) == 4
    for frame in frames:
        assert abs(int(frame.alpha[24, 32]) - 255) <= 2
        assert frame.alpha[2, 2] <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".exr", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("part", [0.97, 0.6])
def test_a_picture_that_is_cut_off_is_refused(clips, tmp_path, suffix, part):
    path = tmp_path / ("a" + suffix)
    spec = ImageSpec(suffix=suffix, width=128, height=96)
    data = ImageEncoder(spec).encode(clips.picture(0, 128, 96))
    path.write_bytes(data)
    with open_source(path) as reader:
        assert len(list(reader)) == 1
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(VideoError, match=r"cut off|damaged"):
        open_source(path)


class Bits:
    """Writes numbers as H.264 does."""

    def __init__(self):
        self.text = ""

    def u(self, value, count):
        self.text += f"{value:0{count}b}"
        return self

    def ue(self, *values):
        for value in values:
            digits = f"{value + 1:b}"
            self.text += "0" * (len(digits) - 1) + digits
        return self

    def unit(self, head):
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        body = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
        return b"\0\0\0\1" + bytes((head,)) + body


def parameters(*, may_be_fields):
    bits = Bits().u(77, 8).u(0, 8).u(30, 8).ue(0, 0, 2, 1).u(0, 1).u(0, 1).ue(3, 3)
    return bits.u(0 if may_be_fields else 1, 1).u(0, 3).unit(0x67)


def picture_unit(number, parity=None, *, may_be_fields=True):
    bits = Bits().ue(0, 7, 0).u(number, 4)
    if may_be_fields:
        bits.u(parity is not None, 1)
    if parity is not None:
        bits.u(parity, 1)
    return bits.u(0, 8).unit(0x65)


@pytest.mark.parametrize(
    ("units", "seconds"),
    [
        ([(0, 0), (0, 1), (1, 0), (1, 1)], [False, True, False, True]),
        ([(0, 1), (0, 0), (1, None), (2, 0), (2, 1)], [False, True, False, False, True]),
        ([(0, 0), (1, 0), (1, 1)], [False, False, True]),  # one field is lost
        ([(0, None), (1, None)], [False, False]),
    ],
)
def test_second_fields_are_told_from_pictures(units, seconds):
    context = SimpleNamespace(name="h264", extradata=None)
    fields = FieldPairs(SimpleNamespace(codec_context=context))
    found = []
    for index, (number, parity) in enumerate(units):
        head = parameters(may_be_fields=True) if index == 0 else b""
        found.append(fields.is_second(av.Packet(head + picture_unit(number, parity))))
    assert found == seconds
    assert fields.num_second == sum(seconds)
    assert fields.may_be
