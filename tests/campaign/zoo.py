"""A generator of odd films: whatever this FFmpeg build can encode and mux, drawn at random.

Committed as a generator, not as files: case N of a seed is the same film on the same build.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from .child import run_in_child

SUFFIXES = (
    ".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".mpg", ".wmv", ".flv", ".3gp", ".ogv", ".gif",
    ".mxf", ".vob", ".nut", ".m2ts", ".wtv", ".rm", ".swf", ".apng", ".y4m", ".h264", ".hevc",
    ".ivf", ".f4v", ".m4v", ".mpeg", ".dv", ".amv",
)  # fmt: skip
_HARDWARE = ("_amf", "_nvenc", "_qsv", "_v4l2m2m", "_vaapi", "_vulkan", "_mf", "_videotoolbox")
_NOT_FILMS = (
    "a64multi",
    "a64multi5",
    "alias_pix",
    "vnull",
    "wrapped_avframe",
    "bitpacked",
    "xface",
)
_NO_FILES = (
    "alsa", "crc", "dash", "data", "fbdev", "ffmetadata", "fifo", "framecrc", "framehash",
    "framemd5", "hash", "hds", "hls", "image2", "image2pipe", "md5", "mkvtimestamp_v2", "null",
    "oss", "rtp", "rtp_mpegts", "rtsp", "sap", "segment", "smoothstreaming", "streamhash", "tee",
    "uncodedframecrc", "webm_chunk", "webm_dash_manifest", "whip",
)  # fmt: skip
_ALIASES = ("h264", "hevc", "vp8", "vp9", "av1")
COMMON = ("libx264", "libx264", "libx265", "libvpx-vp9", "mpeg4", "prores_ks")
"""What people have."""
QUIET_X265 = "log-level=none:cutree=0"
"""For films of any width: see `oasis_core.codecs.X265_LEAST_CUTREE_WIDTH`."""
SOUND_CODECS = (
    "aac", "ac3", "eac3", "flac", "alac", "libmp3lame", "mp2", "libopus", "libvorbis", "pcm_s16le",
    "pcm_s24le", "pcm_f32le", "pcm_s16be", "pcm_alaw", "pcm_u8", "wmav2", "adpcm_ima_wav", "tta",
    "wavpack", "libopencore_amrnb", "g722", "pcm_bluray", "pcm_dvd",
)  # fmt: skip
SIZES = ((32, 24), (48, 32), (33, 25), (17, 16), (16, 35), (64, 16), (176, 144), (1, 1), (2, 2))
RATES = (
    Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(12),
    Fraction(1),
)  # fmt: skip
ASPECTS = (None, None, Fraction(16, 15), Fraction(1, 2), Fraction(40, 33))
TAGS = (
    (2, 2, 2, 0), (2, 2, 2, 0), (1, 1, 1, 1), (1, 1, 1, 2), (6, 6, 6, 1), (5, 6, 5, 1),
    (9, 16, 9, 1), (9, 18, 9, 1), (9, 14, 9, 2), (12, 13, 1, 1),
)  # fmt: skip
"""Primaries, transfer, matrix, range: none, 709, 601, 2020 with PQ, HLG and SDR, P3 with sRGB."""
TURNS = ((0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (0, 1, 1, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """How a film is made."""

    suffix: str
    codec: str
    pixel_format: str
    size: tuple[int, int]
    rate: Fraction
    times: tuple[int, ...]
    """PTS of the frames, in 1/(2 x rate)."""
    options: tuple[tuple[str, str], ...]
    tags: tuple[int, int, int, int]
    aspect: Fraction | None
    turn: tuple[int, int, int, int] | None
    """Display matrix, for .mp4 and .mov."""
    sounds: tuple[tuple[str, int, str, float], ...]
    """Codec, rate, layout and length as a share of the picture's."""
    has_subtitles: bool
    has_chapters: bool
    has_cover: bool
    metadata: tuple[tuple[str, str], ...]
    muxer: str = ""
    """FFmpeg's name of the container, where the suffix does not tell."""

    def __str__(self) -> str:
        extra = ("has_subtitles", "has_chapters", "has_cover")
        size = "x".join(map(str, self.size))
        parts = [f"{self.muxer or self.suffix} {self.codec} {self.pixel_format} {size}"]
        parts += [f"times {self.times[:3]}", f"tags {self.tags}", f"sounds {self.sounds}"]
        parts += [
            f"{n} {getattr(self, n)}" for n in ("options", "aspect", "turn") if getattr(self, n)
        ]
        return ", ".join(parts + [name for name in extra if getattr(self, name)])


