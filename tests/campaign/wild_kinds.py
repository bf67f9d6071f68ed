"""Files of kinds that people reported elsewhere, built small and anew."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..core.changing_films import joined, several_descriptions
from ..core.video.conftest import cover, picture, write_clip

NUM = 10
VP9 = {"codec": "libvpx-vp9"}
Build = Callable[[Path], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file, and what has to become of it."""

    name: str
    reported: str
    """Where: repository and number."""
    build: Build
    out: str = ".mkv"
    frames: int = NUM
    said: str = ""
    """What the report or the log has to say, a regular expression."""
    refused: str = ""
    """Likewise of the sentence, where it is not to be done."""
    is_compared: bool = True
    """Whether FFmpeg alone reads the same of it."""


def clip(suffix: str, **options: object) -> Build:
    """A film of `NUM` frames, unless the options say otherwise."""
    return lambda folder: write_clip(folder / f"film{suffix}", **options)


def still(suffix: str, codec: str, pixel_format: str = "rgb24", **options: object) -> Build:
    """One picture."""
    return clip(suffix, codec=codec, pixel_format=pixel_format, pts=1, format="image2", **options)


def twice(suffix: str, *other: dict[str, object], **options: object) -> Build:
    """Two films joined byte by byte."""

    def build(folder: Path) -> Path:
        first = write_clip(folder / f"a{suffix}", **options)
        second = write_clip(folder / f"b{suffix}", **(options | dict(*other)))
        return joined(folder / f"film{suffix}", first, second)

    return build


def cut(build: Build, share: float) -> Build:
    """The beginning of a file."""

    def build_cut(folder: Path) -> Path:
        path = build(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return build_cut


def behind(build: Build, more: Callable[[Path], bytes]) -> Build:
    """A file with something behind its end."""

    def build_more(folder: Path) -> Path:
        path = build(folder)
        path.write_bytes(path.read_bytes() + more(folder))
        return path

    return build_more


def without_middle(build: Build) -> Build:
    """A picture that lacks what lies behind its middle, and has its end."""

    def build_hole(folder: Path) -> Path:
        path = build(folder)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + data[-2:])
        return path

    return build_hole


def overwritten(build: Build) -> Build:
    """A file of which some bytes behind the middle are others."""

    def build_other(folder: Path) -> Path:
        path = build(folder)
        data = bytearray(path.read_bytes())
        place = 2 * len(data) // 3
        data[place : place + 60] = b"\x55" * 60
        path.write_bytes(data)
        return path

    return build_other


def holding(content: bytes, suffix: str) -> Build:
    """A file of some bytes under a film's name."""

    def build(folder: Path) -> Path:
        path = folder / f"film{suffix}"
        path.write_bytes(content)
        return path

    return build


def renamed(build: Build, suffix: str) -> Build:
    """A file with another's ending."""
    return lambda folder: (path := build(folder)).rename(path.with_suffix(suffix))


def films(folder: Path, suffix: str, num_films: int) -> Path:
    """Several films beside each other in one file."""
    path = folder / f"film{suffix}"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=25) for _ in range(num_films)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for index in range(NUM):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), "rgb24")
            for track in tracks:
                container.mux(track.encode(frame))
        for track in tracks:
            container.mux(track.encode(None))
    return path


def sound_changes(folder: Path) -> Path:
    """Stereo that becomes 5.1 in a transport stream."""
    parts = []
    for layout in ("stereo", "5.1"):
        parts.append(folder / f"{layout}.ts")
        with av.open(str(parts[-1]), "w") as container:
            film = container.add_stream("libx264", rate=25)
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
            track = container.add_stream("aac", rate=48000, layout=layout)
            silence = np.zeros((track.layout.nb_channels, 1024), np.float32)
            for index in range(NUM):
                frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), "rgb24")
                container.mux(film.encode(frame))
            for index in range(19):
                sound = av.AudioFrame.from_ndarray(silence, "fltp", layout)
                sound.sample_rate, sound.pts = 48000, 1024 * index
                container.mux(track.encode(sound))
            for stream in (film, track):
                container.mux(stream.encode(None))
    return joined(folder / "film.ts", *parts)


