"""Truncated and mutated files of every kind the program reads."""

from __future__ import annotations

import shutil
import struct
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import oasis_core
from oasis_core.upscale import journal_path
from oasis_core.video.image_tags import ImageTags
from oasis_core.video.image_writer import ImageEncoder, ImageSpec

from .batch import run_batch
from .child import run_in_child
from .data_files import DataFile, data_files
from .tally import Campaign, Fault
from .wild_kinds import KINDS
from .zoo import QUIET_X265, Film, _write, picture

TIMEOUT_S = 60.0
MEMORY_BYTES = 1 << 30
_NUMBERS = (0, 1, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"99999999999999999999",
    b"1.5", b'"\\ud800"', b"[" * 5000, b"\x00", b"\xff", b'{"a":' * 2000,
)  # fmt: skip
VIDEOS = (
    (".mp4", "libx264", "yuv420p", "aac"),
    (".mkv", "libx264", "yuv420p10le", "libopus"),
    (".mov", "prores_ks", "yuv422p10le", "pcm_s16le"),
    (".webm", "libvpx-vp9", "yuv420p", "libopus"),
    (".avi", "mpeg4", "yuv420p", "mp2"),
    (".ts", "mpeg2video", "yuv420p", "mp2"),
    (".mkv", "ffv1", "bgra", "flac"),
    (".mp4", "libx265", "yuv420p", "aac"),
    (".gif", "gif", "pal8", None),
)
WILD = (
    "MP4s joined byte by byte", "FLVs joined byte by byte", "size changes, TS",
    "size changes, MPEG-2", "two descriptions in an index", "sound that changes its channels",
    "fields of H.265", "chapters behind the end", "animated AVIF, which begins with a still",
    "photo with a gain map", "motion photo",
)  # fmt: skip
"""Of the kinds from the wild, those that have code of their own."""
PICTURES = (".png", ".jpg", ".webp", ".tif", ".bmp")
_EXIF = b"II*\x00" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
"""Camera data with one entry: turned by a quarter."""


def samples(folder: Path) -> list[Path]:
    """Small whole files to damage."""
    paths = []
    for number, (suffix, codec, pixel_format, sound) in enumerate(VIDEOS):
        film = Film(
            suffix=suffix,
            codec=codec,
            pixel_format=pixel_format,
            size=(32, 24),
            rate=Fraction(25),
            times=(0, 2, 4, 7, 8),
            options=(("x265-params", QUIET_X265),) if codec == "libx265" else (),
            tags=(1, 1, 1, 1),
            aspect=Fraction(16, 15),
            turn=None,
            sounds=((sound, 48000, "stereo", 1.0),) if sound else (),
            has_subtitles=suffix == ".mkv",
            has_chapters=suffix == ".mkv",
            has_cover=False,
            metadata=(("title", "A film"),),
        )
        path = folder / f"sample{number}{suffix}"
        outcome = run_in_child(partial(_write, film, path))
        if outcome.kind == "done":
            paths.append(path)
    for number, kind in enumerate(kind for kind in KINDS if kind.name in WILD):
        place = folder / f"wild{number}"
        place.mkdir()
        outcome = run_in_child(partial(kind.build, place))
        if outcome.kind == "done":
            paths.append(outcome.value)
    pixels = picture(0, 32, 24)
    for suffix in PICTURES[:-1]:
        spec = ImageSpec(suffix=suffix, width=32, height=24)
        tags = ImageTags(icc=bytes(range(256)) * 2, exif=_EXIF)
        paths.append(folder / f"picture{suffix}")
        paths[-1].write_bytes(ImageEncoder(spec).encode(pixels, None, tags))
    paths.append(folder / "picture.bmp")
    paths[-1].write_bytes(b"BM" + struct.pack("<IIIIiiHHIIIIII", 2358, 0, 54, 40, 32, 24, 1, 24,
        *(0,) * 6) + pixels.tobytes())  # fmt: skip
    return paths


def truncation(campaign: Campaign) -> None:
    """Cut each sample at every kilobyte (short form: at some)."""
    with campaign.fault("files cut off at every kilobyte") as (fault, folder):
        random, cases, names = campaign.random("cut"), [], []
        for path in samples(folder):
            data = path.read_bytes()
            lengths = sorted({*range(0, len(data), 1024), 1, 12, 40, len(data) - 1})
            if not campaign.is_long:
                lengths = random.sample(lengths, min(len(lengths), campaign.cases(3, 3)))
            for length in lengths:
                cut = folder / f"cut{len(cases)}{path.suffix}"
                cases.append(partial(_read_cut, campaign, path, cut, length))
                names.append(f"{path.name} cut at {length}")
        _count(fault, cases, names.__getitem__)