def encoders() -> list[str]:
    """Every encoder of films in this build that needs no hardware."""
    names = []
    for name in sorted(av.codecs_available):
        if name.endswith(_HARDWARE) or name in _NOT_FILMS or name in _ALIASES:
            continue
        try:
            codec = av.codec.Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "video" and codec.video_formats:
            names.append(name)
    return names


def containers(codecs: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair of a container and an encoder that this build says fit together."""
    pairs = []
    for name in sorted(av.formats_available):
        if name in _NO_FILES or "," in name:
            continue
        try:
            with av.open(os.devnull, "w", format=name) as container:
                fitting = container.supported_codecs
        except (ValueError, OSError):  # it only reads, or wants a device
            continue
        pairs += [(name, codec) for codec in codecs if codec in fitting]
    return pairs


def pixel_formats(codec: str) -> list[str]:
    """What an encoder takes."""
    return [f.name for f in av.codec.Codec(codec, "w").video_formats]


def draw(random: Random, codec: str, number: int) -> Film:
    """Draw a film; every suffix has its turn."""
    suffix = SUFFIXES[number % len(SUFFIXES)]
    if random.random() < 0.6:
        suffix = random.choice((".mkv", ".mov", ".mp4", ".nut", ".avi"))
    num_frames = random.choice((1, 2, 3, 7, 7, 12))
    times = [2 * i for i in range(num_frames)]
    if random.random() < 0.3:
        times = [2 * i + random.choice((0, 0, 1)) + (9 if i > 4 else 0) for i in range(num_frames)]
    if random.random() < 0.25:
        offset = random.choice((-4, -1, 3, 1000))
        times = [time + offset for time in times]
    options = []
    if codec in ("libx264", "libx265"):
        options = [("preset", "ultrafast"), ("threads", "1")]
        options += [("x265-params", QUIET_X265)] if codec == "libx265" else []
        options += random.choice(((), (("bf", "3"), ("g", "4")), (("bf", "2"), ("flags", "-cgop"))))
    if codec in ("libx264", "mpeg2video", "mpeg4") and random.random() < 0.15:
        options += [("flags", "+ildct+ilme")]  # interlaced
    sounds = tuple(
        (
            random.choice(SOUND_CODECS[:6] if random.random() < 0.5 else SOUND_CODECS),
            random.choice((8000, 44100, 48000)),
            random.choice(("mono", "stereo", "5.1")),
            random.choice((1.0, 0.3, 2.5)),
        )
        for _ in range(random.choice((0, 1, 1, 2)))
    )
    return Film(
        suffix=suffix,
        codec=codec,
        pixel_format=random.choice(pixel_formats(codec)),
        size=random.choice(SIZES[:-2]) if random.random() < 0.97 else random.choice(SIZES[-2:]),
        rate=random.choice(RATES),
        times=tuple(times),
        options=tuple(options),
        tags=random.choice(TAGS),
        aspect=random.choice(ASPECTS),
        turn=random.choice(TURNS) if random.random() < 0.2 else None,
        sounds=sounds,
        has_subtitles=random.random() < 0.15,
        has_chapters=random.random() < 0.15,
        has_cover=random.random() < 0.1,
        metadata=(("title", "Söme ☃ film"), ("workflow", '{"a": 1}'))
        if random.random() < 0.4
        else (),
    )


def plain(film: Film) -> Film:
    """The same codec in the same container, in a size and rate that picky ones take."""
    size = (720, 576) if film.codec in ("dvvideo", "mpeg2video", "dnxhd") else (176, 144)
    return replace(
        film,
        size=size,
        rate=Fraction(25),
        times=(0, 2, 4),
        options={"dnxhd": (("b", "36M"),), "libx265": film.options}.get(film.codec, ()),
        sounds=(),
        turn=None,
        has_subtitles=False,
        has_chapters=False,
        has_cover=False,
    )


def make(film: Film, path: Path) -> bool:
    """Write a film; False if this build cannot make it."""
    # In a child: encoders given what they do not expect may crash.
    outcome = run_in_child(lambda: _write(film, path), timeout_s=20)
    return outcome.kind == "done" and path.exists() and path.stat().st_size > 0


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A smooth picture `h w 3` uint8, so that coarse colour planes keep it."""
    y, x = np.mgrid[0:height, 0:width]
    waves = (x / 19 + index / 9, y / 17 - index / 8, (x + y) / 23 + index / 7)
    return np.stack([127.5 + 90 * np.sin(wave) for wave in waves], -1).astype(np.uint8)


def _write(film: Film, path: Path) -> None:
    width, height = film.size
    tick = 1 / (2 * film.rate)
    with av.open(str(path.absolute()), "w", format=film.muxer or None) as container:
        container.metadata.update(dict(film.metadata))
        video = container.add_stream(film.codec, rate=film.rate, options=dict(film.options))
        video.width, video.height, video.pix_fmt = width, height, film.pixel_format
        context = video.codec_context
        context.time_base = video.time_base = tick
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            film.tags
        )
        if film.aspect:
            context.sample_aspect_ratio = film.aspect
        sounds = []
        for codec, rate, layout, _ in film.sounds:
            sound = container.add_stream(codec, rate=rate)
            sound.layout = layout
            sound.metadata["language"] = "fra"
            sounds.append(sound)
        beside = [_copied(container, other) for other in _beside(film, path)]
        if film.has_chapters:
            container.set_chapters(_chapters(film))
        for index, time in enumerate(film.times):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), "rgb24")
            frame = frame.reformat(format=film.pixel_format)
            frame.pts, frame.time_base = time, tick
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        length_s = float((film.times[-1] - film.times[0] + 2) * tick)
        for sound, (_, _, _, share) in zip(sounds, film.sounds, strict=True):
            _write_sound(container, sound, min(4.0, length_s * share))
        for source, stream in beside:
            for packet in source.demux(source.streams[0]):
                if packet.size:
                    packet.stream = stream
                    container.mux(packet)
            source.close()
    if film.turn and film.suffix in (".mp4", ".mov", ".m4v"):
        turn(path, film.turn)


