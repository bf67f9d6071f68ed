"""What lies behind the end, what is missing inside, and what goes on as something else."""

from fractions import Fraction

import av
import numpy as np
import pytest
from changing_films import joined

from oasis_core.video import Source, VideoError, VideoReader, probe
from oasis_core.video.image_chunks import jpeg_end
from oasis_core.video.image_tags import read_image_tags
from oasis_core.video.images import ImageReader


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".flv"])
def test_a_second_film_in_the_file_is_named(make_clip, tmp_path, suffix):
    first = make_clip(f"a{suffix}", pts=4, options={"bf": "0"})
    path = joined(tmp_path / f"both{suffix}", first, first)
    assert any("a further film behind" in line for line in probe(path).not_kept)
    assert not any("further film" in line for line in probe(first).not_kept)


def test_a_fragmented_film_is_one_film(make_clip):
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = make_clip("a.mp4", pts=30, container_options=options)
    assert not any("further film" in line for line in probe(path).not_kept)


@pytest.fixture
def photo(clips, tmp_path):
    """A JPEG with restart markers, whose coded data hold escaped bytes."""
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuvj420p")
    clips.write_clip(
        path, codec="mjpeg", pixel_format="yuvj420p", size=(128, 96), pts=1, frames=[frame],
        format="image2",
    )  # fmt: skip
    return path


def test_where_a_jpeg_ends(photo):
    data = photo.read_bytes()
    assert jpeg_end(data) == len(data) == jpeg_end(data + b"\xff\xda\x00\xff\xd9film")
    assert jpeg_end(data[:-2]) is None
    assert jpeg_end(data[:200]) is None


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (b"\x00\x00\x00\x18ftypmp42" + bytes(range(1, 200)), "a film behind the picture"),
        (b"\x07" * 999, "999 bytes behind the picture"),
        (None, "a gain map"),
        (bytes(4096), ""),
    ],
)
def test_what_lies_behind_a_photo_is_named(photo, more, name):
    data = photo.read_bytes()
    photo.write_bytes(data + (data if more is None else more))
    others = read_image_tags(photo).notes.others
    assert [name in other for other in others] == [True] * bool(name)
    assert len(list(ImageReader([photo]))) == 1


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_photo_that_lacks_a_part_is_refused(photo, share):
    data = photo.read_bytes()
    photo.write_bytes(data[: int(len(data) * share)] + data[-2:])
    with pytest.raises(VideoError, match="part of its picture is missing"):
        ImageReader([photo])


def test_odd_camera_data_are_no_damage(photo):
    data = photo.read_bytes()
    for odd in (b"\xff\xe1\x00\x0aExif\0\0\xff\xff", b"\xff\xe2\x00\x05\x01\x02\x03"):
        photo.write_bytes(data[:2] + odd + data[2:])
        assert len(list(ImageReader([photo]))) == 1


def test_fields_of_h265_are_named(make_clip, caplog):
    options = {"x265-params": "interlace=tff:log-level=none"}
    path = make_clip("a.mkv", codec="libx265", options=options)
    with VideoReader(path) as reader:
        assert any("one field of half the height" in line for line in reader.info.not_kept)
    assert "use --deinterlace" not in caplog.text


def test_an_animated_avif_is_its_sequence(make_clip):
    path = make_clip("a.avif", codec="libsvtav1", size=(64, 64), pts=4)
    with VideoReader(path) as reader:
        assert len(list(reader)) == 4


@pytest.mark.parametrize(
    ("suffix", "codec"), [("qoi", "qoi"), ("jp2", "jpeg2000"), ("tga", "targa")]
)
def test_a_still_that_ffmpeg_reads_as_a_film_is_one_picture(clips, tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    form = "bgra" if codec == "targa" else "rgb24"
    clips.write_clip(path, codec=codec, pixel_format=form, pts=1, format="image2")
    source = Source.resolve(path)
    survey = source.survey(source.probe())
    assert (survey.num_frames, survey.info.num_frames) == (1, 1)


@pytest.mark.parametrize("name", ["o.mp4", "o.mkv"])
def test_aac_that_goes_on_otherwise_is_named(make_clip, clips, tmp_path, name):
    mono = tmp_path / "b.ts"
    with av.open(str(mono), "w") as container:
        film = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("aac", rate=44100, layout="mono")
        for index in range(10):
            pixels = clips.picture(index, 64, 48)
            container.mux(film.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        for index in range(17):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = 44100, 1024 * index
            container.mux(track.encode(sound))
        for stream in (film, track):
            container.mux(stream.encode(None))
    path = joined(tmp_path / "both.ts", make_clip("a.ts", num_sounds=1), mono)
    with VideoReader(path) as reader:
        frames = list(reader)
    report = clips.upscale_identity(frames, reader.info, tmp_path / name)
    assert sum("another number of channels" in line for line in report.dropped) == 1
    alone = tmp_path / "a.ts"
    with VideoReader(alone) as reader:
        frames = list(reader)
    report = clips.upscale_identity(frames, reader.info, tmp_path / f"alone-{name}")
    assert not any("another number" in line for line in report.dropped)


def test_chapters_behind_the_end_do_not_make_the_film_longer(make_clip, clips, tmp_path):
    path, tick = tmp_path / "in.mkv", Fraction(1, 1000)
    times = [(0, 300), (300, 90_000), (60_000, 90_000)]
    chapters = [
        {"id": i, "start": start, "end": end, "time_base": tick, "metadata": {"title": str(i)}}
        for i, (start, end) in enumerate(times)
    ]
    with av.open(str(make_clip())) as source, av.open(str(path), "w") as output:
        film = output.add_stream_from_template(source.streams.video[0], opaque=True)
        output.set_chapters(chapters)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = film
                output.mux(packet)
    with VideoReader(path) as reader:
        frames = list(reader)
    report = clips.upscale_identity(frames, reader.info, tmp_path / "o.mp4")
    assert "2 chapters" in report.kept
    assert "1 chapters: they begin behind the end of the film" in report.dropped
    with av.open(str(tmp_path / "o.mp4")) as written:
        assert [c["metadata"]["title"] for c in written.chapters()] == ["0", "1"]
        assert written.duration / av.time_base == pytest.approx(0.4, abs=0.05)