def mutation(campaign: Campaign) -> None:
    """Change bytes of videos and pictures. Case N of a seed is the same whatever else is tried."""
    with campaign.fault("videos and pictures with changed bytes") as (fault, folder):
        paths = samples(folder)

        def changed(number: int) -> tuple[Path, bytes, str]:
            random = campaign.random(f"bytes {number}")
            path = random.choice(paths)
            data, what = mutate(path.read_bytes(), random)
            return folder / f"changed{path.suffix}", data, f"{path.name} #{number}: {what}"

        def read(number: int) -> None:
            path, data, _ = changed(number)
            _read(campaign, path, data)

        # Made where they are read: a hundred thousand changed files would not fit into memory.
        cases = [partial(read, number) for number in range(campaign.cases(60, 40_000))]
        _count(fault, cases, lambda number: changed(number)[2])


def mutation_of_data(campaign: Campaign) -> None:
    """Change bytes of model files, configurations and journals, in the same way."""
    for name, file in data_files(campaign).items():
        with campaign.fault(f"{name} with changed bytes") as (fault, folder):
            _mutate_all(campaign, fault, folder, name, file)


def _mutate_all(campaign: Campaign, fault: Fault, folder: Path, name: str, file: DataFile) -> None:
    whole = file.make(folder)

    def changed(number: int) -> tuple[bytes, str]:
        random = campaign.random(f"{name} {number}")
        return mutate(whole, random, is_text=file.is_text)

    def act(number: int) -> None:
        file.read(folder, changed(number)[0])

    num_cases = campaign.cases(file.few_cases, file.many_cases)
    cases = [partial(act, number) for number in range(num_cases)]
    _count(fault, cases, lambda number: f"#{number}: {changed(number)[1]}")


def _count(fault: Fault, cases: list[Callable[[], Any]], name: Callable[[int], str]) -> None:
    kinds = Counter()
    outcomes = run_batch(cases, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES)
    for number, outcome in enumerate(outcomes):
        kinds[outcome.kind] += 1
        fault.note = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        text = f"{outcome.kind} {outcome.text[-900:]}"
        fault.count(None if outcome.is_clean else f"{name(number)}: {text}")


def _read_cut(campaign: Campaign, whole: Path, cut: Path, length: int) -> None:
    _read(campaign, cut, whole.read_bytes()[:length])


def _read(campaign: Campaign, path: Path, data: bytes) -> None:
    """Upscale a file as a user would; whatever it becomes must be whole."""
    path.write_bytes(data)
    is_picture = path.suffix in PICTURES
    out = path.with_name(path.stem + (".out.png" if is_picture else ".out.mkv"))
    # FFV1 is quicker to open than the others.
    options = {} if is_picture else {"codec": "ffv1", "on_change": "scale"}
    try:
        oasis_core.upscale_file(
            path, out, model=campaign.upscaler, scale=1, strength=0.0, **options
        )
    finally:
        path.unlink(missing_ok=True)
        out.unlink(missing_ok=True)
        shutil.rmtree(journal_path(out), ignore_errors=True)


def mutate(data: bytes, random: Random, *, is_text: bool = False) -> tuple[bytes, str]:
    """Change a few bytes, more often near the beginning, where headers are."""
    changed, done = bytearray(data), []
    for _ in range(random.choice((1, 1, 1, 2, 4, 12))):
        if not changed:
            break
        place = random.randrange(len(changed))
        if not is_text and random.random() < 0.5:
            place = min(place, random.randrange(min(len(changed), 4096)))
        ways = ("bit", "byte", "number", "cut", "copy", "noise")
        way = random.choice(ways + ("word",) * 4 * is_text)
        length = min(len(changed) - place, random.choice((1, 2, 4, 8, 50)))
        if way == "bit":
            changed[place] ^= 1 << random.randrange(8)
        elif way == "byte":
            changed[place] = random.randrange(256)
        elif way == "number":
            size = random.choice((1, 2, 4, 8))
            order = random.choice(("little", "big"))
            value = random.choice(_NUMBERS) & ((1 << (8 * size)) - 1)
            changed[place : place + size] = value.to_bytes(size, order)
        elif way == "cut":
            del changed[place : place + length]
        elif way == "copy":
            changed[place:place] = changed[place : place + length]
        elif way == "noise":
            changed[place : place + length] = random.randbytes(length)
        else:
            _replace_value(changed, place, random)
        done.append(f"{way} at {place}")
    return bytes(changed), ", ".join(done)


def _replace_value(changed: bytearray, place: int, random: Random) -> None:
    """Put another value in the place of the one that follows."""
    start = changed.find(b":", place)
    start = start if start >= 0 else changed.find(b"=", place)
    if start < 0:
        return
    end = start + 1
    while end < len(changed) and changed[end] not in b",]}\n":
        end += 1
    changed[start + 1 : end] = random.choice(_WORDS)