def late_chapter(folder: Path) -> Path:
    """A film of 0.4 s with a chapter at 60 s."""
    path, first = folder / "film.mkv", write_clip(folder / "a.mp4")
    with av.open(str(first)) as source, av.open(str(path), "w") as output:
        film = output.add_stream_from_template(source.streams.video[0], opaque=True)
        tick = Fraction(1, 1000)
        times = ((0, 400), (60_000, 90_000))
        output.set_chapters(
            [
                {"id": i, "start": start, "end": end, "time_base": tick, "metadata": {"title": "c"}}
                for i, (start, end) in enumerate(times)
            ]
        )
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = film
                output.mux(packet)
    return path


def cover_alone(folder: Path) -> Path:
    """Music with a cover."""
    path, art = folder / "film.mp4", cover(folder)
    with av.open(str(path), "w") as container:
        stream, track = art.add(container), container.add_stream("aac", rate=44100)
        art.write(container, stream)
        sound = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        sound.sample_rate, sound.pts = 44100, 0
        container.mux(track.encode(sound))
        container.mux(track.encode(None))
    return path


def gain_map(folder: Path) -> Path:
    """A photo with a second picture behind it, named by an MPF segment."""
    path = still(".jpg", "mjpeg", "yuvj420p")(folder)
    data = path.read_bytes()
    entries = struct.pack(">IIIHH", 0x30000, len(data), 0, 0, 0)
    entries += struct.pack(">IIIHH", 0, len(data), len(data), 0, 0)
    index = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2)
    index += struct.pack(">HHII", 0xB002, 7, 32, 50) + bytes(4) + entries
    segment = b"MPF\0MM\0\x2a\0\0\0\x08" + struct.pack(">H", 3) + index
    head = b"\xff\xe2" + struct.pack(">H", len(segment) + 2)
    path.write_bytes(data[:2] + head + segment + data[2:] + data)
    return path


def two_descriptions(folder: Path) -> Path:
    """An MP4 whose index describes its samples in two ways."""
    parts = [
        write_clip(folder / f"{index}.mp4", size=size, options={"bf": "0"})
        for index, size in enumerate(((64, 48), (80, 48)))
    ]
    return several_descriptions(folder / "film.mp4", *parts)


LIVE = {"container_options": {"live": "1"}}
CHANGES = r"changes its size from 64x48 to 80x48 at frame 10 .*--on-change scale"
ANOTHER = {"size": (80, 48)}
BEHIND = "a further film behind the first one"
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
_A_TRACK = {"num_sounds": 1}
JPEG = still(".jpg", "mjpeg", "yuvj420p", size=(128, 96))

