"""WebM: VP9 and AV1, with sound as Opus and in time."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_core.video import EncodeSpec, SegmentWriter, VideoError, VideoReader, mux, probe
from oasis_core.video.destination import check_destination


def click_film(path, codec="pcm_s16le", gap_at=None, layout="stereo", click_s=0.5):
    """A second of film at 25 per second and its sound: silence with one click of 10 ms."""
    rate = 44_100
    num_channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    with av.open(str(path), "w") as container:
        film = container.add_stream("ffv1", rate=25)
        film.width, film.height, film.pix_fmt = 32, 32, "bgr0"
        sound = container.add_stream(codec, rate=rate)
        sound.codec_context.layout = layout
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(
                np.full((32, 32, 3), 10 * number, np.uint8), format="rgb24"
            ).reformat(format="bgr0")
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
        samples = np.zeros((rate, num_channels), np.int16)
        start = round(click_s * rate)
        samples[start : start + rate // 100] = 20_000
        for begin in range(0, rate, 1470):
            if gap_at is not None and gap_at[0] * rate <= begin < gap_at[1] * rate:
                continue
            piece = samples[begin : begin + 1470].reshape(1, -1)
            block = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            block.sample_rate, block.pts, block.time_base = rate, begin, Fraction(1, rate)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return path


def remuxed(source, target, codec="vp9", **options):
    info = probe(source)
    spec = EncodeSpec.from_source(
        info, codec=codec, width=info.width, height=info.height, preset={"vp9": "8"}.get(codec)
    )
    segments = []
    frames = list(VideoReader(source))
    for index in range(0, len(frames), 10):
        segments.append(target.with_name(f"{target.stem}{index}.mkv"))
        with SegmentWriter(segments[-1], spec) as writer:
            for frame in frames[index : index + 10]:
                writer.write(frame.pixels, frame.pts, frame.duration)
    return mux(segments, source, target, spec, **options)


def click_of(path):
    """When the click in a file's sound begins, in seconds, and what channels there are."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        loud, layout = None, stream.codec_context.layout.name
        for frame in container.decode(stream):
            data = frame.to_ndarray()
            values = np.abs(data if frame.format.is_planar else data.reshape(-1, 1).T)
            values = values.max(axis=0).astype(np.float64)
            if not frame.format.is_planar:
                values = values.reshape(-1, frame.layout.nb_channels).max(axis=1)
            values /= 1 if values.dtype.kind == "f" and values.max() <= 2 else 32_768
            found = np.flatnonzero(values > 0.15)
            if len(found) and loud is None:
                loud = float(frame.pts * frame.time_base) + found[0] / frame.sample_rate
        return loud, layout


@pytest.mark.parametrize(("layout", "written"), [("mono", "mono"), ("stereo", "stereo")])
def test_sound_becomes_opus_and_stays_in_time(tmp_path, layout, written):
    source = click_film(tmp_path / "in.mkv", layout=layout)
    report = remuxed(source, tmp_path / "out.webm")
    assert report.kept == ("audio #1 (pcm_s16le), as Opus",)
    assert report.dropped == ()
    with av.open(str(tmp_path / "out.webm")) as container:
        assert container.streams.video[0].codec_context.name == "vp9"
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
    begins_s, found = click_of(tmp_path / "out.webm")
    assert begins_s == pytest.approx(0.5, abs=0.01)
    assert found == written


def test_a_gap_in_the_sound_moves_nothing_behind_it(tmp_path):
    source = click_film(tmp_path / "in.mkv", gap_at=(0.1, 0.3))
    remuxed(source, tmp_path / "out.webm")
    assert click_of(tmp_path / "out.webm")[0] == pytest.approx(0.5, abs=0.01)


def test_a_piece_has_its_own_sound(tmp_path):
    source = click_film(tmp_path / "in.mkv")
    info = probe(source)
    spec = EncodeSpec.from_source(info, codec="vp9", width=32, height=32, preset="8")
    with SegmentWriter(tmp_path / "s.mkv", spec) as writer:
        for frame in [f for f in VideoReader(source) if f.pts * info.time_base >= Fraction(2, 5)]:
            writer.write(frame.pixels, frame.pts, frame.duration)
    mux([tmp_path / "s.mkv"], source, tmp_path / "out.webm", spec, cut="both")
    assert click_of(tmp_path / "out.webm")[0] == pytest.approx(0.1, abs=0.03)


def test_opus_is_copied_as_it_is(tmp_path):
    source = click_film(tmp_path / "in.mkv")
    remuxed(source, tmp_path / "first.webm")
    report = remuxed(tmp_path / "first.webm", tmp_path / "second.webm", codec="av1")
    assert report.kept == ("audio #1 (opus)",)

    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(tmp_path / "second.webm") == packets(tmp_path / "first.webm")


def test_frames_and_times_are_the_source_s(tmp_path, clips):
    source = clips.write_clip(
        tmp_path / "in.mkv", pts=[0, 40, 55, 300, 333], time_base=Fraction(1, 1000)
    )
    remuxed(source, tmp_path / "out.webm")
    assert [frame.pts for frame in VideoReader(tmp_path / "out.webm")] == [0, 40, 55, 300, 333]


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    source = click_film(tmp_path / "in.mkv")
    for name in ("a", "b"):
        remuxed(source, tmp_path / f"{name}.webm")
    assert (tmp_path / "a.webm").read_bytes() == (tmp_path / "b.webm").read_bytes()


def test_what_webm_does_not_hold_is_said(tmp_path):
    with pytest.raises(VideoError, match="cannot hold h264; WebM holds vp9 and av1: take one of"):
        check_destination(tmp_path / "o.webm", "h264")