def _chapters(film: Film) -> list[dict]:
    del film
    return [
        {
            "id": number,
            "start": start,
            "end": start + 100,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": title},
        }
        for number, start, title in ((1, 0, "one"), (2, 100, "two"))
    ]


def _beside(film: Film, path: Path) -> list[av.container.InputContainer]:
    """Files whose only stream is copied into the film."""
    found = []
    if film.has_subtitles:
        lines = path.with_suffix(".lines.srt")
        lines.write_text("1\n00:00:00,040 --> 00:00:00,200\nGuten Tag\n", encoding="utf-8")
        found.append(av.open(str(lines)))
    if film.has_cover:
        cover = path.with_suffix(".cover.mov")
        with av.open(str(cover), "w") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
            frame = av.VideoFrame.from_ndarray(picture(0, 16, 16), "rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        found.append(av.open(str(cover)))
    return found


def _copied(
    container: av.container.OutputContainer, source: av.container.InputContainer
) -> tuple[av.container.InputContainer, av.stream.Stream]:
    stream = container.add_stream_from_template(source.streams[0], opaque=True)
    if source.streams[0].type == "video":
        stream.disposition = 0x400  # an attached picture
    return source, stream


def _write_sound(
    container: av.container.OutputContainer, sound: av.stream.Stream, length_s: float
) -> None:
    rate, sample_format = sound.codec_context.sample_rate, sound.codec_context.format.name
    resampler = av.AudioResampler(sample_format, sound.codec_context.layout, rate)
    for start in range(0, int(length_s * rate), 1024):
        stop = min(start + 1024, int(length_s * rate))
        tone = (np.sin(np.arange(start, stop) / 9) * 9000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for piece in resampler.resample(frame):
            container.mux(sound.encode(piece))
    container.mux(sound.encode(None))


def turn(path: Path, matrix: Sequence[int]) -> None:
    """Write a display matrix (a b c d, of -1, 0, 1) into an MP4's video track."""
    data = bytearray(path.read_bytes())
    one, zeros = b"\x00\x01\x00\x00", b"\x00" * 12
    unit = one + zeros + one + zeros + b"\x40\x00\x00\x00"
    start = data.index(unit, data.index(b"tkhd"))
    for slot, value in zip((0, 1, 3, 4), matrix, strict=True):
        at = start + 4 * slot
        data[at : at + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