KINDS = (
    Kind(name="MP4 in fragments", reported="gpac/mp4box.js 504, Symphonia 332",
         build=clip(".mp4", container_options=FRAGMENTS, **_A_TRACK)),
    Kind(name="hybrid MP4 of OBS", reported="",
         build=clip(".mp4", container_options={"movflags": "hybrid_fragmented"}, **_A_TRACK)),
    Kind(name="WebM of a browser's recorder", reported="tauri 14656",
         build=clip(".webm", **VP9, **LIVE)),
    Kind(name="the same, cut off", reported="", frames=36, is_compared=False,
         build=cut(clip(".webm", pts=60, **VP9, **LIVE), 2 / 3)),
    Kind(name="Matroska cut off", reported="", refused="is truncated",
         build=cut(clip(".mkv", pts=60), 2 / 3)),
    Kind(name="the picture's PID changes", reported="tvheadend 2205, mpv 4305", is_compared=False,
         said="only the first video track",
         build=twice(".ts", {"container_options": {"mpegts_start_pid": "600"}})),
    Kind(name="the codec changes under one PID", reported="ossrs/srs 4731", is_compared=False,
         said="coded pictures could not be decoded", build=twice(".ts", {"codec": "mpeg2video"})),
    Kind(name="two programmes in one stream", reported="tstools 30", is_compared=False,
         said="only the first video track", build=lambda folder: films(folder, ".ts", 2)),
    Kind(name="MP4s joined byte by byte", reported="gpac/gpac 599", said=BEHIND,
         build=twice(".mp4", **_A_TRACK)),
    Kind(name="FLVs joined byte by byte", reported="", said=BEHIND, build=twice(".flv")),
    Kind(name="Matroskas joined byte by byte", reported="", frames=20, is_compared=False,
         build=twice(".mkv", **_A_TRACK)),
    Kind(name="browser's recordings joined", reported="", frames=20, is_compared=False,
         build=twice(".webm", **VP9, **LIVE)),
    Kind(name="AVIs joined byte by byte", reported="", frames=20, is_compared=False,
         build=twice(".avi", codec="mpeg4")),
    Kind(name="size changes, TS", reported="pvr.mythtv 203", refused=CHANGES,
         build=twice(".ts", ANOTHER)),
    Kind(name="size changes, VP9", reported="", refused=CHANGES,
         build=twice(".webm", ANOTHER, **VP9, **LIVE)),
    Kind(name="size changes, MPEG-2", reported="", refused=CHANGES,
         build=twice(".mpg", ANOTHER, codec="mpeg2video")),
    Kind(name="two descriptions in an index", reported="ExoPlayer 9318", refused=CHANGES,
         build=two_descriptions),
    Kind(name="sound that changes its channels", reported="", frames=2 * NUM, is_compared=False,
         out=".mp4", said="another number of channels", build=sound_changes),
    Kind(name="fields of H.265", reported="MediaInfoLib 1092 and 2637", said="whole frames",
         build=clip(".mkv", codec="libx265",
                    options={"x265-params": "interlace=tff:log-level=none"})),
    Kind(name="chapters behind the end", reported="gpac/gpac 599", out=".mp4", is_compared=False,
         said="begin behind the end", build=late_chapter),
    Kind(name="animated AVIF, which begins with a still", reported="libavif 112",
         said="pictures of the sequence", is_compared=False,
         build=clip(".avif", codec="libsvtav1", size=(64, 64))),
    Kind(name="photo with a gain map", reported="Pillow 8036, libjxl 4588, mozjpeg 451", frames=1,
         out=".png", said="gain map", is_compared=False, build=gain_map),
    Kind(name="motion photo", reported="immich 30654, photoprism 5027", frames=1, out=".png",
         said="motion photo", is_compared=False,
         build=behind(JPEG, lambda folder: clip(".mp4")(folder).read_bytes())),
    Kind(name="bytes behind a photo", reported="immich 30654", frames=1, out=".png",
         said="4,096 bytes behind", is_compared=False, build=behind(JPEG, lambda _: b"\7" * 4096)),
    Kind(name="JPEG that lacks a part", reported="zune-image 312 and 347, skity 399",
         refused="part of its picture is missing", out=".png", build=without_middle(JPEG)),
    Kind(name="PNG with damage inside", reported="", refused="is not a picture", out=".png",
         build=overwritten(still(".png", "png", size=(128, 96)))),
    Kind(name="OpenEXR with damage inside", reported="", out=".exr", refused="cut off|damaged",
         build=overwritten(still(".exr", "exr", "gbrpf32le", size=(128, 96),
                                options={"compression": "zip16"}))),
    Kind(name="JPEG under a PNG's name", reported="", frames=1, out=".png", is_compared=False,
         build=renamed(JPEG, ".png")),
    Kind(name="a web page under a film's name", reported="", refused="not a video",
         build=holding(b"<html><body>404 Not Found</body></html>", ".mp4")),
    Kind(name="a pointer of Git LFS", reported="", refused="not a video",
         build=holding(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ".mp4")),
    Kind(name="music with a cover", reported="", refused="has no video stream", build=cover_alone),
    Kind(name="stills of rarer kinds: JPEG 2000", reported="", frames=1, out=".png",
         build=still(".jp2", "jpeg2000"), is_compared=False),
    Kind(name="stills of rarer kinds: QOI", reported="", frames=1, out=".png",
         build=still(".qoi", "qoi"), is_compared=False),
    Kind(name="stills of rarer kinds: Targa", reported="", frames=1, out=".png",
         build=still(".tga", "targa", "bgra"), is_compared=False),
    Kind(name="stills of rarer kinds: Radiance HDR", reported="", frames=1, out=".png",
         said="limited", build=still(".hdr", "hdr", "gbrpf32le"), is_compared=False),
    Kind(name="full range of phones and recorders", out=".mp4",
         reported="HandBrake 2561, dots-hyprland 3587",
         build=clip(".mp4", pixel_format="yuvj420p", tags=(1, 1, 1, 2))),
    Kind(name="HLG of phones", reported="fx-upscale 30", out=".mp4",
         build=clip(".mkv", codec="ffv1", pixel_format="yuv420p10le", tags=(9, 18, 9, 1))),
    Kind(name="variable rate with sound", reported="VideoJaNai 27 and 34, video2x 1360",
         build=clip(".mp4", pts=[0, 1, 2, 7, 8, 20, 21, 22, 40, 41], **_A_TRACK)),
    Kind(name="sound that begins late, AVI", reported="video2x 1360", out=".mp4",
         is_compared=False,
         build=clip(".avi", codec="mpeg4", sound_codec="mp2", sound_start_s=0.3, **_A_TRACK)),
    Kind(name="half a frame per second", reported="", out=".mp4",
         build=clip(".mp4", rate=Fraction(1, 2))),
    Kind(name="a thousand frames per second", reported="", out=".mp4",
         build=clip(".mp4", rate=Fraction(1000))),
    Kind(name="a last picture that stays", reported="", out=".mp4", frames=4,
         build=clip(".mkv", pts=[0, 1, 2, 300])),
    Kind(name="one picture under long sound", reported="", out=".mp4", frames=1,
         build=clip(".mp4", pts=1, sound_s=2.0, **_A_TRACK)),
    Kind(name="times below zero", reported="", frames=4, is_compared=False,
         build=clip(".mkv", pts=[-5, 0, 5, 10])),
    Kind(name="odd sizes with 4:2:0", reported="", out=".mp4",
         build=clip(".mkv", codec="ffv1", size=(63, 47))),
    Kind(name="RGB in H.264", reported="",
         build=clip(".mkv", codec="libx264rgb", pixel_format="rgb24")),
    Kind(name="4:4:4 of 10 bits in H.264", reported="",
         build=clip(".mkv", pixel_format="yuv444p10le")),
    Kind(name="grey H.265", reported="",
         build=clip(".mkv", codec="libx265", pixel_format="gray",
                    options={"x265-params": "log-level=none"})),
    Kind(name="AV1 with film grain", reported="",
         build=clip(".mkv", codec="libsvtav1", size=(64, 64),
                    options={"svtav1-params": "film-grain=20"})),
    Kind(name="v210 in MOV", reported="", out=".mov",
         build=clip(".mov", codec="v210", pixel_format="yuv422p10le")),
    Kind(name="UYVY in AVI", reported="", out=".mov",
         build=clip(".avi", codec="rawvideo", pixel_format="uyvy422")),
    Kind(name="Animation codec with alpha", reported="", said="transparency", out=".mov",
         build=clip(".mov", codec="qtrle", pixel_format="argb")),
    Kind(name="GIF without waits", reported="jpegview 108", is_compared=False,
         build=clip(".gif", codec="gif", pixel_format="rgb8", rate=Fraction(100))),
)  # fmt: skip
